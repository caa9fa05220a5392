"""Watchers: the connections that are told of changes."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Protocol

from portmapd.channel.arguments import Rows
from portmapd.channel.commands import (
    MAPPING_ROW,
    OVERFLOW_BOX,
    SERVICE_ROW,
    SHARED_MAPPING_ROW,
    SHARED_SERVICE_ROW,
    encode_event,
)
from portmapd.errors import LimitExceeded
from portmapd.registry.change import VISIBLE, ChangeKind, ChangeRecord, ClusterChange
from portmapd.registry.mapping import Mapping
from portmapd.registry.service import NamedService
from portmapd.registry.shared import SharedMapping, SharedService
from portmapd.server.handover.passed import PassedWatch
from portmapd.server.quota import Budget
from portmapd.server.turns import TURN, TurnQueue

#: The most bytes of events that wait for a watcher that does not read.
MAX_WAITING = 262_144
#: The most bytes of events that wait for all watchers together.
MAX_ALL_WAITING = 33_554_432
#: Events of one command are kept by so many bytes at a time for those who watch everything.
TOGETHER = 32_768
#: The most names that all connections together watch; each takes some 100 bytes.
MAX_WATCHED = 120_000
#: With more names than these, a watcher is looked at when any service changes: it would take
#: milliseconds to enter every name.
MANY_NAMES = 500


Subject = NamedService | Mapping | SharedService | SharedMapping


class Source(Protocol):
    """What is watched."""

    def follow(self, follower: Any, *kinds: ChangeKind) -> Callable[[], None]:
        """Call *follower* with every later change of these kinds.

        :return: a function that removes the follower.
        """
        raise NotImplementedError


class Watcher:
    """One connection that watches.

    Events wait until they are sent, and while the peer does not read, up to :data:`MAX_WAITING`
    bytes. Beyond that the peer is told of an overflow instead.

    :param send: writes boxes.
    :param uid: the user of the connection.
    :param budget: bounds what waits for all watchers.
    :param overflow: the box that tells of an overflow.
    :ivar names: the names that it watches; empty: all.
    :ivar taken: how much it takes of what all connections may watch.
    """

    __slots__ = (
        "_budget",
        "_overflow",
        "_overflowed",
        "_paused",
        "_send",
        "_size",
        "_taken",
        "_waiting",
        "names",
        "taken",
        "uid",
    )

    def __init__(
        self,
        send: Callable[[bytes], object],
        uid: int,
        budget: Budget,
        overflow: bytes = OVERFLOW_BOX,
    ) -> None:
        self._overflow = overflow
        self.names: frozenset[str] = frozenset()
        self.taken = 0
        self.uid = uid
        self._budget = budget
        #: How much of the budget it takes: events that wait for peers that do not read.
        self._taken = 0
        self._send = send
        self._paused = False
        self._overflowed = False
        self._waiting: list[bytes] = []
        self._size = 0

    def tell(self, event: bytes) -> None:
        """Keep *event* until :meth:`send`."""
        size = self._size + len(event)
        if self._overflowed:
            return
        if size > MAX_WAITING or (self._paused and not self._take(len(event))):
            self._overflowed = True
        else:
            self._waiting.append(event)
            self._size = size

    def _take(self, size: int) -> bool:
        """Take so many bytes of the budget; is there room for them?"""
        try:
            self._budget.take(self.uid, size)
        except LimitExceeded:
            return False
        self._taken += size
        return True

    def pause(self) -> None:
        """The peer has stopped reading."""
        if not self._paused:
            self._paused = True
            if not self._take(self._size):
                self.drop()
                self._overflowed = True

    def resume(self) -> None:
        """The peer reads again."""
        self._paused = False
        self.send()

    def pass_on(self) -> PassedWatch:
        """What another process needs to go on with it."""
        events = b"".join(self._waiting)
        return PassedWatch(sorted(self.names), self.taken > 0, events, self._overflowed)

    def take_over(self, passed: PassedWatch) -> None:
        """Keep the events that it was not sent in another process."""
        if passed.events:
            self._waiting = [passed.events]
            self._size = len(passed.events)
        self._overflowed = passed.has_overflowed

    def send(self) -> None:
        """Send what is kept, if the peer reads."""
        if self._paused:
            return
        waiting = self.drop()
        if self._overflowed:
            waiting.append(self._overflow)
            self._overflowed = False
        if waiting:
            self._send(b"".join(waiting))

    def drop(self) -> list[bytes]:
        """Keep no events any more.

        :return: those that were kept.
        """
        if self._taken:
            self._budget.take(self.uid, -self._taken)
            self._taken = 0
        waiting, self._waiting, self._size = self._waiting, [], 0
        return waiting


class Watchers:
    """Tells every watcher of the changes that it watches. An event is encoded once for all.

    Events are sent for a turn; those for whom there is no time get theirs in later turns.

    :param source: what is watched: a registry, or the copy of a cluster.
    :param unlimited: the users who may watch as much as all others together.
    :param turns: where further turns come from; None: events are sent at one go.
    :param overflow: the box that tells of an overflow.
    """

    def __init__(
        self,
        source: Source,
        unlimited: Container[int] = (0,),
        turns: TurnQueue | None = None,
        overflow: bytes = OVERFLOW_BOX,
    ) -> None:
        self._turns = turns
        self._overflow = overflow
        #: Those who have not been sent all of their events.
        self._unsent: dict[Watcher, None] = {}
        #: Those of them whose turn it is.
        self._sending: list[Watcher] = []
        self._source = source
        self._watched = Budget("watched names", MAX_WATCHED, unlimited)
        self._waiting = Budget("bytes of events", MAX_ALL_WAITING, unlimited)
        self._all: dict[Watcher, None] = {}
        #: The watchers of each name. A single one, as most names have, has no container.
        self._named: dict[str, Watcher | dict[Watcher, None]] = {}
        #: Those with many names.
        self._many: dict[Watcher, None] = {}
        #: Ends following the registry; None while there are no watchers, because a follower costs
        #: every change time.
        self._unfollow: Callable[[], None] | None = None

    def open(self, send: Callable[[bytes], object], uid: int) -> Watcher:
        """A watcher that watches nothing yet.

        :param send: writes boxes.
        :param uid: the user of the connection.
        """
        return Watcher(send, uid, self._waiting, self._overflow)

    def add(self, watcher: Watcher, names: frozenset[str]) -> None:
        """Tell *watcher* of changes, and no longer of those that it watched before.

        :param names: those of the services that it watches; empty: it watches everything.
        :raises LimitExceeded: its user, or all together, would watch too many names.
        """
        taken = max(len(names), 1)
        self._watched.take(watcher.uid, taken - watcher.taken)
        self._drop(watcher)
        watcher.taken = taken
        self._add(watcher, names)

    def _add(self, watcher: Watcher, names: frozenset[str]) -> None:
        if self._unfollow is None:
            self._unfollow = self._source.follow(self._changed, *VISIBLE)
        watcher.names = names
        group = self._group(names)
        if group is not None:
            group[watcher] = None
            return
        named = self._named
        for name in names:
            found = named.setdefault(name, watcher)
            if isinstance(found, dict):
                found[watcher] = None
            elif found is not watcher:
                named[name] = {found: None, watcher: None}

    def _group(self, names: frozenset[str]) -> dict[Watcher, None] | None:
        """The watchers like one of these names, unless each name has its watchers."""
        if not names:
            return self._all
        return self._many if len(names) > MANY_NAMES else None

    def resume(self, passed: PassedWatch, send: Callable[[bytes], object], uid: int) -> Watcher:
        """A watcher that watches what it did in another process, and misses nothing.

        What all connections may watch does not count: it has been allowed there.
        """
        watcher = self.open(send, uid)
        watcher.take_over(passed)
        if passed.is_on:
            names = frozenset(passed.names)
            self._watched.put(uid, max(len(names), 1))
            watcher.taken = max(len(names), 1)
            self._add(watcher, names)
        if self._turns is not None:
            self._unsent[watcher] = None
            self._turns.add(self)
        return watcher

    def discard(self, watcher: Watcher) -> None:
        """Tell *watcher* of no further change."""
        self._watched.take(watcher.uid, -watcher.taken)
        watcher.taken = 0
        self._unsent.pop(watcher, None)
        self._drop(watcher)
        if self._unfollow is not None and not (self._all or self._named or self._many):
            self._unfollow()
            self._unfollow = None

    def close(self) -> None:
        """Tell nobody of any further change."""
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None

    def _drop(self, watcher: Watcher) -> None:
        group = self._group(watcher.names)
        if group is not None:
            group.pop(watcher, None)
        named = self._named
        for name in watcher.names if group is None else ():
            found = named[name]
            if isinstance(found, dict):
                del found[watcher]
            if found is watcher or not found:
                del named[name]
        watcher.names = frozenset()

    def _changed(self, changes: Sequence[ChangeRecord] | Sequence[ClusterChange]) -> None:
        are_waiting = bool(self._unsent or self._sending)
        for_all: list[bytes] = []
        for change in changes:
            named = self._watching(change.subject)
            if self._all or named:
                event = _event(change)
                for_all.append(event)
                _tell(named, event)
                self._unsent |= named
        if self._all:
            for together in _chunks(for_all):
                _tell(self._all, together)
            self._unsent |= self._all
        if self._unsent and not are_waiting:
            self.take_turn()

    def _watching(self, subject: Subject) -> dict[Watcher, None]:
        """Those who watch the name of *subject*."""
        if not isinstance(subject, NamedService | SharedService):
            return {}
        name = subject.name
        found = self._named.get(name, {})
        watching = found if isinstance(found, dict) else {found: None}
        many = [watcher for watcher in self._many if name in watcher.names]
        return watching | dict.fromkeys(many) if many else watching

    def take_turn(self) -> None:
        """Send events for a turn, and go on in a later one."""
        ends = monotonic() + TURN
        while self._is_sending():
            self._sending.pop().send()
            if self._turns is not None and monotonic() > ends:
                self._go_on(self._turns)
                return

    def _is_sending(self) -> bool:
        """Is it anyone's turn? Those who were told of changes meanwhile come last."""
        if not self._sending:
            self._sending = list(self._unsent)
            self._unsent.clear()
        return bool(self._sending)

    def _go_on(self, turns: TurnQueue) -> None:
        if self._is_sending():
            turns.add(self)

    def end(self) -> None:
        """Go on after a failure."""
        if self._turns is not None:
            self._go_on(self._turns)


def _chunks(events: list[bytes]) -> Iterator[bytes]:
    """Events together, some :data:`TOGETHER` bytes at a time."""
    chunk: list[bytes] = []
    size = 0
    for event in events:
        chunk.append(event)
        size += len(event)
        if size >= TOGETHER:
            yield b"".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield b"".join(chunk)


def _tell(watchers: Iterable[Watcher], event: bytes) -> None:
    for watcher in watchers:
        watcher.tell(event)


def _event(change: ChangeRecord | ClusterChange) -> bytes:
    rows, row_of = _ROWS[type(change.subject)]
    return encode_event(change.kind.value, rows, row_of(change.subject))


def mapping_row(mapping: Mapping) -> tuple[object, ...]:
    """*mapping* as a row of listings and events."""
    return mapping.program, mapping.version, mapping.netid, mapping.address, mapping.owner


def service_row(service: NamedService) -> tuple[object, ...]:
    """*service* as a row of listings and events."""
    return service.name, service.uid, service.pid, service.port, service.exe


def shared_service_row(service: SharedService) -> tuple[object, ...]:
    """*service* of a machine of the cluster as a row of listings and events."""
    return tuple(service)


def shared_mapping_row(mapping: SharedMapping) -> tuple[object, ...]:
    """*mapping* of a machine of the cluster as a row of listings and events."""
    return tuple(mapping)


#: How each kind of subject is told of.
_ROWS: dict[type, tuple[Rows, Callable[[Any], tuple[object, ...]]]] = {
    NamedService: (SERVICE_ROW, service_row),
    Mapping: (MAPPING_ROW, mapping_row),
    SharedService: (SHARED_SERVICE_ROW, shared_service_row),
    SharedMapping: (SHARED_MAPPING_ROW, shared_mapping_row),
}
