"""Turns: the work of one stream is divided where it takes long, so that others need not wait."""

from __future__ import annotations

from time import monotonic
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: How long one stream may work before others have their turn, in seconds.
TURN = 0.0005


class Stream(Protocol):
    """A stream that has more to do than one turn allows."""

    def take_turn(self) -> None:
        """Work for one turn."""

    def end(self) -> None:
        """Close the connection at once."""


class TurnQueue:
    """The streams that had more to do when their turn ended, in the order of their next turns.

    The reactor runs the queue once in each of its own turns, for about :data:`TURN` seconds.
    Sockets are served in between.

    :param clock: the reactor.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._streams: dict[Stream, None] = {}
        self._call: IDelayedCall | None = None

    def add(self, stream: Stream) -> None:
        """Give *stream* a turn, after those that wait for theirs."""
        self._streams[stream] = None
        self._schedule()

    def discard(self, stream: Stream) -> None:
        """Give *stream* no further turn."""
        self._streams.pop(stream, None)
        self._schedule()

    def _schedule(self) -> None:
        if self._streams and self._call is None:
            self._call = self._clock.callLater(0, self._run)
        elif self._call is not None and not self._streams:
            self._call.cancel()
            self._call = None

    def run(self) -> bool:
        """Give turns now; were there streams that waited for one?"""
        waited = bool(self._streams)
        if waited:
            assert self._call is not None
            self._call.cancel()
            self._run()
        return waited

    def _run(self) -> None:
        self._call = None
        ends = monotonic() + TURN
        while self._streams:
            stream = next(iter(self._streams))
            del self._streams[stream]
            self._give_turn(stream)
            if monotonic() >= ends:
                break
        self._schedule()

    def _give_turn(self, stream: Stream) -> None:
        try:
            stream.take_turn()
        except Exception:
            # The others must have their turns all the same.
            self._log.failure("a stream could not be served")
            stream.end()
