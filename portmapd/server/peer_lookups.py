"""Lookups of the processes of new connections."""

from __future__ import annotations

from itertools import islice
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: How long after a connection was made its process is looked up, in seconds.
DELAY = 0.05
#: The most lookups in one turn of the reactor.
BATCH = 8
#: The most connections that wait: all of their lookups at one go take some milliseconds.
MAX_WAITING = 256


class UnknownPeer(Protocol):
    """A connection whose process has not been looked up."""

    def look_up(self) -> None:
        """Look up the process."""
        raise NotImplementedError


class PeerLookups:
    """Looks up the process of every connection that is still open a while after it was made.

    A lookup takes longer than everything else that a question costs, and most connections that ask
    one are gone by then.

    :param clock: measures the delay.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[UnknownPeer, None] = {}
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many connections wait for their lookup."""
        return len(self._waiting)

    def __contains__(self, peer: object) -> bool:
        """Whether the process of *peer* is still to be looked up."""
        return peer in self._waiting

    def add(self, peer: UnknownPeer) -> None:
        """Look up the process of *peer* after :data:`DELAY`, or earlier if many wait."""
        self._waiting[peer] = None
        self._schedule(DELAY)
        if len(self._waiting) > MAX_WAITING:
            self._look_up()

    def discard(self, peer: UnknownPeer) -> None:
        """Do not look up the process of *peer*, which may be gone."""
        self._waiting.pop(peer, None)

    def clear(self) -> None:
        """Do every lookup now."""
        while self._waiting:
            self._look_up()

    def stop(self) -> None:
        """Do no further lookup."""
        self._waiting.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self, delay: float) -> None:
        if self._call is None:
            self._call = self._clock.callLater(delay, self._run)

    def _run(self) -> None:
        self._call = None
        self._look_up()
        if self._waiting:
            self._schedule(0)

    def _look_up(self) -> None:
        for peer in tuple(islice(self._waiting, BATCH)):
            self.discard(peer)
            try:
                peer.look_up()
            except Exception:
                # The others must be looked up all the same.
                self._log.failure("a process could not be looked up")
