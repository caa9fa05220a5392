"""Watchers: the connections that are told of changes."""

from collections.abc import Callable, Sequence

from portmapd.channel.commands import (
    MAPPING_ROW,
    OVERFLOW_BOX,
    SERVICE_ROW,
    encode_event,
)
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import NamedService

#: The most bytes of events that wait for a watcher that does not read.
MAX_WAITING = 262_144


class Watcher:
    """One connection that watches.

    Events are sent at once while the peer reads. While it does not, they wait, up to
    :data:`MAX_WAITING` bytes. Beyond that the peer is told of an overflow instead.

    :param send: writes boxes.
    :ivar names: the names that it watches; empty: all.
    """

    __slots__ = ("_overflowed", "_paused", "_send", "_size", "_waiting", "names")

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self.names: frozenset[str] = frozenset()
        self._send = send
        self._paused = False
        self._overflowed = False
        self._waiting: list[bytes] = []
        self._size = 0

    def tell(self, event: bytes) -> None:
        """Send *event*, or keep it until the peer reads."""
        if not self._paused:
            self._send(event)
        elif self._size + len(event) <= MAX_WAITING and not self._overflowed:
            self._waiting.append(event)
            self._size += len(event)
        else:
            self._overflowed = True

    def pause(self) -> None:
        """The peer has stopped reading."""
        self._paused = True

    def resume(self) -> None:
        """The peer reads again."""
        self._paused = False
        waiting, self._waiting, self._size = self._waiting, [], 0
        if self._overflowed:
            waiting.append(OVERFLOW_BOX)
            self._overflowed = False
        if waiting:
            self._send(b"".join(waiting))


class Watchers:
    """Tells every watcher of the changes that it watches. An event is encoded once for all.

    :param registry: what is watched.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._all: dict[Watcher, None] = {}
        self._named: dict[str, dict[Watcher, None]] = {}
        #: Ends following the registry; None while there are no watchers, because a follower costs
        #: every change time.
        self._unfollow: Callable[[], None] | None = None

    def add(self, watcher: Watcher, names: frozenset[str]) -> None:
        """Tell *watcher* of changes, and no longer of those that it watched before.

        :param names: those of the services that it watches; empty: it watches everything.
        """
        self.discard(watcher)
        if self._unfollow is None:
            self._unfollow = self._registry.follow(self._changed, *ChangeKind)
        watcher.names = names
        if not names:
            self._all[watcher] = None
        for name in names:
            self._named.setdefault(name, {})[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        """Tell *watcher* of no further change."""
        self._all.pop(watcher, None)
        for name in watcher.names:
            watchers = self._named.get(name, {})
            watchers.pop(watcher, None)
            if not watchers:
                self._named.pop(name, None)
        watcher.names = frozenset()
        if self._unfollow is not None and not self._all and not self._named:
            self._unfollow()
            self._unfollow = None

    def _changed(self, changes: Sequence[ChangeRecord]) -> None:
        for change in changes:
            subject = change.subject
            named = self._named.get(subject.name, ()) if isinstance(subject, NamedService) else ()
            if self._all or named:
                event = _event(change)
                for watcher in (*self._all, *named):
                    watcher.tell(event)


def _event(change: ChangeRecord) -> bytes:
    subject = change.subject
    if isinstance(subject, Mapping):
        return encode_event(change.kind.value, MAPPING_ROW, mapping_row(subject))
    return encode_event(change.kind.value, SERVICE_ROW, service_row(subject))


def mapping_row(mapping: Mapping) -> tuple[object, ...]:
    """*mapping* as a row of listings and events."""
    return mapping.program, mapping.version, mapping.netid, mapping.address, mapping.owner


def service_row(service: NamedService) -> tuple[object, ...]:
    """*service* as a row of listings and events."""
    return service.name, service.uid, service.pid, service.port, service.exe
