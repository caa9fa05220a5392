"""Takes mappings back at a start: those of an earlier run, and those of rpcbind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from portmapd.oncrpc.program import PROGRAM
from portmapd.registry.mapping import NOBODY, Mapping, Users
from portmapd.registry.presence import owner_users
from portmapd.registry.registry import Registry
from portmapd.registry.snapshot import SavedMapping, Snapshot, restored
from portmapd.server.boot import Boot
from portmapd.server.bound_sockets import users_of
from portmapd.server.liveness import Liveness, users_of_all

#: A table that changes while it is read may lack sockets. So many addresses are asked for again one
#: by one; the mappings of more would be suspended until the first look.
MAX_CHECKED = 1_000

#: Who has each address bound, by netid and address.
_Bound = dict[tuple[str, str], Users]


@frozen
class Restored:
    """What came of saved mappings.

    :param registered: how many are registered again.
    :param remembered: how many are remembered, because their services are not there.
    """

    registered: int
    remembered: int


@frozen
class Restorer:
    """Takes mappings back whose services are still there.

    What the registry has already, stays.

    :param registry: where they are registered.
    :param liveness: watches them afterwards; None: nothing does, and none is remembered.
    :param forget: seconds for which those whose services are gone are remembered.
    """

    registry: Registry
    liveness: Liveness | None
    forget: float

    def restore(self, snapshot: Snapshot, boot: Boot) -> Restored:
        """Take back the mappings of an earlier run."""
        age = None
        if snapshot.boot == boot.name:
            age = max(boot.seconds() - snapshot.moment, 0.0)
        wanted = [each for each in snapshot.saved if self._is_free(each.mapping)]
        bound = _bound([each.mapping for each in wanted])
        forget = 0.0 if self.liveness is None else self.forget
        found = (restored(each, _at(bound, each.mapping), age, forget) for each in wanted)
        return self.take([each for each in found if each is not None])

    def adopt(self, mappings: Iterable[Mapping]) -> int:
        """Register mappings of rpcbind whose addresses are bound by their owners, or by anybody if
        their owners are unknown.

        :return: how many are registered.
        """
        wanted = [each for each in mappings if self._is_free(each)]
        bound = _bound(wanted)
        adopted: list[SavedMapping] = []
        for each in wanted:
            owners, users = owner_users(each.owner), _at(bound, each)
            if users and (not owners or owners & users):
                adopted.append(SavedMapping(each, owners | users))
        return self.take(adopted).registered

    def _is_free(self, mapping: Mapping) -> bool:
        if mapping.program == PROGRAM or mapping.key in self.registry.suspended:
            return False
        return self.registry.mappings.get(*mapping.key) is None

    def take(self, found: Sequence[SavedMapping]) -> Restored:
        """Register mappings, or remember them, as they are; their keys must be free."""
        if self.liveness is not None:
            self.liveness.restore(found)
        else:
            self.registry.map(*[each.mapping for each in found])
        remembered = sum(each.left is not None for each in found)
        return Restored(len(found) - remembered, remembered)


def _bound(mappings: Sequence[Mapping]) -> _Bound:
    """Who has the addresses of *mappings* bound; nobody if the kernel does not tell."""
    try:
        bound = users_of_all(mappings)
        missing = [each for each in mappings if not _at(bound, each)]
        for each in missing[:MAX_CHECKED]:
            bound[each.netid, each.address] = users_of(each)
    except OSError:
        return {}
    return bound


def _at(bound: _Bound, mapping: Mapping) -> Users:
    return bound.get((mapping.netid, mapping.address), NOBODY)
