"""Versions 3 and 4 of program 100000: rpcbind (RFC 1833, section 2)."""

from collections.abc import Sequence

from portmapd.errors import InvalidMapping
from portmapd.oncrpc import xdr
from portmapd.oncrpc.netid import NETIDS, from_sockaddr, to_sockaddr
from portmapd.oncrpc.program import (
    RPCBVERS,
    Rpcb,
    RpcbEntry,
    RpcbProcedure,
    encode_netbuf,
    encode_rpcb_entry,
    encode_rpcb_item,
    read_netbuf,
    read_remote_call,
    read_rpcb,
    read_void,
)
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.callit import callit, indirect
from portmapd.portmapper.context import Context, Request
from portmapd.portmapper.procedure import Procedure, Results, null
from portmapd.portmapper.set_unset import check_modify, set_mapping, unset_mappings
from portmapd.portmapper.statistics import Lookup
from portmapd.registry.mapping import Mapping

#: The size of an entry of DUMP with the shortest texts, in bytes: whether it follows, program and
#: version, then netid, address and owner.
_LEAST_ROW = 4 + 8 + 3 * 8


def _set(context: Context, request: Request, wanted: Rpcb) -> Results:
    check_modify(context, request.caller, wanted.program, wanted.version)
    key = wanted.program, wanted.version, wanted.netid
    set_mapping(context, request.caller, *key, wanted.address)
    return Results(xdr.uint(True))


def _unset(context: Context, request: Request, wanted: Rpcb) -> Results:
    check_modify(context, request.caller, wanted.program, wanted.version)
    netids = (wanted.netid,) if wanted.netid else tuple(NETIDS)
    unset_mappings(context, request.caller, wanted.program, wanted.version, netids)
    return Results(xdr.uint(True))


def _getaddr(context: Context, request: Request, wanted: Rpcb) -> Results:
    """As in rpcbind, the transport of the call counts, not the netid in its arguments."""
    netid = request.caller.netid.name
    found = context.registry.mappings.find(wanted.program, wanted.version, netid)
    return _address(request.caller, wanted, found)


def _getversaddr(context: Context, request: Request, wanted: Rpcb) -> Results:
    netid = request.caller.netid.name
    found = context.registry.mappings.get(wanted.program, wanted.version, netid)
    return _address(request.caller, wanted, found)


def _address(caller: Caller, wanted: Rpcb, found: Mapping | None) -> Results:
    # By the version that is registered: a caller may ask for any.
    version = found.version if found else wanted.version
    subject = Lookup(wanted.program, version, caller.netid.name)
    address = caller.reachable_address(found) if found else ""
    return Results(xdr.string(address), subject, found is not None)


def _dump(context: Context, request: Request, arguments: None) -> Results:
    return Results(rest=context.dumps.parts(RPCBVERS, encode_items))


def encode_items(mappings: Sequence[Mapping]) -> bytes:
    """Encode mappings as items of the list that DUMP returns."""
    return b"".join(
        [encode_rpcb_item(m.program, m.version, m.netid, m.address, m.owner) for m in mappings]
    )


def _least_dump(context: Context) -> int:
    return _LEAST_ROW * len(context.registry.mappings)


def _gettime(context: Context, request: Request, arguments: None) -> Results:
    return Results(xdr.uint(int(context.now()) & 0xFFFF_FFFF))


def _uaddr2taddr(context: Context, request: Request, address: str) -> Results:
    try:
        sockaddr = to_sockaddr(request.caller.netid, address)
    except InvalidMapping:
        sockaddr = b""
    return Results(encode_netbuf(sockaddr))


def _taddr2uaddr(context: Context, request: Request, sockaddr: bytes) -> Results:
    try:
        address = from_sockaddr(request.caller.netid, sockaddr)
    except InvalidMapping:
        address = ""
    return Results(xdr.string(address))


def _getaddrlist(context: Context, request: Request, wanted: Rpcb) -> Results:
    """Every transport of the caller's protocol family on which exactly this version is served."""
    caller, mappings = request.caller, context.registry.mappings
    family = [n for n in NETIDS.values() if n.family == caller.netid.family]
    found = (mappings.get(wanted.program, wanted.version, n.name) for n in family)
    return Results(xdr.sequence([encode_rpcb_entry(_entry(caller, m)) for m in found if m]))


def _entry(caller: Caller, mapping: Mapping) -> RpcbEntry:
    netid = NETIDS[mapping.netid]
    address = caller.reachable_address(mapping)
    return RpcbEntry(address, netid.name, netid.semantics, netid.family, netid.protocol)


def _getstat(context: Context, request: Request, arguments: None) -> Results:
    return Results(context.statistics.encode())


def _least_getstat(context: Context) -> int:
    return context.statistics.least_size


VERSION_3: dict[int, Procedure] = {
    RpcbProcedure.RPCBPROC_NULL: Procedure(read_void, null),
    RpcbProcedure.RPCBPROC_SET: Procedure(read_rpcb, _set, cacheable=False),
    RpcbProcedure.RPCBPROC_UNSET: Procedure(read_rpcb, _unset, cacheable=False),
    RpcbProcedure.RPCBPROC_GETADDR: Procedure(read_rpcb, _getaddr),
    RpcbProcedure.RPCBPROC_DUMP: Procedure(read_void, _dump, least=_least_dump),
    RpcbProcedure.RPCBPROC_CALLIT: Procedure(read_remote_call, callit, cacheable=False),
    RpcbProcedure.RPCBPROC_GETTIME: Procedure(read_void, _gettime, cacheable=False),
    RpcbProcedure.RPCBPROC_UADDR2TADDR: Procedure(xdr.Reader.string, _uaddr2taddr),
    RpcbProcedure.RPCBPROC_TADDR2UADDR: Procedure(read_netbuf, _taddr2uaddr),
}

VERSION_4: dict[int, Procedure] = VERSION_3 | {
    RpcbProcedure.RPCBPROC_GETVERSADDR: Procedure(read_rpcb, _getversaddr),
    RpcbProcedure.RPCBPROC_INDIRECT: Procedure(read_remote_call, indirect, cacheable=False),
    RpcbProcedure.RPCBPROC_GETADDRLIST: Procedure(read_rpcb, _getaddrlist),
    RpcbProcedure.RPCBPROC_GETSTAT: Procedure(
        read_void, _getstat, cacheable=False, least=_least_getstat
    ),
}
