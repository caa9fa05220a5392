"""The files in which rpcbind keeps its mappings for its next start (``rpcbind -w``).

``rpcbind.xdr`` is an ``rpcblist`` in XDR (RFC 1833, 2.1), ``portmap.xdr`` a ``pmaplist`` (3.1).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from portmapd.errors import InvalidMapping, InvalidState, XdrError
from portmapd.oncrpc.netid import PROTOCOLS, format_address
from portmapd.oncrpc.program import PROGRAM, Pmap, Rpcb, read_pmap, read_rpcb
from portmapd.oncrpc.xdr import Reader
from portmapd.registry.mapping import SUPERUSER, Key, Mapping, mapping

T = TypeVar("T")

#: The owner of mappings whose owner the file does not tell.
_UNKNOWN = "unknown"


def decode_rpcblist(data: bytes) -> list[Rpcb]:
    """Read ``rpcbind.xdr``.

    :raises InvalidState: it is malformed.
    """
    return _decode(data, read_rpcb)


def decode_pmaplist(data: bytes) -> list[Rpcb]:
    """Read ``portmap.xdr``; what version 2 has no netid for is left out.

    :raises InvalidState: it is malformed.
    """
    return list(_rpcbs(_decode(data, read_pmap)))


def warm_start_mappings(rpcbs: Iterable[Rpcb]) -> list[Mapping]:
    """The mappings that a port mapper can serve, each once.

    rpcbind's own are not among them, nor those with a netid or an address that there is not.
    """
    found: dict[Key, Mapping] = {}
    for rpcb in rpcbs:
        if rpcb.program == PROGRAM:
            continue
        owner = rpcb.owner
        if owner != SUPERUSER and not (owner.isascii() and owner.isdecimal() and len(owner) <= 10):
            owner = _UNKNOWN
        try:
            new = mapping(rpcb.program, rpcb.version, rpcb.netid, rpcb.address, owner)
        except InvalidMapping:
            continue
        found.setdefault(new.key, new)
    return list(found.values())


def _decode(data: bytes, read: Callable[[Reader], T]) -> list[T]:
    reader = Reader(data)
    try:
        rows = list(reader.items(read))
    except XdrError as error:
        raise InvalidState(f"it is not one of rpcbind's lists: {error}") from None
    if reader.rest():
        raise InvalidState("it is not one of rpcbind's lists: it goes on behind its end")
    return rows


def _rpcbs(rows: Iterable[Pmap]) -> Iterator[Rpcb]:
    for row in rows:
        netid = PROTOCOLS.get(row.protocol)
        if netid is not None and row.port <= 0xFFFF:
            address = format_address(netid.wildcard, row.port)
            yield Rpcb(row.program, row.version, netid.name, address, _UNKNOWN)
