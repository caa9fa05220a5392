"""Version 2 of program 100000: the port mapper (RFC 1833, section 3)."""

from collections.abc import Sequence
from struct import Struct

from portmapd.errors import InvalidMapping
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import XID, Call, encode_call, success
from portmapd.oncrpc.netid import NETIDS, PROTOCOLS, format_address
from portmapd.oncrpc.program import (
    PMAP_VERS,
    PROGRAM,
    Pmap,
    PmapProcedure,
    encode_pmap,
    encode_pmap_item,
    read_pmap,
    read_remote_call,
    read_void,
)
from portmapd.portmapper.callit import callit
from portmapd.portmapper.context import Context, Request
from portmapd.portmapper.procedure import Procedure, Results, null
from portmapd.portmapper.reply_cache import CachedReply, Compute
from portmapd.portmapper.set_unset import check_modify, set_mapping, unset_mappings
from portmapd.portmapper.statistics import Lookup, Statistics, Tally
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry

MAX_PORT = 65535


def _set(context: Context, request: Request, wanted: Pmap) -> Results:
    check_modify(context, request.caller, wanted.program, wanted.version)
    netid = PROTOCOLS.get(wanted.protocol)
    if netid is None or not 0 < wanted.port <= MAX_PORT:
        raise InvalidMapping(
            f"SET of program {wanted.program} version {wanted.version} on protocol "
            f"{wanted.protocol} at port {wanted.port}: only protocols 6 (tcp) and 17 (udp) and "
            f"ports from 1 to {MAX_PORT} can be set"
        )
    key = wanted.program, wanted.version, netid.name
    existing = context.registry.mappings.get(*key)
    if existing is not None and existing.port == wanted.port:
        address = existing.address
    else:
        address = format_address(netid.wildcard, wanted.port)
    set_mapping(context, request.caller, *key, address)
    return Results(xdr.uint(True))


def _unset(context: Context, request: Request, wanted: Pmap) -> Results:
    check_modify(context, request.caller, wanted.program, wanted.version)
    unset_mappings(context, request.caller, wanted.program, wanted.version, tuple(NETIDS))
    return Results(xdr.uint(True))


def _getport(context: Context, request: Request, wanted: Pmap) -> Results:
    netid = PROTOCOLS.get(wanted.protocol)
    if netid is None:
        return Results(xdr.uint(0))
    found = context.registry.mappings.find(wanted.program, wanted.version, netid.name)
    # By the version that is registered: a caller may ask for any.
    version = found.version if found else wanted.version
    subject = Lookup(wanted.program, version, netid.name)
    return Results(xdr.uint(found.port if found else 0), subject, found is not None)


class GetportReplies:
    """Replies to GETPORT without a credential, one for each port.

    The reply has nothing but a port in it, so that 65,536 replies serve any number of programs,
    and no change of a mapping invalidates them. Only look-ups that share one count are replied to
    here: the others each need their own.

    :param registry: tells the ports.
    :param statistics: tells which look-ups share a count.
    :param transport: the netid of the calls.
    """

    _REQUEST = encode_call(
        Call(
            0,
            PROGRAM,
            PMAP_VERS,
            PmapProcedure.PMAPPROC_GETPORT,
            arguments=encode_pmap(Pmap(0, 0)),
        )
    )
    _SIZE = len(_REQUEST) - XID
    _HEADER = _REQUEST[XID:-16]
    _ARGUMENTS = Struct(f">{len(_HEADER)}xIII4x")

    def __init__(self, registry: Registry, statistics: Statistics, transport: str) -> None:
        getport = PmapProcedure.PMAPPROC_GETPORT
        self._mappings = registry.mappings
        self._shares_count = statistics.shares_count
        self._count = statistics.count_of(Tally(PMAP_VERS, getport, transport=transport))
        self._replies: dict[int, CachedReply] = {}

    def find(self, request: bytes) -> CachedReply | None:
        """The reply to *request*, a message less its xid; None if it has to be dispatched."""
        if len(request) != self._SIZE or not request.startswith(self._HEADER):
            return None
        program, version, protocol = self._ARGUMENTS.unpack(request)
        netid = PROTOCOLS.get(protocol)
        if netid is None:
            return None
        mapping = self._mappings.find(program, version, netid.name)
        if not self._shares_count(PMAP_VERS, program, mapping is not None):
            return None
        port = mapping.port if mapping is not None else 0
        return self._replies.get(port) or self._make(port)

    def _make(self, port: int) -> CachedReply:
        reply = CachedReply(self._REQUEST, success(0, xdr.uint(port)), self._count)
        self._replies[port] = reply
        return reply


def getport_replies(registry: Registry, statistics: Statistics) -> dict[str, Compute]:
    """What makes replies to GETPORT, by the netid of the calls: each is counted by itself."""
    return {netid: GetportReplies(registry, statistics, netid).find for netid in NETIDS}


def _dump(context: Context, request: Request, arguments: None) -> Results:
    return Results(rest=context.dumps.parts(PMAP_VERS, encode_items))


def encode_items(mappings: Sequence[Mapping]) -> bytes:
    """Encode mappings as items of the list that DUMP returns."""
    rows = ((m, NETIDS[m.netid].number) for m in mappings)
    return b"".join(
        [
            encode_pmap_item(m.program, m.version, number, m.port)
            for m, number in rows
            if number is not None
        ]
    )


PROCEDURES: dict[int, Procedure] = {
    PmapProcedure.PMAPPROC_NULL: Procedure(read_void, null),
    PmapProcedure.PMAPPROC_SET: Procedure(read_pmap, _set, cacheable=False),
    PmapProcedure.PMAPPROC_UNSET: Procedure(read_pmap, _unset, cacheable=False),
    PmapProcedure.PMAPPROC_GETPORT: Procedure(read_pmap, _getport),
    PmapProcedure.PMAPPROC_DUMP: Procedure(read_void, _dump),
    PmapProcedure.PMAPPROC_CALLIT: Procedure(read_remote_call, callit, cacheable=False),
}
