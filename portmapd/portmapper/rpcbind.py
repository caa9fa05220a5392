"""Versions 3 and 4 of program 100000: rpcbind (RFC 1833, 2)."""

from attrs import frozen

from portmapd.errors import InvalidMapping
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import Credential
from portmapd.oncrpc.netid import (
    NETIDS,
    format_address,
    from_netbuf,
    split_address,
    to_netbuf,
)
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.callit import RemoteCall, read_remote_call, relay
from portmapd.portmapper.procedure import Context, Procedure, Relay, Results
from portmapd.portmapper.set_unset import check_modify, set_mapping, unset_mappings
from portmapd.portmapper.statistics import Lookup
from portmapd.portmapper.v2 import null, read_nothing
from portmapd.registry.mapping import Mapping

#: The longest ``sockaddr`` that is decoded, in bytes.
MAX_NETBUF = 512


@frozen
class Rpcb:
    """``struct rpcb``: a program's version over a netid at a universal address."""

    program: int
    version: int
    netid: str = ""
    address: str = ""
    owner: str = ""


def read_rpcb(reader: xdr.Reader) -> Rpcb:
    """Take a ``struct rpcb`` off *reader*."""
    return Rpcb(reader.uint(), reader.uint(), reader.string(), reader.string(), reader.string())


def encode_rpcb(rpcb: Rpcb) -> bytes:
    """The inverse of :func:`read_rpcb`."""
    numbers = xdr.uint(rpcb.program) + xdr.uint(rpcb.version)
    return numbers + b"".join(map(xdr.string, (rpcb.netid, rpcb.address, rpcb.owner)))


def _read_string(reader: xdr.Reader) -> str:
    return reader.string()


def _read_netbuf(reader: xdr.Reader) -> bytes:
    reader.uint()
    return reader.opaque(MAX_NETBUF)


def reached_address(caller: Caller, mapping: Mapping) -> str:
    """The mapping's address as *caller* can use it.

    A wildcard becomes the address of ours that the caller reached, for it reaches the service
    there, too.
    """
    wildcard = NETIDS[mapping.netid].wildcard
    if not wildcard or NETIDS[mapping.netid].family != caller.netid.family:
        return mapping.address
    host, port = split_address(mapping.address)
    return format_address(caller.reached, port) if host == wildcard else mapping.address


def _set(context: Context, caller: Caller, credential: Credential, wanted: Rpcb) -> Results:
    check_modify(context, caller)
    done = set_mapping(
        context, caller, wanted.program, wanted.version, wanted.netid, wanted.address
    )
    return Results(xdr.uint(done), success=done)


def _unset(context: Context, caller: Caller, credential: Credential, wanted: Rpcb) -> Results:
    check_modify(context, caller)
    netids = (wanted.netid,) if wanted.netid else tuple(NETIDS)
    done = unset_mappings(context, caller, wanted.program, wanted.version, netids)
    return Results(xdr.uint(done), success=done)


def _getaddr(context: Context, caller: Caller, credential: Credential, wanted: Rpcb) -> Results:
    """The transport of the call decides, not the netid it names; as with rpcbind."""
    netid = caller.netid.name
    return _address(
        caller, wanted, context.registry.mappings.find(wanted.program, wanted.version, netid)
    )


def _getversaddr(context: Context, caller: Caller, credential: Credential, wanted: Rpcb) -> Results:
    netid = caller.netid.name
    return _address(
        caller, wanted, context.registry.mappings.get(wanted.program, wanted.version, netid)
    )


def _address(caller: Caller, wanted: Rpcb, found: Mapping | None) -> Results:
    subject = Lookup(wanted.program, wanted.version, caller.netid.name)
    address = reached_address(caller, found) if found else ""
    return Results(xdr.string(address), subject, found is not None)


def _dump(context: Context, caller: Caller, credential: Credential, arguments: None) -> Results:
    return Results(context.dumps.get(3, lambda: _encode_all(context)))


def _encode_all(context: Context) -> bytes:
    return xdr.sequence(
        [
            encode_rpcb(Rpcb(m.program, m.version, m.netid, m.address, m.owner))
            for m in context.registry.mappings
        ]
    )


def _gettime(context: Context, caller: Caller, credential: Credential, arguments: None) -> Results:
    return Results(xdr.uint(int(context.now()) & 0xFFFF_FFFF))


def _uaddr2taddr(context: Context, caller: Caller, credential: Credential, address: str) -> Results:
    try:
        netbuf = to_netbuf(caller.netid, address)
    except InvalidMapping:
        netbuf = b""
    return Results(xdr.uint(len(netbuf)) + xdr.opaque(netbuf))


def _taddr2uaddr(
    context: Context, caller: Caller, credential: Credential, netbuf: bytes
) -> Results:
    try:
        return Results(xdr.string(from_netbuf(caller.netid, netbuf)))
    except InvalidMapping:
        return Results(xdr.string(""))


def _getaddrlist(context: Context, caller: Caller, credential: Credential, wanted: Rpcb) -> Results:
    """Every transport of the caller's protocol family on which this very version is served."""
    family = [n for n in NETIDS.values() if n.family == caller.netid.family]
    found = (context.registry.mappings.get(wanted.program, wanted.version, n.name) for n in family)
    return Results(xdr.sequence([_encode_entry(caller, m) for m in found if m]))


def _encode_entry(caller: Caller, mapping: Mapping) -> bytes:
    netid = NETIDS[mapping.netid]
    address = xdr.string(reached_address(caller, mapping)) + xdr.string(netid.name)
    protocol = xdr.string(netid.family) + xdr.string(netid.protocol)
    return address + xdr.uint(netid.semantics) + protocol


def _getstat(context: Context, caller: Caller, credential: Credential, arguments: None) -> Results:
    return Results(context.statistics.encode())


def _callit(context: Context, caller: Caller, credential: Credential, call: RemoteCall) -> Relay:
    return _relay(context, caller, credential, call, indirect=False)


def _indirect(context: Context, caller: Caller, credential: Credential, call: RemoteCall) -> Relay:
    return _relay(context, caller, credential, call, indirect=True)


def _relay(
    context: Context, caller: Caller, credential: Credential, call: RemoteCall, indirect: bool
) -> Relay:
    def encode(mapping: Mapping, results: bytes) -> bytes:
        return xdr.string(reached_address(caller, mapping)) + xdr.opaque(results)

    return relay(context, caller, credential, call, encode, indirect)


VERSION_3 = {
    0: Procedure(read_nothing, null),
    1: Procedure(read_rpcb, _set, lasting=False),
    2: Procedure(read_rpcb, _unset, lasting=False),
    3: Procedure(read_rpcb, _getaddr),
    4: Procedure(read_nothing, _dump),
    5: Procedure(read_remote_call, _callit, lasting=False),
    6: Procedure(read_nothing, _gettime, lasting=False),
    7: Procedure(_read_string, _uaddr2taddr),
    8: Procedure(_read_netbuf, _taddr2uaddr),
}

VERSION_4 = VERSION_3 | {
    9: Procedure(read_rpcb, _getversaddr),
    10: Procedure(read_remote_call, _indirect, lasting=False),
    11: Procedure(read_rpcb, _getaddrlist),
    12: Procedure(read_nothing, _getstat, lasting=False),
}
