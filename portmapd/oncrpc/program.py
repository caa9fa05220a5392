"""The language of program 100000: its procedures, and the structures they exchange (RFC 1833).

Version 2 is the port mapper (section 3), versions 3 and 4 are rpcbind (section 2).
"""

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from itertools import islice
from struct import Struct
from typing import TypeVar

from attrs import frozen

from portmapd.errors import XdrError
from portmapd.oncrpc import xdr

T = TypeVar("T")

PROGRAM = 100000
#: The versions, by their names in RFC 1833.
PMAP_VERS, RPCBVERS, RPCBVERS4 = 2, 3, 4

#: The longest ``sockaddr`` in a netbuf, in bytes. A UNIX socket's, the longest in use, has 110.
MAX_NETBUF = 512

#: The most look-ups, and the most forwarded calls, that are read of the statistics of a version.
MAX_SUBJECTS = 10_000


class PmapProcedure(IntEnum):
    """The procedures of version 2 (RFC 1833, 3.1)."""

    PMAPPROC_NULL = 0
    PMAPPROC_SET = 1
    PMAPPROC_UNSET = 2
    PMAPPROC_GETPORT = 3
    PMAPPROC_DUMP = 4
    PMAPPROC_CALLIT = 5


class RpcbProcedure(IntEnum):
    """The procedures of versions 3 and 4; those from GETVERSADDR on are version 4's (2.1)."""

    RPCBPROC_NULL = 0
    RPCBPROC_SET = 1
    RPCBPROC_UNSET = 2
    RPCBPROC_GETADDR = 3
    RPCBPROC_DUMP = 4
    RPCBPROC_CALLIT = 5
    #: Version 4's name for CALLIT.
    RPCBPROC_BCAST = 5
    RPCBPROC_GETTIME = 6
    RPCBPROC_UADDR2TADDR = 7
    RPCBPROC_TADDR2UADDR = 8
    RPCBPROC_GETVERSADDR = 9
    RPCBPROC_INDIRECT = 10
    RPCBPROC_GETADDRLIST = 11
    RPCBPROC_GETSTAT = 12


#: The procedures that have a count in the statistics of a version.
STATISTICS = RpcbProcedure.RPCBPROC_GETSTAT + 1


def read_void(reader: xdr.Reader) -> None:
    """Read no arguments. Real clients send surplus bytes; they are ignored."""


@frozen
class Pmap:
    """``struct mapping``: the port of a program's version.

    :param protocol: IP protocol number, 6 for TCP and 17 for UDP.
    """

    program: int
    version: int
    protocol: int = 0
    port: int = 0


def read_pmap(reader: xdr.Reader) -> Pmap:
    """Read a ``struct mapping``."""
    return Pmap(reader.uint(), reader.uint(), reader.uint(), reader.uint())


def encode_pmap(pmap: Pmap) -> bytes:
    """Encode a ``struct mapping``."""
    return _uints(pmap.program, pmap.version, pmap.protocol, pmap.port)


_PMAP_ITEM, _RPCB_ITEM = Struct(">IIIII"), Struct(">III")


def encode_pmap_item(program: int, version: int, protocol: int, port: int) -> bytes:
    """Encode a ``struct mapping`` as an item of a list: TRUE before it (RFC 4506, 4.19)."""
    return _PMAP_ITEM.pack(True, program, version, protocol, port)


@frozen
class Rpcb:
    """``struct rpcb``: the universal address of a program's version on a netid."""

    program: int
    version: int
    netid: str = ""
    address: str = ""
    owner: str = ""


def read_rpcb(reader: xdr.Reader) -> Rpcb:
    """Read a ``struct rpcb``."""
    return Rpcb(reader.uint(), reader.uint(), reader.string(), reader.string(), reader.string())


def encode_rpcb(rpcb: Rpcb) -> bytes:
    """Encode a ``struct rpcb``."""
    return _uints(rpcb.program, rpcb.version) + _strings(rpcb.netid, rpcb.address, rpcb.owner)


def encode_rpcb_item(program: int, version: int, netid: str, address: str, owner: str) -> bytes:
    """Encode a ``struct rpcb`` as an item of a list: TRUE before it (RFC 4506, 4.19)."""
    return b"".join(
        (
            _RPCB_ITEM.pack(True, program, version),
            _common_string(netid),
            xdr.string(address),
            _common_string(owner),
        )
    )


#: Lists have the same few of them again and again.
_common_string = lru_cache(maxsize=1_024)(xdr.string)


@frozen
class RemoteCall:
    """``struct call_args``, and ``rpcb_rmtcallargs``: a call to another program.

    :param arguments: the procedure's arguments, encoded.
    """

    program: int
    version: int
    procedure: int
    arguments: bytes = b""


def read_remote_call(reader: xdr.Reader) -> RemoteCall:
    """Read a ``struct call_args``."""
    return RemoteCall(reader.uint(), reader.uint(), reader.uint(), reader.opaque())


def encode_remote_call(call: RemoteCall) -> bytes:
    """Encode a ``struct call_args``."""
    return _uints(call.program, call.version, call.procedure) + xdr.opaque(call.arguments)


@frozen
class CallResult:
    """``struct call_result``: the results of a forwarded call, in version 2.

    :param port: the UDP port of the service that was called.
    :param results: its results, encoded.
    """

    port: int
    results: bytes


def read_call_result(reader: xdr.Reader) -> CallResult:
    """Read a ``struct call_result``."""
    return CallResult(reader.uint(), reader.opaque())


def encode_call_result(result: CallResult) -> bytes:
    """Encode a ``struct call_result``."""
    return xdr.uint(result.port) + xdr.opaque(result.results)


@frozen
class RpcbCallResult:
    """``struct rpcb_rmtcallres``: the results of a forwarded call, in versions 3 and 4.

    :param address: the universal address of the service that was called.
    :param results: its results, encoded.
    """

    address: str
    results: bytes


def encode_rpcb_call_result(result: RpcbCallResult) -> bytes:
    """Encode a ``struct rpcb_rmtcallres``."""
    return xdr.string(result.address) + xdr.opaque(result.results)


def read_rpcb_call_result(reader: xdr.Reader) -> RpcbCallResult:
    """Read a ``struct rpcb_rmtcallres``."""
    return RpcbCallResult(reader.string(), reader.opaque())


def read_netbuf(reader: xdr.Reader) -> bytes:
    """Read the ``sockaddr`` in a ``struct netbuf``; its maximum length is ignored."""
    reader.uint()
    return reader.opaque(MAX_NETBUF)


def encode_netbuf(sockaddr: bytes) -> bytes:
    """Encode a ``struct netbuf``."""
    return xdr.uint(len(sockaddr)) + xdr.opaque(sockaddr)


@frozen
class RpcbEntry:
    """``struct rpcb_entry``: one transport on which a program is served.

    :param semantics: 1 connectionless, 3 connection-oriented with orderly release.
    :param family: the protocol family: inet, inet6 or loopback.
    :param protocol: the protocol's name; "-" for none.
    """

    address: str
    netid: str
    semantics: int
    family: str
    protocol: str


def read_rpcb_entry(reader: xdr.Reader) -> RpcbEntry:
    """Read a ``struct rpcb_entry``."""
    address, netid, semantics = reader.string(), reader.string(), reader.uint()
    return RpcbEntry(address, netid, semantics, reader.string(), reader.string())


def encode_rpcb_entry(entry: RpcbEntry) -> bytes:
    """Encode a ``struct rpcb_entry``."""
    head = _strings(entry.address, entry.netid) + xdr.uint(entry.semantics)
    return head + _strings(entry.family, entry.protocol)


@frozen
class RpcbsAddr:
    """``rpcbs_addrlist``: how often an address was asked for.

    :param success: how often it was found.
    :param failure: how often it was not.
    """

    program: int
    version: int
    success: int
    failure: int
    netid: str


@frozen
class RpcbsRmtcall:
    """``rpcbs_rmtcalllist``: how often a call was to be forwarded.

    :param success: how often the caller got results.
    :param failure: how often it did not.
    :param indirect: INDIRECT rather than CALLIT or BCAST.
    """

    program: int
    version: int
    procedure: int
    success: int
    failure: int
    indirect: bool
    netid: str


@frozen
class RpcbStat:
    """``rpcb_stat``: the statistics of one version.

    Counts of more than 32 bits wrap on the wire.

    :param calls: how often each procedure was called, by its number, from 0 to 12.
    :param sets: successful calls of SET.
    :param unsets: successful calls of UNSET.
    """

    calls: tuple[int, ...]
    sets: int
    unsets: int
    lookups: tuple[RpcbsAddr, ...]
    remote_calls: tuple[RpcbsRmtcall, ...]


def encode_rpcb_stat(stat: RpcbStat) -> bytes:
    """Encode an ``rpcb_stat``."""
    lookups = xdr.sequence([_encode_lookup(each) for each in stat.lookups])
    remote_calls = xdr.sequence([_encode_rmtcall(each) for each in stat.remote_calls])
    return _counts(*stat.calls, stat.sets, stat.unsets) + lookups + remote_calls


def read_rpcb_stat(reader: xdr.Reader) -> RpcbStat:
    """Read an ``rpcb_stat``.

    :raises XdrError: it has more than :data:`MAX_SUBJECTS` of a kind.
    """
    calls = tuple(reader.uint() for _ in range(STATISTICS))
    sets, unsets = reader.uint(), reader.uint()
    lookups = _subjects(reader, _read_lookup)
    return RpcbStat(calls, sets, unsets, lookups, _subjects(reader, _read_rmtcall))


def _subjects(reader: xdr.Reader, read: Callable[[xdr.Reader], T]) -> tuple[T, ...]:
    subjects = tuple(islice(reader.items(read), MAX_SUBJECTS + 1))
    if len(subjects) > MAX_SUBJECTS:
        raise XdrError(f"statistics of more than {MAX_SUBJECTS} subjects")
    return subjects


def _read_lookup(reader: xdr.Reader) -> RpcbsAddr:
    program, version, success, failure = (reader.uint() for _ in range(4))
    return RpcbsAddr(program, version, success, failure, reader.string())


def _read_rmtcall(reader: xdr.Reader) -> RpcbsRmtcall:
    program, version, procedure, success, failure = (reader.uint() for _ in range(5))
    return RpcbsRmtcall(
        program, version, procedure, success, failure, reader.boolean(), reader.string()
    )


_LOOKUP, _RMTCALL = Struct(">IIII"), Struct(">IIIIII")
#: Counts have 32 bits on the wire.
_COUNT = 0xFFFF_FFFF


def _encode_lookup(each: RpcbsAddr) -> bytes:
    counts = each.success & _COUNT, each.failure & _COUNT
    return _LOOKUP.pack(each.program, each.version, *counts) + xdr.string(each.netid)


def _encode_rmtcall(each: RpcbsRmtcall) -> bytes:
    counts = each.success & _COUNT, each.failure & _COUNT
    numbers = each.program, each.version, each.procedure, *counts, each.indirect
    return _RMTCALL.pack(*numbers) + xdr.string(each.netid)


def _uints(*values: int) -> bytes:
    return b"".join(map(xdr.uint, values))


def _counts(*values: int) -> bytes:
    return b"".join(xdr.uint(value & _COUNT) for value in values)


def _strings(*texts: str) -> bytes:
    return b"".join(map(xdr.string, texts))
