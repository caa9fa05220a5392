"""Connections whose process nobody has looked at."""

from itertools import islice
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

#: How long nobody looks at the process of a connection that makes nothing public, in seconds.
PATIENCE = 0.05
#: How many are looked at in one turn of the reactor.
BATCH = 8


class UnknownPeer(Protocol):
    """A connection whose process is to be looked at."""

    def look(self) -> None:
        """Look at the process."""
        raise NotImplementedError


class PeerLookups:
    """Has every connection that stays look at its process, a while after it came.

    To look takes longer than all else that a question costs, and most connections that ask one are
    gone by then.

    :param epoll_group: gives the time; anything with a reactor's ``callLater``.
    """

    _log = Logger()

    def __init__(self, epoll_group: Any) -> None:
        self._hub = epoll_group
        self._waiting: dict[UnknownPeer, None] = {}
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def add(self, newcomer: UnknownPeer) -> None:
        """*newcomer* has come."""
        self._waiting[newcomer] = None
        self._look_after(PATIENCE)

    def discard(self, newcomer: UnknownPeer) -> None:
        """*newcomer* has looked at its process, or is gone."""
        self._waiting.pop(newcomer, None)

    def clear(self) -> None:
        """Have all of them look now."""
        while self._waiting:
            self._look()

    def stop(self) -> None:
        """Nobody comes any more, and nobody is to look."""
        self._waiting.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look_after(self, delay: float) -> None:
        if self._call is None:
            self._call = self._hub.callLater(delay, self._turn)

    def _turn(self) -> None:
        self._call = None
        self._look()
        if self._waiting:
            self._look_after(0)

    def _look(self) -> None:
        for newcomer in tuple(islice(self._waiting, BATCH)):
            self.discard(newcomer)
            try:
                newcomer.look()
            except Exception:
                # The others must be looked at all the same.
                self._log.failure("a process could not be looked at")
