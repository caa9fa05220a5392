"""Streams of requests that are answered in order."""

from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from portmapd.errors import BrokenStream
from portmapd.server.fast.epoll_group import TURN
from portmapd.server.fast.transports import DirectWrite

#: Answers are gathered up to about so many bytes before they are written.
CHUNK = 65_536

Request = TypeVar("Request")


@implementer(IPushProducer)
class PipelinedProtocol(Protocol, Generic[Request]):
    """A stream whose peer may send requests before it has read the answers to others.

    While the peer does not read its answers, none are made, and nothing is read from it. If the
    requests take longer than a turn, the others have theirs in between. Its transport's producer
    must be this stream.
    """

    transport: Any
    _paused = False
    #: What broke the stream; empty if nothing did.
    _broken = ""
    #: Requests that came and are not answered yet; None most of the time.
    _waiting: deque[Request] | None = None
    #: Answers on their way out, while requests are answered.
    _outgoing: list[bytes] | None = None

    def answer(self, request: Request) -> bytes:
        """What is to be written in answer to *request*."""
        raise NotImplementedError

    def rested(self) -> None:
        """Every request that came has been answered."""

    def broke(self, fault: str) -> None:
        """What came last cannot be followed: the stream is closed behind the answers."""

    def take(self, requests: Iterator[Request]) -> None:
        """Answer *requests*; the iterator may raise :exc:`~portmapd.errors.BrokenStream`."""
        if self._waiting is None:
            self._waiting = deque()
        try:
            self._waiting.extend(requests)
        except BrokenStream as fault:
            self._broken = str(fault)
        self._serve()

    def drop(self) -> None:
        """Answer nothing of what waits."""
        self._waiting = None

    def send(self, data: bytes) -> None:
        """Write what is no answer, behind the answers to what came before it."""
        if self._outgoing is not None:
            self._outgoing.append(data)
        else:
            self.transport.write(data)

    def _serve(self) -> None:
        ends = monotonic() + TURN
        while self._waiting and not self._paused:
            if monotonic() < ends or not self._rest():
                self._gather(self._waiting, ends)
        if self._waiting:
            return
        self._waiting = None
        self.rested()
        if self._broken:
            fault, self._broken = self._broken, ""
            self.broke(fault)
            # With a producer that is paused, it would wait for that one.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _gather(self, waiting: deque[Request], ends: float) -> None:
        """Answer requests until the answers make a chunk, or the turn ends; and write them."""
        outgoing = self._outgoing = []
        size = 0
        while waiting and size < CHUNK:
            answer = self.answer(waiting.popleft())
            outgoing.append(answer)
            size += len(answer)
            if monotonic() > ends:
                break
        self._outgoing = None
        self.transport.write(b"".join(outgoing))

    def _rest(self) -> bool:
        """Go on in a later turn, unless the transport is none of ours, which has no turns."""
        turns = isinstance(self.transport, DirectWrite)
        if turns:
            self.transport.rest()
        return turns

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self._serve()
        if not self._paused:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.drop()
