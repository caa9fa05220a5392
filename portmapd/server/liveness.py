"""Suspends the mappings of services that are not there, and resumes them when they are back.

A service is there while its address is bound on this host by one of its users.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from itertools import chain

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from portmapd.config import FORGET
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import Key, Mapping
from portmapd.registry.presence import NOBODY, Presence, Users, owner_users
from portmapd.registry.registry import Registry
from portmapd.registry.snapshot import SavedMapping
from portmapd.server.bound_sockets import (
    TABLES,
    UNIX,
    add_users,
    locals_of,
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
from portmapd.server.sock_diag import Local

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

#: For each of the kernel's tables, the users of the watched addresses.
Found = dict[str, dict[Local, Users]]
Presences = dict[Key, Presence]
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
        self._presences: Presences = {}
        #: The presences at each watched address, and the suspended ones in the order of their ends.
        self._watched: dict[str, dict[Local, Presences]] = {}
        self._suspended: Presences = {}
        #: The mappings that have not been looked at yet, and those to judge in the next look
        #: whether or not their addresses change.
        self._new: Presences = {}
        self._unchecked: Presences = {}
        self._last: Found = {}
        #: How many sockets of the internet there were when the tables were read last, the looks
        #: since then, and whether the next look has to read them.
        self._sockets = 0
        self._looks = 0
        self._has_to_read = True
        #: The look that is under way.
        self._steps: Iterator[None] | None = None
        #: Whether that is a look for paths alone.
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
        _cancel(self._next_turn)
        _cancel(self._next_slice)
        _cancel(self._next_look)
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
        tables = {table for table, watched in self._watched.items() if watched}
        if self._is_reading():
            self._has_to_read = False
            self._sockets = self._looks = 0
            return self._look_in(self._read(tables))
        self._looks += 1
        return self._look_in(self._ask(tables))

    def _is_reading(self) -> bool:
        """Are the tables read in this look?"""
        costs = QUESTION * len(self._presences)
        has_to = self._has_to_read or bool(self._suspended) or self._looks >= LOOKS
        return has_to or costs > self._sockets

    def _read(self, tables: Iterable[str]) -> Finding:
        """Read these tables."""
        found: Found = {table: {} for table in tables}
        for table, batch in scan(found):
            self._sockets += len(batch) * (table != UNIX)
            add_users(found[table], table, batch, self._watched.get(table, {}))
            yield
        return found

    def _ask(self, tables: Collection[str]) -> Finding:
        """Ask for the watched addresses one by one; of these tables, read that of paths."""
        found: Found = {table: {} for table in tables}
        for presence in list(self._presences.values()):
            mapping = presence.mapping
            users = serving_user(mapping)
            if users:
                first, *_ = TABLES[mapping.netid]
                found.setdefault(first, {}).update(dict.fromkeys(locals_of(mapping), users))
            yield
        paths = yield from self._read({UNIX}.intersection(tables))
        return found | paths

    def _look_in(self, steps: Finding) -> Iterator[None]:
        """Look in steps, the first of which find who has the addresses bound."""
        found = yield from steps
        judged = self._to_judge(found)
        try:
            yield from self._judge(judged)
        except OSError:
            # No descriptor is left, say: the next look judges them.
            self._unchecked |= {presence.mapping.key: presence for presence in judged}
            raise
        self._forget_old()

    def _judge(self, presences: Sequence[Presence]) -> Iterator[None]:
        wrong: list[Presence] = []
        seen: list[Mapping] = []
        for presence in presences:
            users = _users(self._last, presence.mapping)
            if presence.is_wrong(users):
                # A table that changed while it was read may lack sockets.
                users = users_of(presence.mapping)
                self._unchecked[presence.mapping.key] = presence
                wrong += [presence] * presence.is_wrong(users)
                yield
            if presence.see(users):
                seen.append(presence.mapping)
        self._registry.see(*seen)
        self._correct([p for p in wrong if self._presences.get(p.mapping.key) is p])

    def _to_judge(self, found: Found) -> Sequence[Presence]:
        """The presences whose addresses have other users than in the last look, and others."""
        last, self._last = self._last, self._last | found
        judged, self._unchecked = self._unchecked, {}
        for table, now in found.items():
            watched = self._watched[table]
            for name, _ in now.items() ^ last.get(table, {}).items():
                judged |= watched.get(name, {})
        return [p for p in judged.values() if self._presences.get(p.mapping.key) is p]

    def _correct(self, wrong: Sequence[Presence]) -> None:
        """Suspend what is registered, and resume what is suspended."""
        gone = [p for p in wrong if p.forgotten_at is None]
        back = [p for p in wrong if p.forgotten_at is not None]
        if self._forget:
            self._report(MAPPING_DEAD, gone)
            self._registry.suspend(*[p.mapping for p in gone])
        else:
            self._report(MAPPING_REMOVED, gone)
            self._registry.unmap(*[p.mapping for p in gone])
        self._report(MAPPING_BACK, back)
        self._registry.resume(*[p.mapping for p in back])
        for presence in wrong:
            if presence.mapping.key in self._presences:
                self._presences[presence.mapping.key].users = presence.users

    def _forget_old(self) -> None:
        now = self._clock.seconds()
        old: list[Presence] = []
        for presence in self._suspended.values():
            if presence.forgotten_at is None or presence.forgotten_at > now:
                break
            old.append(presence)
        self._report(MAPPING_FORGOTTEN, old)
        self._registry.forget(*[p.mapping for p in old])

    def _report(self, event: LogEvent, presences: Sequence[Presence]) -> None:
        for presence in presences:
            m = presence.mapping
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

        There may be changes meanwhile, which may be in it or not.
        """
        now = self._clock.seconds()
        for presence in list(self._presences.values()):
            ends = presence.forgotten_at
            yield presence.mapping, presence.users, None if ends is None else max(ends - now, 0.0)

    def restore(self, saved: Sequence[SavedMapping]) -> None:
        """Register mappings or remember them, as they were saved; their keys must be free."""
        now = self._clock.seconds()
        self._registry.map(*[each.mapping for each in saved if each.left is None])
        # Those that are remembered are in the order of their ends.
        paused = sorted((s.left, s.mapping.key, s) for s in saved if s.left is not None)
        self._registry.remember(*[each.mapping for _, _, each in paused])
        for each in saved:
            presence = self._presences[each.mapping.key]
            presence.users = each.users
            presence.forgotten_at = None if each.left is None else now + each.left

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
        for presence in new.values():
            if not presence.see(serving_user(presence.mapping)):
                self._look_later(presence)

    def _look_later(self, presence: Presence) -> None:
        """Have a new mapping found in a look, for no question found it."""
        if UNIX in TABLES[presence.mapping.netid]:
            self._look_soon()
        else:
            self._has_to_read = True

    # Following the registry

    def _mapped(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            self._new[mapping.key] = self._add(Presence(mapping))
        self._schedule_new()

    def _unmapped(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            self._drop(mapping.key)

    def _on_suspended(self, changes: Sequence[ChangeRecord]) -> None:
        ends = self._clock.seconds() + self._forget
        for mapping in _unheld(changes):
            presence = Presence(mapping, owner_users(mapping), ends)
            self._suspended[mapping.key] = self._add(presence)

    def _released(self, changes: Sequence[ChangeRecord]) -> None:
        for mapping in _unheld(changes):
            if mapping.key in self._suspended:
                self._drop(mapping.key)

    def _add(self, presence: Presence) -> Presence:
        """Watch a mapping in place of the one with the same key."""
        mapping = presence.mapping
        self._drop(mapping.key)
        self._presences[mapping.key] = presence
        for watched, name in self._places(mapping):
            watched.setdefault(name, {})[mapping.key] = presence
        return presence

    def _drop(self, key: Key) -> None:
        presence = self._presences.pop(key, None)
        if presence is None:
            return
        for pending in (self._new, self._unchecked, self._suspended):
            pending.pop(key, None)
        for watched, name in self._places(presence.mapping):
            del watched[name][key]
            if not watched[name]:
                del watched[name]

    def _places(self, mapping: Mapping) -> Iterator[tuple[dict[Local, Presences], Local]]:
        names = locals_of(mapping)
        for table in TABLES[mapping.netid]:
            watched = self._watched.setdefault(table, {})
            for name in names:
                yield watched, name


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
