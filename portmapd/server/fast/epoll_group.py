"""The sockets of streams: a bounded batch of their events at a time.

A reactor hands out all the events that it has before it looks for new ones. If ten thousand
connections break at once, a datagram waits for all of them. The group keeps streams in an epoll of
its own, which is one descriptor to the reactor: in each turn of the reactor a batch of streams is
served, and UDP has its turn afterwards. It also costs the reactor's overhead once a batch.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TypeAlias

from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableDescriptor,
    IListeningPort,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.server.turns import TURN

#: How long the group goes on when fewer events are left than a batch holds, in seconds. A peer that
#: was just answered often asks again, or closes; serving it now saves a turn of the reactor.
LINGER = 0.0001
#: The most events that are taken out of the epoll at a time. All of them are served. The kernel
#: puts what was taken behind the others, so that everyone has a turn, however busy one stream is.
BATCH = 4
#: After so many seconds the rest of a batch is served in the next turn: four large requests at one
#: go would keep others waiting.
LONG = 0.002

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_BROKEN = select.EPOLLHUP | select.EPOLLERR

Descriptor: TypeAlias = "IReadDescriptor | IWriteDescriptor"


class IGroupReactor(IReactorFDSet, IReactorTime):
    """What the group asks of the reactor that it is in."""


@implementer(IReactorFDSet, IReactorTime, IReadDescriptor)
class EpollGroup:
    """A reactor to the descriptors in it, and one descriptor to the reactor.

    :param reactor: gives the turns. The group is in it while it has descriptors.
    """

    _log = Logger()

    def __init__(self, reactor: IGroupReactor) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._descriptors: dict[int, Descriptor] = {}
        self._events: dict[int, int] = {}
        #: What is left of a batch that took long.
        self._left: list[tuple[int, Descriptor | None, int]] = []

    # IReactorFDSet and IReactorTime, for the descriptors

    def addReader(self, reader: IReadDescriptor) -> None:
        self._change(reader, _IN, 0)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        self._change(writer, _OUT, 0)

    def removeReader(self, reader: IReadDescriptor) -> None:
        self._change(reader, 0, _IN)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        self._change(writer, 0, _OUT)

    def removeAll(self) -> list[Descriptor]:
        removed = list(self._descriptors.values())
        for number in tuple(self._descriptors):
            self._forget(number)
        return removed

    def getReaders(self) -> list[IReadDescriptor]:
        return self._waiting_for(_IN)

    def getWriters(self) -> list[IWriteDescriptor]:
        return self._waiting_for(_OUT)

    def seconds(self) -> float:
        return self._reactor.seconds()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 # the interface names it so
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        return self._reactor.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return self._reactor.getDelayedCalls()

    def _waiting_for(self, event: int) -> list[Any]:
        return [self._descriptors[n] for n, events in self._events.items() if events & event]

    def _change(self, descriptor: Descriptor, more: int, less: int) -> None:
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

    # IReadDescriptor, for the reactor

    def fileno(self) -> int:
        """The epoll's descriptor, which is readable while there are events."""
        return self._opened().fileno()

    def logPrefix(self) -> str:
        return "portmapd"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends; its descriptors are lost by themselves."""

    def doRead(self) -> None:
        """Serve the descriptors that have events, for one turn."""
        begun = monotonic()
        while self._epoll is not None:
            events = (self._left and self._take_left()) or self._epoll.poll(0, BATCH)
            # While one is served it may close others, and open new ones with the same numbers.
            ready = [(number, self._descriptors.get(number), event) for number, event in events]
            for at, (number, descriptor, event) in enumerate(ready, 1):
                if descriptor is not None and self._descriptors.get(number) is descriptor:
                    self.serve(descriptor, event)
                    if monotonic() - begun > LONG:
                        self._left = ready[at:]
                        return
            longest = TURN if len(events) == BATCH else LINGER
            if not events or monotonic() - begun > longest:
                break

    def serve_all(self) -> bool:
        """Serve the descriptors that have events, for one turn; were there any?"""
        if self._epoll is None or not (self._left or self._epoll.poll(0, 1)):
            return False
        self.doRead()
        return True

    def _take_left(self) -> list[tuple[int, int]]:
        """The events that were left in the turn before, as far as they are still waited for."""
        left, self._left = self._left, []
        return [
            (number, event & (self._events[number] | _BROKEN))
            for number, descriptor, event in left
            if descriptor is not None and self._descriptors.get(number) is descriptor
        ]

    def serve(self, descriptor: Any, event: int = _IN) -> None:
        """Serve *descriptor*.

        :param event: what epoll tells of it, or is likely to tell.
        """
        try:
            lost = descriptor.doRead() if event & _IN else None
            if lost is CONNECTION_DONE and IHalfCloseableDescriptor.providedBy(descriptor):
                self._end_reading(descriptor)
                return
            if lost is None and event & _OUT:
                lost = descriptor.doWrite()
            elif event & _BROKEN and not event & _IN:
                lost = CONNECTION_LOST
        except Exception as error:
            self._log.failure("a stream could not be served")
            # A listening socket stays: there was no memory for one connection, say.
            lost = None if IListeningPort.providedBy(descriptor) else error
        if lost is not None:
            self._lose(descriptor, lost)

    def _end_reading(self, descriptor: Any) -> None:
        """Tell *descriptor* that there is nothing more to read; it may have more to write."""
        self._change(descriptor, 0, _IN)
        descriptor.readConnectionLost(_REASONS[type(CONNECTION_DONE)])

    def _lose(self, descriptor: Any, why: Exception) -> None:
        """Tell *descriptor* that it is lost; nothing is served of it any more."""
        self._change(descriptor, 0, _IN | _OUT)
        reason = _REASONS.get(type(why)) or Failure(why)
        try:
            descriptor.connectionLost(reason)
        except Exception:
            # The others must not be lost with it.
            self._log.failure("the end of a stream failed")


#: A failure takes longer to make than the rest of a connection's end.
_REASONS: dict[type[Exception], Failure] = {
    type(why): Failure(why) for why in (CONNECTION_DONE, CONNECTION_LOST)
}
