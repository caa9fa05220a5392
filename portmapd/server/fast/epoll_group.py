"""The sockets of streams: a bounded batch of their events at a time.

The reactor hands out all events that it has before it looks for new ones. After ten thousand
connections broke at once, a datagram would wait for all of them. The group keeps streams in an
epoll of its own, which is one descriptor for the reactor: in each of its turns a batch is served,
and UDP has its turn after it. Besides, a batch costs the reactor's overhead once.
"""

import select
from time import monotonic
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: How long one turn of the reactor may take, in seconds. The epoll keeps what was not served.
TURN = 0.0005
#: How long a turn may take, in seconds, in which nobody waits any more: who was served has often
#: something to say again, or leaves, and that saves a turn.
LINGER = 0.0001
#: The most events that are taken out of the epoll at a time. All of these are served: what was
#: taken stands behind the others next time, so that everyone has a turn, however busy one is.
BATCH = 4

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_BROKEN = select.EPOLLHUP | select.EPOLLERR


@implementer(IReadDescriptor)
class EpollGroup:
    """A reactor to the descriptors in it, and one descriptor to the reactor.

    :param reactor: the reactor that gives the turns; the group is in it while it has descriptors.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._descriptors: dict[int, Any] = {}
        self._events: dict[int, int] = {}

    # What descriptors ask of a reactor

    def addReader(self, descriptor: Any) -> None:
        """Serve *descriptor* when it can be read."""
        self._change(descriptor, _IN, 0)

    def addWriter(self, descriptor: Any) -> None:
        """Serve *descriptor* when it can be written."""
        self._change(descriptor, _OUT, 0)

    def removeReader(self, descriptor: Any) -> None:
        """End :meth:`addReader`."""
        self._change(descriptor, 0, _IN)

    def removeWriter(self, descriptor: Any) -> None:
        """End :meth:`addWriter`."""
        self._change(descriptor, 0, _OUT)

    def callLater(self, delay: float, call: Any, *args: Any, **kwargs: Any) -> IDelayedCall:
        """As the reactor does."""
        later: IDelayedCall = self._reactor.callLater(delay, call, *args, **kwargs)
        return later

    def _change(self, descriptor: Any, more: int, less: int) -> None:
        number = descriptor.fileno()
        before = self._events.get(number, 0)
        after = (before | more) & ~less
        if after == before or number < 0:
            return
        if not before:
            self._opened().register(number, after)
            self._descriptors[number] = descriptor
        elif after:
            self._opened().modify(number, after)
        else:
            self._forget(number)
            return
        self._events[number] = after

    def _opened(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        return self._epoll

    def _forget(self, number: int) -> None:
        assert self._epoll is not None
        self._epoll.unregister(number)
        del self._events[number], self._descriptors[number]
        if not self._events:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # What the reactor asks of a descriptor

    def fileno(self) -> int:
        """The epoll's descriptor, which can be read when there are events."""
        return self._opened().fileno()

    def logPrefix(self) -> str:
        """The epoll_group's name in log lines."""
        return "portmapd"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""

    def doRead(self) -> None:
        """Serve whoever has events, for one turn."""
        begun = monotonic()
        while self._epoll is not None:
            events = self._epoll.poll(0, BATCH)
            # Whoever is served may close others, and open new ones with their numbers.
            ready = [(number, self._descriptors.get(number), event) for number, event in events]
            for number, descriptor, event in ready:
                if descriptor is not None and self._descriptors.get(number) is descriptor:
                    self.serve(descriptor, event)
            longest = TURN if len(events) == BATCH else LINGER
            if not events or monotonic() - begun > longest:
                break

    def serve(self, descriptor: Any, event: int = _IN) -> None:
        """Serve *descriptor*, of which *event* is known or supposed."""
        try:
            lost = descriptor.doRead() if event & _IN else None
            if lost is None and event & _OUT:
                lost = descriptor.doWrite()
            elif event & _BROKEN and not event & _IN:
                lost = CONNECTION_LOST
        except Exception as error:
            self._log.failure("a stream could not be served")
            lost = error
        if lost is not None:
            self._lose(descriptor, lost)

    def _lose(self, descriptor: Any, why: Exception) -> None:
        reason = _REASONS.get(type(why)) or Failure(why)
        try:
            if isinstance(why, ConnectionDone):
                descriptor.readConnectionLost(reason)
            else:
                descriptor.connectionLost(reason)
        except Exception:
            # The others must not be lost with it.
            self._log.failure("the end of a stream failed")


#: A failure takes longer to make than the rest of a connection's end.
_REASONS: dict[type[Exception], Failure] = {
    type(why): Failure(why) for why in (CONNECTION_DONE, CONNECTION_LOST)
}
