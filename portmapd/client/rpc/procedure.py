"""The procedures of program 100000 as a client calls them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import frozen

from portmapd.oncrpc.message import XID, Call, Credential, decode_reply, encode_call
from portmapd.oncrpc.program import (
    PMAP_VERS,
    PROGRAM,
    RPCBVERS,
    RPCBVERS4,
    PmapProcedure,
    RpcbProcedure,
    RpcbStat,
    encode_pmap,
    encode_remote_call,
    encode_rpcb,
    read_call_result,
    read_rpcb_call_result,
    read_rpcb_stat,
    read_void,
)
from portmapd.oncrpc.xdr import Reader

A = TypeVar("A")
R = TypeVar("R")


@frozen
class Procedure(Generic[A, R]):
    """A procedure of program 100000.

    :param encode: encodes its arguments.
    :param read: reads its results.
    """

    version: int
    number: int
    encode: Callable[[A], bytes]
    read: Callable[[Reader], R]

    def tail(self, arguments: A, credential: Credential) -> bytes:
        """The message of a call, less its xid.

        :raises ValueError: a number in the arguments does not fit 32 bits.
        """
        try:
            encoded = self.encode(arguments)
            call = Call(0, PROGRAM, self.version, self.number, credential, encoded)
            return encode_call(call)[XID:]
        except struct.error:
            what = f"version {self.version}" if arguments is None else arguments
            raise ValueError(f"{what}: a number is not in the range 0 to 4294967295") from None

    def results(self, message: bytes) -> R:
        """The results in a reply."""
        return self.read(Reader(decode_reply(message)))


def _encode_void(arguments: None) -> bytes:
    return b""


def _rest(reader: Reader) -> Reader:
    """The results as they are, for a list that is read in slices."""
    return reader


def _read_statistics(reader: Reader) -> dict[int, RpcbStat]:
    """The statistics of each version."""
    return {version: read_rpcb_stat(reader) for version in (PMAP_VERS, RPCBVERS, RPCBVERS4)}


def null(version: int) -> Procedure[None, None]:
    """NULL of a version."""
    return Procedure(version, PmapProcedure.PMAPPROC_NULL, _encode_void, read_void)


SET = Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_SET, encode_pmap, Reader.boolean)
UNSET = Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_UNSET, encode_pmap, Reader.boolean)
GETPORT = Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_GETPORT, encode_pmap, Reader.uint)
CALLIT = Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_CALLIT, encode_remote_call, read_call_result)
DUMP = Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_DUMP, _encode_void, _rest)


def _rpcbind(
    number: RpcbProcedure, encode: Callable[[A], bytes], read: Callable[[Reader], R]
) -> tuple[Procedure[A, R], ...]:
    """A procedure that versions 4 and 3 share, newest first."""
    return tuple(Procedure(version, number, encode, read) for version in (RPCBVERS4, RPCBVERS))


GETADDR = _rpcbind(RpcbProcedure.RPCBPROC_GETADDR, encode_rpcb, Reader.string)
SET_ADDRESS = _rpcbind(RpcbProcedure.RPCBPROC_SET, encode_rpcb, Reader.boolean)
UNSET_ADDRESS = _rpcbind(RpcbProcedure.RPCBPROC_UNSET, encode_rpcb, Reader.boolean)
DUMP_ADDRESSES = _rpcbind(RpcbProcedure.RPCBPROC_DUMP, _encode_void, _rest)
#: What only version 4 has.
GETADDRLIST = Procedure(RPCBVERS4, RpcbProcedure.RPCBPROC_GETADDRLIST, encode_rpcb, _rest)
GETSTAT = Procedure(RPCBVERS4, RpcbProcedure.RPCBPROC_GETSTAT, _encode_void, _read_statistics)
#: CALLIT of version 3, which is sent to the broadcast addresses as well as that of version 2.
CALLIT_ADDRESS = Procedure(
    RPCBVERS, RpcbProcedure.RPCBPROC_CALLIT, encode_remote_call, read_rpcb_call_result
)
