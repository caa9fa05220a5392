"""Version 2 of program 100000: the port mapper (RFC 1833, 3)."""

from attrs import frozen

from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import Credential
from portmapd.oncrpc.netid import NETIDS, PROTOCOLS, format_address
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.callit import RemoteCall, read_remote_call, relay
from portmapd.portmapper.procedure import Context, Procedure, Relay, Results
from portmapd.portmapper.set_unset import check_modify, set_mapping, unset_mappings
from portmapd.portmapper.statistics import Lookup

VERSION = 2
MAX_PORT = 65535


@frozen
class Pmap:
    """``struct mapping``: a program's version over a protocol (6 TCP, 17 UDP) at a port."""

    program: int
    version: int
    protocol: int
    port: int


def read_pmap(reader: xdr.Reader) -> Pmap:
    """Take a ``struct mapping`` off *reader*."""
    return Pmap(reader.uint(), reader.uint(), reader.uint(), reader.uint())


def encode_pmap(pmap: Pmap) -> bytes:
    """The inverse of :func:`read_pmap`."""
    return b"".join(map(xdr.uint, (pmap.program, pmap.version, pmap.protocol, pmap.port)))


@frozen
class CallResult:
    """``struct call_result``: what a forwarded call gave.

    :param port: the UDP port of the service that was called.
    :param results: its results, as it encoded them.
    """

    port: int
    results: bytes


def read_call_result(reader: xdr.Reader) -> CallResult:
    """Take a ``struct call_result`` off *reader*."""
    return CallResult(reader.uint(), reader.opaque())


def encode_call_result(result: CallResult) -> bytes:
    """The inverse of :func:`read_call_result`."""
    return xdr.uint(result.port) + xdr.opaque(result.results)


def read_nothing(reader: xdr.Reader) -> None:
    """Take no arguments; surplus bytes, which real clients send, are ignored."""


def null(context: Context, caller: Caller, credential: Credential, arguments: object) -> Results:
    """Answer that the port mapper is there."""
    return Results()


def _set(context: Context, caller: Caller, credential: Credential, wanted: Pmap) -> Results:
    check_modify(context, caller)
    netid = PROTOCOLS.get(wanted.protocol)
    done = False
    if netid is not None and 0 < wanted.port <= MAX_PORT:
        done = _set_port(context, caller, wanted, netid.name)
    return Results(xdr.uint(done), success=done)


def _set_port(context: Context, caller: Caller, wanted: Pmap, netid: str) -> bool:
    standing = context.registry.mappings.get(wanted.program, wanted.version, netid)
    if standing is not None and standing.port == wanted.port:
        return True
    address = format_address(NETIDS[netid].wildcard, wanted.port)
    return set_mapping(context, caller, wanted.program, wanted.version, netid, address)


def _unset(context: Context, caller: Caller, credential: Credential, wanted: Pmap) -> Results:
    check_modify(context, caller)
    done = unset_mappings(context, caller, wanted.program, wanted.version, tuple(NETIDS))
    return Results(xdr.uint(done), success=done)


def _getport(context: Context, caller: Caller, credential: Credential, wanted: Pmap) -> Results:
    netid = PROTOCOLS.get(wanted.protocol)
    if netid is None:
        return Results(xdr.uint(0))
    found = context.registry.mappings.find(wanted.program, wanted.version, netid.name)
    subject = Lookup(wanted.program, wanted.version, netid.name)
    return Results(xdr.uint(found.port if found else 0), subject, found is not None)


def _dump(context: Context, caller: Caller, credential: Credential, arguments: None) -> Results:
    return Results(context.dumps.get(VERSION, lambda: _encode_all(context)))


def _encode_all(context: Context) -> bytes:
    rows = ((m, NETIDS[m.netid].number) for m in context.registry.mappings)
    return xdr.sequence(
        [
            encode_pmap(Pmap(m.program, m.version, number, m.port))
            for m, number in rows
            if number is not None
        ]
    )


def _callit(context: Context, caller: Caller, credential: Credential, call: RemoteCall) -> Relay:
    return relay(
        context,
        caller,
        credential,
        call,
        lambda mapping, results: encode_call_result(CallResult(mapping.port, results)),
    )


PROCEDURES = {
    0: Procedure(read_nothing, null),
    1: Procedure(read_pmap, _set, lasting=False),
    2: Procedure(read_pmap, _unset, lasting=False),
    3: Procedure(read_pmap, _getport),
    4: Procedure(read_nothing, _dump),
    5: Procedure(read_remote_call, _callit, lasting=False),
}
