"""A reactor, as the core of the clients uses an event loop."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from errno import EAGAIN
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocolFactory,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IStreamClientEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from portmapd.client.core.async_connection import AsyncConnection
from portmapd.client.core.connecting import Target
from portmapd.client.core.registrations import Group
from portmapd.client.core.remote import RESOLVE_TIMEOUT
from portmapd.client.twisted.connection import (
    Answer,
    ChannelClientProtocol,
    Dialled,
    DialledFactory,
)
from portmapd.client.twisted.readable import Readable
from portmapd.client.values import Terminator, descriptor_of
from portmapd.errors import CallTimedOut, PortmapdError

T = TypeVar("T")


class _Future(Deferred[T]):
    """A Deferred with the methods of a future."""

    def done(self) -> bool:
        return bool(self.called)

    def set_result(self, result: T) -> None:
        self.callback(result)

    def set_exception(self, error: BaseException) -> None:
        self.errback(error)


class ReactorRuntime:
    """A reactor, as the client's core uses it.

    :raises TypeError: *reactor* lacks an interface.
    """

    _log = Logger()
    #: There is no limit to the time of an operation but those of its parts.
    left = math.inf

    def __init__(self, reactor: IReactorTime) -> None:
        self._clock = IReactorTime(reactor)
        self._unix = IReactorUNIX(reactor)
        self._tcp = IReactorTCP(reactor)
        self._descriptors = IReactorFDSet(reactor)

    def time(self) -> float:
        """Return the reactor's time."""
        return self._clock.seconds()

    def future(self) -> _Future[Any]:
        """Make a future."""
        return _Future()

    def call_later(self, seconds: float, call: Callable[[], object]) -> IDelayedCall:
        """Have *call* called after so many seconds."""
        return self._clock.callLater(seconds, call)

    def spawn(self, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Begin *work*."""
        return Deferred.fromCoroutine(work).addErrback(_ignore_cancelled)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await deferLater(self._clock, seconds)

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do several things at once."""
        try:
            return await defer.gatherResults(
                [Deferred.fromCoroutine(one) for one in work], consumeErrors=True
            )
        except defer.FirstError as first:
            first.subFailure.raiseException()
            raise

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Do *work*, which may take so many seconds."""
        try:
            return await Deferred.fromCoroutine(work).addTimeout(seconds, self._clock)
        except defer.TimeoutError:
            raise CallTimedOut(f"it was not done in {seconds:g} s") from None

    async def dial(
        self, target: Target, seconds: float, factory: IProtocolFactory | None = None
    ) -> Dialled:
        """Connect to *target*; see :class:`~portmapd.client.core.interfaces.Dialer`.

        :param factory: is started and stopped with the connection.
        """
        try:
            dialled = await self._endpoint(target, seconds).connect(DialledFactory(factory))
        except ConnectError as error:
            raise _os_error(error) from error
        except ConnectingCancelledError:
            raise CancelledError from None
        assert isinstance(dialled, Dialled)
        return dialled

    def _endpoint(self, target: Target, seconds: float) -> IStreamClientEndpoint:
        if isinstance(target, str):
            return UNIXClientEndpoint(self._unix, target, seconds)
        host, port = target
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        return kind(self._tcp, host, port, seconds)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host."""
        from portmapd.client.rpc.names import Addresses

        receiver = Addresses()
        IReactorPluggableNameResolver(self._clock).nameResolver.resolveHostName(
            receiver, host, port, transportSemantics="TCP"
        )
        found = receiver.found.addTimeout(RESOLVE_TIMEOUT, self._clock)
        try:
            return await found
        except defer.TimeoutError:
            raise CallTimedOut(f"the address of {host} was not found in time") from None

    async def exchange(self, stream: Dialled, request: bytes, limit: int, seconds: float) -> bytes:
        """Send *request*, and return what comes."""
        answer = Answer(limit)
        stream.hand_over(answer)
        stream.transport.write(request)
        try:
            return await self.within(seconds, _awaited(answer.whole))
        finally:
            stream.close()

    async def attach(self, stream: Dialled, connection: AsyncConnection) -> None:
        """Give the bytes of *stream* to *connection*."""
        stream.hand_over(ChannelClientProtocol(connection))

    def when_readable(self, terminator: Terminator, call: Callable[[], object]) -> Readable:
        """Have *call* called once the terminator is readable."""
        return Readable(self._descriptors, descriptor_of(terminator), call)

    def log_lost(self, group: Group, why: PortmapdError) -> None:
        """Log that *group* could not be registered again."""
        self._log.warn("{group} could not be registered again: {why}", group=group, why=why)

    def log_failure(self, what: str) -> None:
        """Log the exception that is being handled."""
        self._log.failure(what)


async def _awaited(deferred: Deferred[T]) -> T:
    return await deferred


def _ignore_cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)


def _os_error(error: ConnectError) -> OSError:
    """Return the error as plain sockets raise it."""
    # If the queue of a UNIX socket is full, Twisted takes the socket for connecting, is told at
    # once that it is not connected, and makes a failure the message.
    if error.args and isinstance(error.args[0], Failure):
        return BlockingIOError(EAGAIN, os.strerror(EAGAIN))
    if isinstance(error.osError, int):
        return OSError(error.osError, os.strerror(error.osError))
    return ConnectionError(str(error))
