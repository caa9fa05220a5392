"""Mappings by the places where their services may be bound."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from portmapd.oncrpc.netid import NETIDS
from portmapd.registry.mapping import Mapping, key_of

#: A port; for netid ``local`` a path.
Place = int | str


class Places:
    """Mappings by netid and place; several may share one.

    A mapping that has its place for itself, as most have, costs one entry and no container.
    """

    def __init__(self) -> None:
        self._netids: dict[str, dict[Place, Mapping | list[Mapping]]] = {n: {} for n in NETIDS}

    def places(self, netid: str) -> dict[Place, Mapping | list[Mapping]]:
        """The places of a netid that have mappings."""
        return self._netids[netid]

    def at(self, netid: str, place: Place) -> Sequence[Mapping]:
        """The mappings of that place."""
        found = self._netids[netid].get(place, ())
        return (found,) if isinstance(found, Mapping) else found

    def add(self, new: Mapping) -> None:
        """Put *new* in, unless it is in."""
        places = self._netids[new.netid]
        found = places.setdefault(new.port or new.address, new)
        if found is new:
            return
        if isinstance(found, Mapping):
            found = places[new.port or new.address] = [found]
        if _index(found, new) is None:
            insort(found, new, key=key_of)

    def discard(self, old: Mapping) -> None:
        """Take *old* out, if it is in."""
        places = self._netids[old.netid]
        place = old.port or old.address
        found = places.get(place)
        if found is old:
            del places[place]
        elif isinstance(found, list) and (at := _index(found, old)) is not None:
            del found[at]
            if not found:
                del places[place]


def _index(mappings: list[Mapping], wanted: Mapping) -> int | None:
    """Where *wanted* itself is in a sorted list; for a moment another one may have its key."""
    at = bisect_left(mappings, wanted.key, key=key_of)
    while at < len(mappings) and mappings[at].key == wanted.key:
        if mappings[at] is wanted:
            return at
        at += 1
    return None
