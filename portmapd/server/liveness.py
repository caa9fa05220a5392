"""Removes the mappings of dead services: those whose address was bound here, and no longer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import Key, Mapping
from portmapd.registry.registry import Registry
from portmapd.server.bound_sockets import TABLES, locals_of, read_bound
from portmapd.server.log_events import MAPPING_DEAD
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.sock_diag import Local

#: A local address in one of the kernel's tables.
TableEntry = tuple[str, Local]


class Liveness(Service):
    """Watches the addresses of the mappings that no connection holds.

    It reads the kernel's tables of sockets once a period, and when mappings are new. A period's
    work grows with what changed in the tables, not with the number of mappings.

    :param registry: whose mappings are watched.
    :param clock: measures time.
    :param period: seconds between two looks at the tables.
    """

    _log = Logger()

    def __init__(self, registry: Registry, clock: IReactorTime, period: float) -> None:
        self._registry = registry
        self._clock = clock
        self._period = period
        self._events = RateLimitedLog(clock)
        self._watched: dict[TableEntry, dict[Key, Mapping]] = {}
        self._netids: set[str] = set()
        #: The mappings that have been seen bound.
        self._seen: set[Key] = set()
        #: The mappings that have not been looked at yet.
        self._new: dict[Key, Mapping] = {}
        #: The mappings that were new, and bound, since the last period.
        self._unchecked: dict[Key, Mapping] = {}
        self._last: dict[str, frozenset[Local]] = {}
        #: Whether the last look failed; only the first failure of several is logged.
        self._failed = False
        self._next_turn: IDelayedCall | None = None
        self._looking = LoopingCall(self._try_look)
        self._looking.clock = clock
        self._ends = (
            registry.follow(self._mapped, ChangeKind.MAPPED),
            registry.follow(self._unmapped, ChangeKind.UNMAPPED),
        )
        self._mapped([ChangeRecord(ChangeKind.MAPPED, mapping) for mapping in registry.mappings])

    def startService(self) -> None:
        super().startService()
        self._looking.start(self._period, now=False)
        self._schedule_new()

    def stopService(self) -> None:
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        self._unschedule_new()
        self._events.close()

    def close(self) -> None:
        """Stop following the registry; the service must be stopped, and stay stopped."""
        for end in self._ends:
            end()

    def _try_look(self) -> None:
        """Look; a failure is logged, and the next look may succeed."""
        try:
            self.look()
        except Exception:
            if not self._failed:
                self._log.failure("cannot look for dead services; trying again")
            self._failed = True
        else:
            self._failed = False

    def look(self) -> None:
        """Remove the mappings that were seen bound and no longer are."""
        bound = read_bound(self._netids)
        suspects, self._unchecked = self._unchecked, {}
        for table, now in bound.locals.items():
            before = self._last.get(table, frozenset())
            self._seen.update(m.key for m in self._at(table, now - before))
            suspects |= {m.key: m for m in self._at(table, before - now)}
        self._last = bound.locals
        dead = [m for m in suspects.values() if m.key in self._seen and not bound.holds(m)]
        self._registry.unmap(*dead)
        for m in dead:
            self._events.log(
                MAPPING_DEAD,
                program=m.program,
                version=m.version,
                netid=m.netid,
                address=m.address,
                owner=m.owner,
            )

    def _at(self, table: str, names: frozenset[Local]) -> Iterator[Mapping]:
        """The watched mappings at these local addresses."""
        for name in names:
            yield from self._watched.get((table, name), {}).values()

    def _mapped(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            self._netids.add(mapping.netid)
            self._new[mapping.key] = mapping
            for entry in _entries(mapping):
                self._watched.setdefault(entry, {})[mapping.key] = mapping
        self._schedule_new()

    def _schedule_new(self) -> None:
        """Have new mappings looked at in the next turn: a follower does no I/O."""
        if self._new and self._next_turn is None:
            self._next_turn = self._clock.callLater(0, self.look_at_new)

    def _unschedule_new(self) -> None:
        if self._next_turn is not None and self._next_turn.active():
            self._next_turn.cancel()
        self._next_turn = None

    def look_at_new(self) -> None:
        """Note which new mappings are bound: their services may end before the next period.

        It happens in the next reactor turn at the latest. A service may end as soon as it has the
        reply to its SET, so the sender of that reply calls this first.
        """
        if not self._new:
            return
        self._unschedule_new()
        new, self._new = self._new, {}
        try:
            bound = read_bound({mapping.netid for mapping in new.values()})
        except OSError:
            # No descriptor is left, say. The next look that succeeds sees everything as changed.
            self._last = {}
            return
        found = {key: mapping for key, mapping in new.items() if bound.holds(mapping)}
        self._seen.update(found)
        self._unchecked |= found

    def _unmapped(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            self._seen.discard(mapping.key)
            self._new.pop(mapping.key, None)
            self._unchecked.pop(mapping.key, None)
            for entry in _entries(mapping):
                watched = self._watched[entry]
                del watched[mapping.key]
                if not watched:
                    del self._watched[entry]


def _unheld(changes: Sequence[ChangeRecord]) -> Iterator[Mapping]:
    """The mappings that no connection holds; the others live as long as their connection."""
    for change in changes:
        if isinstance(change.subject, Mapping) and change.subject.holder is None:
            yield change.subject


def _entries(mapping: Mapping) -> Iterator[TableEntry]:
    names = locals_of(mapping)
    return ((table, name) for table in TABLES[mapping.netid] for name in names)
