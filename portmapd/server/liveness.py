"""Suspends the mappings of services that are not there, and resumes them when they are back.

A service is there while its address is bound on this host by one of its users.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from itertools import chain, islice, takewhile

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
    UNIX,
    add_users,
    locals_of,
    place_of,
    scan,
    serving_user,
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
#: Addresses are asked for one by one up to so many; for more, the tables are read.
MAX_QUERIES = 16
#: The most new mappings that are asked for at one go; more of them wait for a look.
MAX_NEW = 100
#: A question about one address takes as long as reading so many sockets of a table.
QUESTION = 10
#: In so many looks, the tables are read once at least: a question does not find every socket.
LOOKS = 10
#: How long the paths of new mappings may wait for a look, in seconds: all are looked for together.
SOON = 0.25
#: So many mappings are judged between two looks at the clock, and so many change at one go.
MAX_JUDGED, MAX_CHANGED = 64, 16

#: For each of the kernel's tables, the users of the addresses at watched places.
Found = dict[str, dict[Local, Users]]
Watched = dict[Key, Mapping]
#: Steps that end with what was found.
Finding = Generator[None, None, Found]


class Liveness(Service):
    """Watches the addresses of the mappings that no connection holds.

    It asks the kernel for the addresses of new mappings, and for all of them once a period. If that
    takes longer than to read the kernel's tables of sockets, or an address is not found, it reads
    the tables, in slices.

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
        #: The mappings that this look has found to be suspended or resumed.
        self._wrong: Watched = {}
        self._last: Found = {}
        #: How many sockets of the internet there were when the tables were read last, the looks
        #: since then, and whether the next look has to read them.
        self._sockets = 0
        self._looks = 0
        self._has_to_read = True
        #: The look that is under way, and whether it is one for paths alone.
        self._steps: Iterator[None] | None = None
        self._is_for_paths = False
        #: Whether the last look failed; only the first failure of several is logged.
        self._failed = False
        self._next_turn: IDelayedCall | None = None
        self._next_slice: IDelayedCall | None = None
        self._next_look: IDelayedCall | None = None
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
        for call in (self._next_turn, self._next_slice, self._next_look):
            _cancel(call)
        self._next_turn = self._next_slice = self._next_look = None
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
        elif self._is_for_paths:
            self._is_for_paths = False
            self._steps = chain(self._steps, self._look())

    def _look_soon(self) -> None:
        """Have the paths of new mappings looked for before the period ends."""
        if self._next_look is None and self.running:
            self._next_look = self._clock.callLater(SOON, self._look_for_paths)

    def _look_for_paths(self) -> None:
        self._next_look = None
        if self._steps is None:
            self._is_for_paths = True
            self._steps = self._look_in(self._read((UNIX,)))
            self._go_on()
        else:
            self._look_soon()

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
        self._is_for_paths = False

    def look(self) -> None:
        """Suspend the mappings of services that are gone, and resume those of services back."""
        for _ in self._look():
            pass

    def _look(self) -> Iterator[None]:
        """Look in steps."""
        tables = [table for table in NETIDS_OF if self._is_watched(table)]
        if self._is_reading():
            self._has_to_read = False
            self._sockets = self._looks = 0
            return self._look_in(self._read(tables))
        self._looks += 1
        return self._look_in(self._ask(tables))

    def _is_reading(self) -> bool:
        """Are the tables read in this look?"""
        costs = QUESTION * len(self._registry.mappings)
        has_to = self._has_to_read or bool(self._suspended) or self._looks >= LOOKS
        return has_to or costs > self._sockets

    def _read(self, tables: Iterable[str]) -> Finding:
        """Read these tables."""
        found: Found = {table: {} for table in tables}
        for table, batch in scan(found):
            self._sockets += len(batch) * (table != UNIX)
            add_users(found[table], table, self._at_watched_places(table, batch))
            yield
        return found

    def _ask(self, tables: Collection[str]) -> Finding:
        """Ask for the watched addresses one by one; of these tables, read that of paths."""
        found: Found = {table: {} for table in tables}
        for mapping in self._registry.mappings:
            users = NOBODY if mapping.holder else serving_user(mapping)
            if users:
                first, *_ = TABLES[mapping.netid]
                found.setdefault(first, {}).update(dict.fromkeys(locals_of(mapping), users))
            yield
        paths = yield from self._read({UNIX}.intersection(tables))
        return found | paths

    def _look_in(self, steps: Finding) -> Iterator[None]:
        """Look in steps, the first of which find who has the addresses bound."""
        found = yield from steps
        last, unchecked = self._last, self._unchecked
        self._last, self._unchecked, self._wrong = last | found, {}, {}
        try:
            yield from self._judge(chain(unchecked.values(), self._changed(found, last)))
        except OSError:
            # No descriptor is left, say: the next look judges all of them.
            self._last, self._unchecked = last, unchecked | self._unchecked
            raise
        yield from self._change()

    def _changed(self, found: Found, last: Found) -> Iterator[Mapping]:
        """The mappings at whose places are other users than in the last look."""
        for table, now in found.items():
            different = now.items() ^ last.get(table, {}).items()
            changed = {place_of(table, name) for name, _ in different}
            for netid in NETIDS_OF[table]:
                for place in changed:
                    yield from tuple(self._places.at(netid, place))

    def _judge(self, mappings: Iterable[Mapping]) -> Iterator[None]:
        """Find those that are to be suspended or resumed."""
        seen: list[Mapping] = []
        for count, mapping in enumerate(filter(self._is_current, mappings), 1):
            users = _users(self._last, mapping)
            if self._is_wrong(mapping, users):
                # A table that changed while it was read may lack sockets.
                users = users_of(mapping)
                self._unchecked[mapping.key] = mapping
                if self._is_wrong(mapping, users):
                    self._wrong[mapping.key] = mapping
                yield
            if see(mapping, users):
                seen.append(mapping)
            if not count % MAX_JUDGED:
                yield
        self._registry.see(*seen)

    def _change(self) -> Iterator[None]:
        """Suspend, resume and forget what was found to be, in steps."""
        while wrong := self._next(self._wrong.values()):
            self._correct(wrong)
            yield
        while old := self._next(self._old()):
            self._report(MAPPING_FORGOTTEN, old)
            self._registry.forget(*old)
            yield

    def _next(self, mappings: Iterable[Mapping]) -> list[Mapping]:
        """As many of *mappings* as change at one go; very many services may end at one moment."""
        return list(islice(mappings, MAX_CHANGED))

    def _is_watched(self, table: str) -> bool:
        return any(self._places.places(netid) for netid in NETIDS_OF[table])

    def _at_watched_places(self, table: str, batch: list[BoundSocket]) -> Iterator[BoundSocket]:
        places = [self._places.places(netid) for netid in NETIDS_OF[table]]
        for bound in batch:
            place = place_of(table, bound[0])
            for watched in places:
                if place in watched:
                    yield bound
                    break

    def _is_wrong(self, mapping: Mapping, users: Users) -> bool:
        return is_wrong(mapping, users, self._is_suspended(mapping))

    def _is_suspended(self, mapping: Mapping) -> bool:
        found = self._suspended.get(mapping.key)
        return found is not None and found[0] is mapping

    def _is_current(self, mapping: Mapping) -> bool:
        """Is it still registered, or suspended?"""
        return self._is_suspended(mapping) or self._registry.mappings.get(*mapping.key) is mapping

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

    def _old(self) -> Iterator[Mapping]:
        """The suspended mappings that are to be forgotten now."""
        now = self._clock.seconds()
        ended = takewhile(lambda each: each[1] <= now, self._suspended.values())
        return (mapping for mapping, _ in ended)

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
        self._unchecked |= new
        if len(new) > MAX_NEW:
            self._has_to_read = True
            self._begin_look()
            return
        for mapping in new.values():
            users = serving_user(mapping)
            if users:
                see(mapping, users)
            else:
                self._look_later(mapping)

    def _look_later(self, mapping: Mapping) -> None:
        """Have a new mapping found in a look, for no question found it."""
        if UNIX in TABLES[mapping.netid]:
            self._look_soon()
        else:
            self._has_to_read = True

    # Following the registry

    def _mapped(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            mapping.users = NOBODY
            self._new[mapping.key] = mapping
            self._wrong.pop(mapping.key, None)
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
        for pending in (self._new, self._unchecked, self._wrong):
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
