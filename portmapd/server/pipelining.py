"""Streams of requests that are answered in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from itertools import chain
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IFileDescriptorReceiver,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from zope.interface import implementer

from portmapd.errors import BrokenStream, ConfigurationError
from portmapd.server.handover.passed import Descriptors, PassableTransport, PassedStream
from portmapd.server.turns import TURN, TurnQueue

#: Answers are gathered up to about so many bytes before they are written.
CHUNK = 65_536

Request = TypeVar("Request")


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """What a stream asks of its transport, as every TCP and UNIX transport of Twisted has it."""

    def abortConnection() -> None:
        """Close the connection at once; see ``ITCPTransport``."""


@implementer(IPushProducer, IFileDescriptorReceiver)
class PipelinedProtocol(Protocol, Generic[Request]):
    """A stream whose peer may send requests before it has read the answers to earlier ones.

    While the peer does not read its answers, no further ones are made, and nothing is read from
    it. If its requests take longer than a turn, they wait in the factory's queue for the next one,
    and nothing is read meanwhile either. A subclass must register itself as the producer of its
    transport.
    """

    factory: PipelinedFactory[Any]
    transport: IStreamTransport
    #: Does the peer not read its answers?
    _paused = False
    #: Is it closed once everything is written?
    is_closing = False
    #: Do requests wait for another turn?
    _queued = False
    #: What broke the stream; empty if nothing did.
    _broken = ""
    #: Requests that came and are not answered yet; None most of the time.
    _waiting: deque[Request] | None = None
    #: The rest of an answer that is made in parts; None most of the time.
    _rest: Iterator[bytes] | None = None
    #: Answers that are to be written together, while requests are answered.
    _outgoing: list[bytes] | None = None

    def answer(self, request: Request) -> bytes | Iterator[bytes]:
        """The answer to *request*, as it is written; empty if there is none.

        The parts of a long one are made one after the other, as the peer takes them.
        """
        raise NotImplementedError

    def requests_came(self) -> None:
        """At least one whole request has come; called before it is answered."""

    def idle(self) -> None:
        """Every request that came has been answered."""

    def broke(self, fault: str) -> None:
        """The framing is lost, and every request before that is answered: the stream is closed."""

    @property
    def unanswered(self) -> bytes:
        """What has come, as far as it is not answered; a stream that is given it goes on so."""
        raise NotImplementedError

    def pass_on(self, descriptors: Descriptors) -> PassedStream | None:
        """What another process needs to go on with the stream; None: it ends anyhow."""
        transport = cast("PassableTransport", self.transport)
        if not transport.is_passable:
            return None
        rest = b""
        if self._rest is not None:
            # It is made to its end: no other process can go on making it.
            rest = b"".join(self._rest)
            self._rest = iter((rest,))
        return PassedStream(
            descriptors.add(transport.fileno()),
            b"" if self.is_closing else self.unanswered,
            transport.unsent + rest,
            self._broken,
            self.is_closing,
        )

    def take_over(self, passed: PassedStream) -> None:
        """Be what the stream was in another process.

        Nothing is read or sent before the reactor runs.
        """
        cast("PassableTransport", self.transport).queue(passed.output)
        if passed.is_closing:
            self.close()

    def go_on(self, passed: PassedStream) -> None:
        """Go on where the stream was in another process, once the reactor runs."""
        if passed.input:
            self.dataReceived(passed.input)
        if passed.broken:
            self._broken = passed.broken
            if not self.is_busy:
                self._finish()

    def take(self, requests: Iterator[Request]) -> None:
        """Answer *requests*; the iterator may raise :exc:`~portmapd.errors.BrokenStream`."""
        if self._waiting is None:
            self._waiting = deque()
        try:
            self._waiting.extend(requests)
        except BrokenStream as fault:
            self._broken = str(fault)
        if self._waiting:
            self.requests_came()
        if not self._queued:
            self._serve()

    def drop(self) -> None:
        """Leave the requests unanswered that wait."""
        self._waiting = self._rest = None
        if self._queued:
            self._queued = False
            self.factory.turns.discard(self)

    def send(self, data: bytes) -> None:
        """Write what is not an answer, behind the answers to the requests before it."""
        if self._rest is not None:
            self._rest = chain(self._rest, (data,))
        elif self._outgoing is not None:
            self._outgoing.append(data)
        else:
            self.write(data)

    def write(self, data: bytes) -> None:
        """Give *data* to the transport."""
        self.transport.write(data)

    @property
    def is_busy(self) -> bool:
        """Are there requests that came and are not answered yet, or not wholly?"""
        return bool(self._waiting) or self._rest is not None

    def close(self) -> None:
        """Close the connection behind what has still to be written."""
        # A transport whose producer is paused would wait for it.
        self.is_closing = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def hang_up(self) -> None:
        """Close the connection in order if the peer reads its answers, else at once."""
        if self._paused or self.is_closing:
            self.end()
        else:
            self.drop()
            self.close()

    def end(self) -> None:
        """Close the connection at once, whatever has still to be written."""
        self.drop()
        self.transport.abortConnection()

    def take_turn(self) -> None:
        """Answer requests that had to wait; called by the queue."""
        self._queued = False
        if not self._paused:
            self.resumeProducing()

    def _serve(self) -> None:
        ends = monotonic() + TURN
        while self.is_busy and not self._paused:
            if self._rest is not None:
                self._write_part(self._rest)
            elif self._waiting:
                self._gather(self._waiting, ends)
            if monotonic() > ends:
                break
        if not self.is_busy:
            self._finish()
        elif not self._paused:
            self._wait()

    def _gather(self, waiting: deque[Request], ends: float) -> None:
        """Answer requests until the answers make a chunk, or the turn ends; and write them."""
        outgoing = self._outgoing = []
        size = 0
        while waiting and size < CHUNK:
            answer = self.answer(waiting.popleft())
            if not isinstance(answer, bytes):
                self._rest = answer
                break
            outgoing.append(answer)
            size += len(answer)
            if self._paused or monotonic() > ends:
                break
        self._outgoing = None
        if answers := b"".join(outgoing):
            self.write(answers)

    def _write_part(self, rest: Iterator[bytes]) -> None:
        """Write the next part of a long answer: no more are kept if the peer does not take it."""
        part = next(rest, None)
        if part is None:
            self._rest = None
        else:
            self.write(part)

    def _wait(self) -> None:
        """Go on in a later turn; nothing is read before."""
        self._queued = True
        self.transport.pauseProducing()
        self.factory.turns.add(self)

    def _finish(self) -> None:
        self._waiting = None
        self.idle()
        if self._broken:
            fault, self._broken = self._broken, ""
            self.broke(fault)
            self.close()

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._queued:
            self._serve()
        if not (self._paused or self._queued):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.drop()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Close what a peer passes over a UNIX socket: no request has a use for it."""
        os.close(descriptor)


S = TypeVar("S", bound=PipelinedProtocol[Any])


class PipelinedFactory(ServerFactory, Generic[S]):
    """The streams of one listening socket, or of several.

    :param turns: where streams wait whose requests take longer than a turn.
    :ivar streams: those that are open.
    :ivar is_closed: are further streams refused?
    """

    noisy = False
    _log = Logger()

    def __init__(self, turns: TurnQueue) -> None:
        self.turns = turns
        self.streams: set[S] = set()
        self.is_closed = False
        self._ended: list[Deferred[None]] = []
        self._refused = ""

    def discard(self, stream: S) -> None:
        """*stream* has ended."""
        self.streams.discard(stream)
        self._tell_ended()

    def refuse(self, stream: S, error: ConfigurationError) -> None:
        """Close *stream*, whose transport lacks something; the log says so once."""
        if str(error) != self._refused:
            self._refused = str(error)
            self._log.error("a connection is refused: {error}", error=self._refused)
        stream.end()

    def end(self) -> Deferred[None]:
        """Close every stream at once.

        :return: fires when they are closed.
        """
        for stream in tuple(self.streams):
            stream.end()
        return self._when_ended()

    def _when_ended(self) -> Deferred[None]:
        ended = Deferred[None]()
        self._ended.append(ended)
        self._tell_ended()
        return ended

    def close(self) -> Deferred[None]:
        """Refuse further streams, and close every one behind its answers.

        :return: fires when they are closed.
        """
        self.is_closed = True
        for stream in tuple(self.streams):
            stream.hang_up()
        return self._when_ended()

    def stopFactory(self) -> None:
        """The last listening socket is closed, and so are the streams."""
        if not self.is_closed:
            self.end()

    def _tell_ended(self) -> None:
        while self._ended and not self.streams:
            self._ended.pop().callback(None)
