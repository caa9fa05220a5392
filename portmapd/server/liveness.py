"""Dead services: mappings whose address was bound here, and is no longer, are removed."""

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from portmapd.registry.change import Change, Kind
from portmapd.registry.mapping import Key, Mapping
from portmapd.registry.registry import Registry
from portmapd.server.bound_sockets import TABLES, locals_of, read_bound
from portmapd.server.sock_diag import Local

#: A local address in one of the kernel's tables.
Place = tuple[str, Local]


class Liveness(Service):
    """Watches the addresses of the mappings that nobody holds.

    The kernel's tables are read once a period, and where mappings come in. What is done then
    depends on what changed in them, not on how many mappings there are.

    :param registry: whose mappings are watched.
    :param reactor: measures time.
    :param period: seconds between two looks.
    """

    _log = Logger()

    def __init__(self, registry: Registry, reactor: Any, period: float) -> None:
        self._registry = registry
        self._period = period
        self._watched: dict[Place, dict[Key, Mapping]] = {}
        self._netids: set[str] = set()
        self._seen: set[Key] = set()
        self._new: dict[Key, Mapping] = {}
        self._last: dict[str, frozenset[Local]] = {}
        #: Did the last look fail? That is said once.
        self._blind = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._unfollow = (
            registry.follow(self._mapped, Kind.MAPPED),
            registry.follow(self._unmapped, Kind.UNMAPPED),
        )
        self._mapped([Change(Kind.MAPPED, m) for m in registry.mappings])

    def startService(self) -> None:
        super().startService()
        self._looking.start(self._period, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._looking.running:
            self._looking.stop()

    def close(self) -> None:
        """Stop for good, and follow the registry no longer."""
        self.stopService()
        for unfollow in self._unfollow:
            unfollow()

    def _look(self) -> None:
        """A look that fails is the log's; the next one may succeed."""
        try:
            self.look()
        except Exception:
            if not self._blind:
                self._log.failure("dead services cannot be looked for; it is tried on")
            self._blind = True
        else:
            self._blind = False

    def look(self) -> None:
        """Remove the mappings that were seen bound and are no longer."""
        bound = read_bound(self._netids)
        suspects = self._new
        self._new = {}
        for table, now in bound.locals.items():
            before = self._last.get(table, frozenset())
            for _, key in self._at(table, now - before):
                self._seen.add(key)
            suspects |= {key: m for m, key in self._at(table, before - now)}
        self._last = bound.locals
        dead = [m for m in suspects.values() if m.key in self._seen and not bound.holds(m)]
        self._registry.unmap(*dead)

    def _at(self, table: str, names: frozenset[Local]) -> Iterator[tuple[Mapping, Key]]:
        """The mappings watched at these places."""
        for name in names:
            for key, mapping in self._watched.get((table, name), {}).items():
                yield mapping, key

    def _mapped(self, changes: Sequence[Change]) -> None:
        mappings = list(_unheld(changes))
        netids = {m.netid for m in mappings}
        self._netids |= netids
        for mapping in mappings:
            for place in _places(mapping):
                self._watched.setdefault(place, {})[mapping.key] = mapping
        try:
            bound = read_bound(netids)
        except OSError:
            # No descriptor is left, say. The next look that succeeds looks at everything.
            self._last = {}
            return
        for mapping in mappings:
            if bound.holds(mapping):
                self._seen.add(mapping.key)
                self._new[mapping.key] = mapping

    def _unmapped(self, changes: Sequence[Change]) -> None:
        for mapping in _unheld(changes):
            self._seen.discard(mapping.key)
            self._new.pop(mapping.key, None)
            for place in _places(mapping):
                watched = self._watched[place]
                del watched[mapping.key]
                if not watched:
                    del self._watched[place]


def _unheld(changes: Sequence[Change]) -> Iterator[Mapping]:
    """What a connection holds lives as long as that."""
    for change in changes:
        if isinstance(change.subject, Mapping) and change.subject.holder is None:
            yield change.subject


def _places(mapping: Mapping) -> Iterator[Place]:
    names = locals_of(mapping)
    return ((table, name) for table in TABLES[mapping.netid] for name in names)
