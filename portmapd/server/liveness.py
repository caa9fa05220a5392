"""Suspends the mappings of services that are not there, and resumes them when they are back.

A service is there while its address is bound on this host by one of its users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from portmapd.config import FORGET
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import NOBODY, Key, Mapping, Users
from portmapd.registry.places import Places
from portmapd.registry.presence import is_wrong, owner_users, see
from portmapd.registry.registry import Registry
from portmapd.registry.snapshot import SavedMapping
from portmapd.server.bound_sockets import (
    NETIDS_OF,
    TABLES,
    add_users,
    locals_of,
    place_of,
    scan,
    users_of,
)
from portmapd.server.log_events import (
    MAPPING_BACK,
    MAPPING_DEAD,
    MAPPING_FORGOTTEN,
    MAPPING_REMOVED,
    LogEvent,
)
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.sock_diag import BoundSocket, Local

#: A look gives others a turn when it has taken so long, in seconds.
SLICE = 0.001
#: New addresses are asked for one by one up to so many; for more, the tables are read.
MAX_QUERIES = 16
#: So many mappings are judged between two looks at the clock.
MAX_JUDGED = 64

#: For each of the kernel's tables, the users of the addresses at watched places.
Found = dict[str, dict[Local, Users]]
Watched = dict[Key, Mapping]


class Liveness(Service):
    """Watches the addresses of the mappings that no connection holds.

    It reads the kernel's tables of sockets once a period, in slices, and asks for the addresses of
    new mappings.

    :param registry: whose mappings are watched.
    :param clock: measures time.
    :param period: seconds between two looks at the tables.
    :param forget: seconds for which a suspended mapping is remembered; 0: none is.
    """

    _log = Logger()

    def __init__(
        self, registry: Registry, clock: IReactorTime, period: float, forget: float = FORGET
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._period = period
        self._events = RateLimitedLog(clock)
        self._forget = forget
        #: The mappings that are watched, and when those that are suspended are forgotten, by the
        #: clock and in that order.
        self._places = Places()
        self._suspended: dict[Key, tuple[Mapping, float]] = {}
        #: The mappings that have not been looked at yet, and those to judge in the next look
        #: whether or not their addresses change.
        self._new: Watched = {}
        self._unchecked: Watched = {}
        self._last: Found = {}
        #: The look that is under way.
        self._steps: Iterator[None] | None = None
        #: Whether the last look failed; only the first failure of several is logged.
        self._failed = False
        self._next_turn: IDelayedCall | None = None
        self._next_slice: IDelayedCall | None = None
        self._looking = LoopingCall(self._begin_look)
        self._looking.clock = clock
        self._ends = [registry.follow(on, kind) for kind, on in self._followers().items()]
        self._mapped([ChangeRecord(ChangeKind.MAPPED, mapping) for mapping in registry.mappings])
        self._on_suspended(
            [ChangeRecord(ChangeKind.SUSPENDED, m) for m in registry.suspended.values()]
        )

    def _followers(self) -> dict[ChangeKind, Callable[[Sequence[ChangeRecord]], None]]:
        return {
            ChangeKind.MAPPED: self._mapped,
            ChangeKind.UNMAPPED: self._unmapped,
            ChangeKind.CONFIRMED: self._mapped,
            ChangeKind.SUSPENDED: self._on_suspended,
            ChangeKind.RELEASED: self._released,
        }

    def startService(self) -> None:
        super().startService()
        self._looking.start(self._period, now=False)
        self._schedule_new()

    def stopService(self) -> None:
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        self._steps = None
        _cancel(self._next_turn)
        _cancel(self._next_slice)
        self._next_turn = self._next_slice = None
        self._events.close()

    def close(self) -> None:
        """Stop following the registry; the service must be stopped, and stay stopped."""
        for end in self._ends:
            end()

    # Looking at the tables

    def _begin_look(self) -> None:
        """Begin a look, unless the one before is still under way."""
        if self._steps is None:
            self._steps = self._look()
            self._go_on()

    def _go_on(self) -> None:
        """Go on with a look; a failure is logged, and the next look may succeed."""
        assert self._steps is not None
        self._next_slice = None
        ends = self._clock.seconds() + SLICE
        try:
            for _ in self._steps:
                if self._clock.seconds() >= ends:
                    self._next_slice = self._clock.callLater(0, self._go_on)
                    return
        except Exception:
            if not self._failed:
                self._log.failure("cannot look for dead services; trying again")
            self._failed = True
        else:
            self._failed = False
        self._steps = None

    def look(self) -> None:
        """Suspend the mappings of services that are gone, and resume those of services back."""
        for _ in self._look():
            pass

    def _look(self) -> Iterator[None]:
        """Look in steps."""
        found: Found = {table: {} for table in NETIDS_OF if self._is_watched(table)}
        for table, batch in scan(found):
            watched = list(self._at_watched_places(table, batch))
            add_users(found[table], table, watched, _ALL)
            yield
        wrong: Watched = {}
        seen: list[Mapping] = []
        for count, mapping in enumerate(self._to_judge(found), 1):
            users = _users(found, mapping)
            if self._is_wrong(mapping, users):
                # A table that changed while it was read may lack sockets.
                users = users_of(mapping)
                self._unchecked[mapping.key] = mapping
                if self._is_wrong(mapping, users):
                    wrong[mapping.key] = mapping
                yield
            if see(mapping, users):
                seen.append(mapping)
            if not count % MAX_JUDGED:
                yield
        self._registry.see(*seen)
        self._correct([mapping for mapping in wrong.values() if self._is_current(mapping)])
        self._forget_old()

    def _is_watched(self, table: str) -> bool:
        return any(self._places.places(netid) for netid in NETIDS_OF[table])

    def _at_watched_places(self, table: str, batch: list[BoundSocket]) -> Iterator[BoundSocket]:
        places = [self._places.places(netid) for netid in NETIDS_OF[table]]
        for bound in batch:
            place = place_of(table, bound[0])
            if any(place in watched for watched in places):
                yield bound

    def _is_wrong(self, mapping: Mapping, users: Users) -> bool:
        return is_wrong(mapping, users, self._is_suspended(mapping))

    def _is_suspended(self, mapping: Mapping) -> bool:
        found = self._suspended.get(mapping.key)
        return found is not None and found[0] is mapping

    def _is_current(self, mapping: Mapping) -> bool:
        """Is it still registered, or suspended?"""
        return self._is_suspended(mapping) or self._registry.mappings.get(*mapping.key) is mapping

    def _to_judge(self, found: Found) -> Iterator[Mapping]:
        """The mappings at whose places are other users than in the last look, and others."""
        last, self._last = self._last, found
        judged, self._unchecked = self._unchecked, {}
        yield from judged.values()
        for table, now in found.items():
            different = now.items() ^ last.get(table, {}).items()
            changed = {place_of(table, name) for name, _ in different}
            for netid in NETIDS_OF[table]:
                for place in changed:
                    yield from tuple(self._places.at(netid, place))

    def _correct(self, wrong: Sequence[Mapping]) -> None:
        """Suspend what is registered, and resume what is suspended."""
        gone = [mapping for mapping in wrong if not self._is_suspended(mapping)]
        back = [mapping for mapping in wrong if self._is_suspended(mapping)]
        users = [mapping.users for mapping in wrong]
        if self._forget:
            self._report(MAPPING_DEAD, gone)
            self._registry.suspend(*gone)
        else:
            self._report(MAPPING_REMOVED, gone)
            self._registry.unmap(*gone)
        self._report(MAPPING_BACK, back)
        self._registry.resume(*back)
        for mapping, known in zip(wrong, users, strict=True):
            mapping.users = known

    def _forget_old(self) -> None:
        now = self._clock.seconds()
        old: list[Mapping] = []
        for mapping, ends in self._suspended.values():
            if ends > now:
                break
            old.append(mapping)
        self._report(MAPPING_FORGOTTEN, old)
        self._registry.forget(*old)

    def _report(self, event: LogEvent, mappings: Sequence[Mapping]) -> None:
        for m in mappings:
            self._events.log(
                event,
                program=m.program,
                version=m.version,
                netid=m.netid,
                address=m.address,
                owner=m.owner,
            )

    # Across a restart

    def saved(self) -> Iterator[tuple[Mapping, Users, float | None]]:
        """The fields of a :class:`SavedMapping` for every mapping that no connection holds now.

        There may be changes meanwhile, which may be in it or not; a mapping that is suspended or
        resumed meanwhile may be in it twice.
        """
        yield from self._saved_suspended()
        for mapping in self._registry.mappings:
            if mapping.holder is None:
                yield mapping, mapping.users, None
        yield from self._saved_suspended()

    def _saved_suspended(self) -> Iterator[tuple[Mapping, Users, float | None]]:
        now = self._clock.seconds()
        for mapping, ends in list(self._suspended.values()):
            if self._is_suspended(mapping):
                yield mapping, mapping.users, max(ends - now, 0.0)

    def restore(self, saved: Sequence[SavedMapping]) -> None:
        """Register mappings or remember them, as they were saved; their keys must be free."""
        now = self._clock.seconds()
        self._registry.map(*[each.mapping for each in saved if each.left is None])
        # Those that are remembered are in the order of their ends.
        paused = sorted((s.left, s.mapping.key, s) for s in saved if s.left is not None)
        self._registry.remember(*[each.mapping for _, _, each in paused])
        for left, key, each in paused:
            self._suspended[key] = each.mapping, now + left
        for each in saved:
            each.mapping.users = each.users

    # New mappings

    def _schedule_new(self) -> None:
        """Have new mappings looked at in the next turn: a follower does no I/O."""
        if self._new and self._next_turn is None:
            self._next_turn = self._clock.callLater(0, self.look_at_new)

    def look_at_new(self) -> None:
        """Note which new mappings are bound: their services may end before the next period.

        It happens in the next reactor turn at the latest. A service may end as soon as it has the
        reply to its SET, so the sender of that reply calls this first.
        """
        if not self._new:
            return
        _cancel(self._next_turn)
        self._next_turn = None
        new, self._new = self._new, {}
        try:
            found = users_of_all(list(new.values()))
        except OSError:
            # No descriptor is left, say. The next look that succeeds sees everything as changed.
            self._last = {}
            return
        for key, mapping in new.items():
            see(mapping, found[mapping.netid, mapping.address])
            if mapping.users:
                self._unchecked[key] = mapping

    # Following the registry

    def _mapped(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            mapping.users = NOBODY
            self._new[mapping.key] = mapping
            self._places.add(mapping)
        self._schedule_new()

    def _unmapped(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            self._drop(mapping)

    def _on_suspended(self, changes: Sequence[ChangeRecord]) -> None:
        ends = self._clock.seconds() + self._forget
        for mapping in _unheld(changes):
            mapping.users = owner_users(mapping.owner)
            self._suspended[mapping.key] = mapping, ends
            self._places.add(mapping)

    def _released(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            if self._is_suspended(mapping):
                del self._suspended[mapping.key]
                if self._registry.mappings.get(*mapping.key) is not mapping:
                    self._drop(mapping)

    def _drop(self, mapping: Mapping) -> None:
        """Watch a mapping no longer."""
        self._places.discard(mapping)
        for pending in (self._new, self._unchecked):
            if pending.get(mapping.key) is mapping:
                del pending[mapping.key]


def _cancel(call: IDelayedCall | None) -> None:
    """Cancel a call that may be due, or none."""
    if call is not None and call.active():
        call.cancel()


def _unheld(changes: Sequence[ChangeRecord]) -> Iterator[Mapping]:
    """The mappings that no connection holds; the others live as long as their connection."""
    for change in changes:
        if isinstance(change.subject, Mapping) and change.subject.holder is None:
            yield change.subject


class _All:
    """Every address."""

    def __contains__(self, local: object) -> bool:
        return True


_ALL = _All()


def _users(found: Found, mapping: Mapping) -> Users:
    """Who has the address of *mapping* bound, by what was found in the tables."""
    names = locals_of(mapping)
    tables = [found.get(table, {}) for table in TABLES[mapping.netid]]
    return NOBODY.union(*(table.get(name, NOBODY) for table in tables for name in names))


def users_of_all(mappings: Sequence[Mapping]) -> dict[tuple[str, str], Users]:
    """Who has the addresses of these mappings bound now, by netid and address."""
    at = {(m.netid, m.address): m for m in mappings}
    if len(at) <= MAX_QUERIES:
        return {place: users_of(mapping) for place, mapping in at.items()}
    wanted = {name for mapping in at.values() for name in locals_of(mapping)}
    found: Found = {table: {} for m in at.values() for table in TABLES[m.netid]}
    for table, batch in scan(found):
        add_users(found[table], table, batch, wanted)
    return {place: _users(found, mapping) for place, mapping in at.items()}
