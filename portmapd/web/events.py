"""``/events``: what is registered, and every change, as server-sent events (HTML, 9.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from portmapd.web.inventory import Row
from portmapd.web.query import Answer, Consumer, Query, RequestRefused

#: The most listeners.
MAX_LISTENERS = 500
#: Changes of so many seconds are one event.
BATCH = 0.1
#: The most changes that wait for that; beyond them, every listener begins anew.
MAX_PENDING = 10_000
#: The most events that wait for a listener that does not read, and for how many seconds. Then it is
#: dropped; a browser connects again, and begins anew.
MAX_MISSED = 100
STALLED = 30.0
#: How long a browser waits before it connects again, in milliseconds.
RETRY = 2_000

#: Makes everything that there is, as events.
Snapshot = Callable[[bool], Iterator[bytes]]


def event(name: str, value: Any) -> bytes:
    """One event with a value in JSON, in which there is no line break."""
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


class Events:
    """Tells every listener the same; an event is encoded once for all.

    :param snapshot: what a new listener is told first.
    :param clock: measures time.
    """

    def __init__(self, snapshot: Snapshot, clock: IReactorTime) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._listeners: dict[Listener, None] = {}
        self._pending: list[tuple[Row, bool]] = []
        self._flushing: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._listeners)

    def answer(self, query: Query) -> Answer:
        """An answer without an end.

        :raises RequestRefused: too many listen.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            raise RequestRefused(
                503, "too many listen already; try again later", **{"Retry-After": "30"}
            )
        return Answer(
            kind="text/event-stream",
            listen=lambda consumer: self._listen(consumer, query.is_local),
        )

    def _listen(self, consumer: Consumer, is_local: bool) -> Listener:
        listener = Listener(self, consumer, is_local, self._snapshot(is_local), self._clock)
        self._listeners[listener] = None
        listener.resumeProducing()
        return listener

    def discard(self, listener: Listener) -> None:
        """*listener* has ended."""
        self._listeners.pop(listener, None)

    def changed(self, rows: Sequence[tuple[Row, bool]]) -> None:
        """Tell of changes, in a moment.

        :param rows: each with whether callers of other hosts are told, too.
        """
        if not (rows and self._listeners):
            return
        self._pending += rows
        if self._flushing is None:
            self._flushing = self._clock.callLater(BATCH, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        pending, self._pending = self._pending, []
        if len(pending) > MAX_PENDING:
            self.drop_all()
            return
        everybody = [row for row, is_public in pending if is_public]
        messages = {False: event("rows", everybody)} if everybody else {}
        messages[True] = event("rows", [row for row, _ in pending])
        for listener in tuple(self._listeners):
            message = messages.get(listener.is_local)
            if message is not None:
                listener.tell(message)

    def tell(self, message: bytes) -> None:
        """Tell everybody."""
        for listener in tuple(self._listeners):
            listener.tell(message)

    def drop_all(self) -> None:
        """Close every connection; browsers connect again."""
        for listener in tuple(self._listeners):
            listener.drop()

    def close(self) -> None:
        """Tell of nothing any more."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self.drop_all()


@implementer(IPushProducer)
class Listener:
    """One connection that is told of changes.

    It is told everything that there is first, a piece in a turn of the reactor. Changes that come
    meanwhile are told at once: a row is told again if it is in a later piece.

    :ivar is_local: whether its peer is on this host.
    """

    __slots__ = (
        "_clock",
        "_consumer",
        "_events",
        "_missed",
        "_next",
        "_paused_at",
        "_snapshot",
        "is_local",
    )

    def __init__(
        self,
        events: Events,
        consumer: Consumer,
        is_local: bool,
        snapshot: Iterator[bytes],
        clock: IReactorTime,
    ) -> None:
        self.is_local = is_local
        self._events = events
        self._consumer = consumer
        self._clock = clock
        self._snapshot: Iterator[bytes] | None = snapshot
        self._next: IDelayedCall | None = None
        self._paused_at: float | None = None
        self._missed: list[bytes] = []

    def tell(self, message: bytes) -> None:
        """Send *message*, or keep it while the peer does not read."""
        if self._paused_at is None:
            self._consumer.write(message)
            return
        self._missed.append(message)
        if len(self._missed) > MAX_MISSED or self._clock.seconds() - self._paused_at > STALLED:
            self.drop()

    def drop(self) -> None:
        """Close the connection."""
        self.stopProducing()
        self._consumer.drop()

    def resumeProducing(self) -> None:
        self._paused_at = None
        while self._missed and self._paused_at is None:
            self._consumer.write(self._missed.pop(0))
        if self._snapshot is not None and self._next is None and self._paused_at is None:
            self._next = self._clock.callLater(0, self._send)

    def pauseProducing(self) -> None:
        if self._paused_at is None:
            self._paused_at = self._clock.seconds()
        self._cancel()

    def stopProducing(self) -> None:
        self._cancel()
        self._snapshot = None
        self._missed.clear()
        self._events.discard(self)

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _send(self) -> None:
        """Send a piece of what there is."""
        self._next = None
        piece = None if self._snapshot is None else next(self._snapshot, None)
        if piece is None:
            self._snapshot = None
            return
        self._consumer.write(piece)
        if self._paused_at is None:
            self.resumeProducing()
