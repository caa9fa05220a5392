"""The local channel for Twisted applications."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from errno import EAGAIN
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IReadDescriptor,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.client.async_portmapper import AsyncPortmapper
from portmapd.client.core.async_connection import AsyncConnection
from portmapd.client.core.connecting import Target
from portmapd.client.core.registrations import Group, Lost
from portmapd.client.core.watching import AsyncChanges
from portmapd.client.portmapper import ANYWHERE, User, connect
from portmapd.client.values import (
    Change,
    ClusterMapping,
    ClusterService,
    ClusterStatus,
    Flags,
    Known,
    RpcMapping,
    Service,
    Status,
    Terminator,
    descriptor_of,
)
from portmapd.errors import BadArguments, CallTimedOut, PortmapdError, Terminated

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Session

__all__ = ["AsyncChanges", "Change", "Flags", "Group", "Portmapper", "RpcMapping", "Service"]

T = TypeVar("T")

#: How long the look-up of a name may take, in seconds.
RESOLVE_TIMEOUT = 10.0


class Portmapper(
    AsyncPortmapper[
        Deferred[None],
        Deferred[Sequence[Service]],
        Deferred[Sequence[RpcMapping]],
        Deferred[str],
        Deferred[Status],
        Deferred[Known[ClusterService]],
        Deferred[Known[ClusterMapping]],
        Deferred[ClusterStatus],
    ]
):
    """Registers and finds named services of this machine.

    What is registered through it stays registered until it is deregistered, the client is closed,
    or the process ends. When the connection to the daemon breaks, it is made again, and everything
    is registered again in the groups in which it was.

    Every operation returns a Deferred. Any operation may fail with

    - a :exc:`~portmapd.errors.Refusal` if a rule forbids it; the message names the field.
    - :exc:`~portmapd.errors.DaemonUnreachable` if there is no daemon, or the connection breaks
      before it answers; the operation is not tried again then, and what was to be registered is
      not. It is :exc:`~portmapd.errors.ClientClosed` after :meth:`close`.
    - :exc:`~portmapd.errors.Terminated` if its *terminator*, a descriptor or an object with
      ``fileno()``, becomes readable while it waits (None: there is none). Then the connection to
      the daemon is closed, and everything that was registered through it is gone. Cancelling the
      Deferred does the same.

    An operation without a connection waits 10 seconds at most for the daemon to take one, and 10
    more for its greeting; then it fails with :exc:`~portmapd.errors.DaemonUnreachable`. On a
    connection there is no limit to how long it waits for a daemon that does not answer; set one
    with ``addTimeout``, which cancels.

    :param reactor: the application's reactor; None: the one that is installed.
    :param path: the path of the daemon's socket; None: the user's own daemon's if there is one,
        else the system's.
    :param lost: is called with each :class:`~portmapd.client.core.registrations.Group` that could
        not be registered again, and the exception that says why; None: it is logged.
    :param host: another machine, a name or an address, with its port if that is not 80: its
        services with a port are listed and connected to by what its ``--http`` tells. Nothing can
        be registered or watched there, and its users are uids. None: this machine.
    :raises TypeError: *reactor* lacks an interface, or *path* is not a path.
    :raises ValueError: *host* is none, or there is a *path*, too.
    """

    def __init__(
        self,
        reactor: IReactorTime | None = None,
        path: str | PathLike[str] | None = None,
        lost: Lost | None = None,
        *,
        host: str | None = None,
    ) -> None:
        self._runtime = ReactorRuntime(_installed() if reactor is None else reactor)
        super().__init__(self._runtime, path, lost, host)
        self._operations = Operations(self._runtime, self._connection.abandon)

    def _run(
        self, operation: Callable[[Session], Coroutine[Any, Any, T]], terminator: Terminator | None
    ) -> Deferred[T]:
        return self._operations.run(operation(self._connection), terminator)

    def connect(
        self,
        name: str,
        user: User | None,
        factory: IProtocolFactory,
        terminator: Terminator | None = None,
        where: str = ANYWHERE,
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP (127.0.0.1, then ::1) or UNIX
        sockets, until one accepts. Each address has 10 seconds for that.

        :param user: a uid, or a user's name; None: any.
        :param factory: makes the protocol, which is the result once it is connected.
        :param where: ``any``: on this machine, else on any other machine of the cluster that shares
            it, in random order; ``local``: on this machine alone; else the name of a machine of
            the cluster.
        :raises NotListed: none is registered.
        :raises NotAccepted: none of them accepts.
        """
        return self._run(
            lambda session: self._connect(session, name, user, factory, where), terminator
        )

    def connect_root(
        self, name: str, factory: IProtocolFactory, terminator: Terminator | None = None
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name that root registered; see :meth:`connect`."""
        return self.connect(name, 0, factory, terminator)

    def connect_any(
        self,
        name: str,
        factory: IProtocolFactory,
        terminator: Terminator | None = None,
        where: str = ANYWHERE,
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name, whoever registered it; see :meth:`connect`."""
        return self.connect(name, None, factory, terminator, where)

    async def _connect(
        self, session: Session, name: str, user: User | None, factory: IProtocolFactory, where: str
    ) -> IProtocol:
        dialer = _FactoryDialer(self._runtime, factory)
        try:
            return _hand_over(await connect(session, dialer, name, user, where), factory)
        finally:
            dialer.stop()

    def close(self) -> Deferred[None]:
        """Close the connection; everything that was registered through it is gone.

        Operations that wait, and later ones, fail with :exc:`~portmapd.errors.ClientClosed`;
        iterations over changes end.

        :return: fires once it is closed.
        """
        closed = self._connection.close()
        assert isinstance(closed, Deferred)
        self._watchers.close()
        self._operations.close(self._connection.closed)
        return closed


class _FactoryDialer:
    """Makes connections for a factory.

    The factory is started once for all attempts: it may log whenever it starts and stops.
    """

    left = math.inf

    def __init__(self, runtime: ReactorRuntime, factory: IProtocolFactory) -> None:
        self.time = runtime.time
        self.sleep = runtime.sleep
        self._runtime = runtime
        self._factory = factory
        self._is_started = False

    async def dial(self, target: Target, seconds: float) -> Dialled:
        if not self._is_started:
            self._is_started = True
            self._factory.doStart()
        return await self._runtime.dial(target, seconds, self._factory)

    def stop(self) -> None:
        """No attempt follows."""
        if self._is_started:
            self._factory.doStop()


def _hand_over(dialled: Dialled, factory: IProtocolFactory) -> IProtocol:
    """Connect the application's protocol; what its code raises ends the connection."""
    try:
        protocol = factory.buildProtocol(dialled.getpeername())
        if protocol is None:
            raise NoProtocol
        dialled.hand_over(protocol)
    except BaseException:
        dialled.close()
        raise
    return protocol


def _installed() -> IReactorTime:
    from twisted.internet import reactor

    return IReactorTime(reactor)


class Operation(Generic[T]):
    """One operation under way: a Deferred that the application's callbacks cannot harm.

    :param ended: is called with it once it has ended, in whichever way.
    :param abandon: is called if it was cancelled or terminated, once its work has stopped.
    :ivar result: has the result of the work, or tells how the operation was stopped.
    """

    def __init__(
        self, ended: Callable[[Operation[Any]], object], abandon: Callable[[], object]
    ) -> None:
        self.result: Deferred[T] = Deferred(lambda _: self._give_up())
        self._ended = ended
        self._abandon = abandon
        self._is_over = False
        self._terminator: Readable | None = None
        self._work: Deferred[T] | None = None

    def begin(self, work: Coroutine[Deferred[Any], Any, T], terminator: Readable | None) -> None:
        """Begin the work.

        :param terminator: is cancelled when the operation ends.
        """
        self._terminator = terminator
        self._work = Deferred.fromCoroutine(work)
        self._work.addBoth(self._done)

    def _done(self, outcome: T | Failure) -> None:
        if not self._is_over:
            self._end()
            # A failure makes it fail.
            self.result.callback(outcome)

    def _end(self) -> None:
        self._is_over = True
        if self._terminator is not None:
            self._terminator.cancel()
        self._ended(self)

    def _stop(self) -> None:
        self._end()
        if self._work is not None:
            self._work.cancel()

    def _give_up(self) -> None:
        self._stop()
        self._abandon()

    def terminate(self) -> None:
        """The terminator became readable."""
        self._give_up()
        self.result.errback(Terminated("the terminator became readable: the connection is closed"))

    def fail(self, why: PortmapdError) -> None:
        """End it for the reason *why*."""
        self._stop()
        self.result.errback(why)


class Operations:
    """The operations of one client that are under way.

    :param abandon: is called when one was cancelled or terminated.
    """

    def __init__(self, runtime: ReactorRuntime, abandon: Callable[[], object]) -> None:
        self._runtime = runtime
        self._abandon = abandon
        self._under_way: dict[Operation[Any], None] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def run(
        self, work: Coroutine[Deferred[Any], Any, T], terminator: Terminator | None
    ) -> Deferred[T]:
        """Run *work* until it is done, the Deferred is cancelled, or *terminator* is readable.

        :return: has the work's result, or fails as it does; fails with
            :exc:`~portmapd.errors.Terminated` if the terminator became readable, and with
            :exc:`~portmapd.errors.BadArguments` if it is none.
        """
        operation: Operation[T] = Operation(self._under_way.pop, self._abandon)
        readable: Readable | None = None
        if terminator is not None:
            try:
                readable = self._runtime.when_readable(terminator, operation.terminate)
            except BadArguments:
                work.close()
                return defer.fail()
        self._under_way[operation] = None
        operation.begin(work, readable)
        return operation.result

    def close(self, why: Callable[[], PortmapdError]) -> None:
        """End every operation that is under way now.

        :param why: makes what each one fails with.
        """
        for operation in tuple(self._under_way):
            if operation in self._under_way:
                operation.fail(why())


class ChannelClientProtocol(Protocol):
    """One connection to the daemon's local channel."""

    # It has abortConnection, beside what ITransport has.
    transport: Any

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def connectionMade(self) -> None:
        self._connection.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self._connection.received(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._connection.lost()

    def write(self, data: bytes) -> None:
        """Send *data*."""
        self.transport.write(data)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abortConnection()


class Dialled(Protocol):
    """A connection that no other protocol has yet."""

    transport: Any

    def getsockname(self) -> Any:
        """Return its own address."""
        return self.transport.getHost()

    def getpeername(self) -> Any:
        """Return the address of its peer."""
        return self.transport.getPeer()

    def getsockopt(self, level: int, option: int, size: int) -> Any:
        """Return an option of its socket."""
        return self.transport.getHandle().getsockopt(level, option, size)

    def close(self) -> None:
        """Close it."""
        self.transport.abortConnection()

    def hand_over(self, protocol: Any) -> None:
        """Give it to *protocol*."""
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)


class _DialledFactory(Factory):
    """Makes one connection.

    :param user: the factory that the connection is for, which is started and stopped with it;
        None: there is none.
    """

    noisy = False
    protocol = Dialled

    def __init__(self, user: IProtocolFactory | None) -> None:
        self._user = user

    def doStart(self) -> None:
        if self._user is not None:
            self._user.doStart()

    def doStop(self) -> None:
        if self._user is not None:
            self._user.doStop()


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
            dialled = await self._endpoint(target, seconds).connect(_DialledFactory(factory))
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
        answer = _Answer(limit)
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


class _Answer(Protocol):
    """Receives all that comes on a connection.

    :param limit: the most bytes that may come.
    :ivar whole: fires with them.
    """

    def __init__(self, limit: int) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._left = limit
        self._data: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._data.append(data)
        self._left -= len(data)
        if self._left < 0:
            self._end(OSError("the answer is too long"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        is_clean = reason is not None and reason.check(ConnectionDone)
        self._end(None if is_clean else OSError("the connection broke"))

    def _end(self, error: OSError | None) -> None:
        if self.whole.called:
            return
        if error is None:
            self.whole.callback(b"".join(self._data))
        else:
            self.whole.errback(error)


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


@implementer(IReadDescriptor)
class Readable:
    """Calls once, when a descriptor becomes readable.

    The descriptor is duplicated, so that the application may have it in its reactor, too.
    """

    def __init__(self, reactor: IReactorFDSet, descriptor: int, call: Callable[[], object]) -> None:
        self._reactor = reactor
        self._call = call
        self._descriptor = os.dup(descriptor)
        reactor.addReader(self)

    def fileno(self) -> int:
        """Return the duplicate; -1 once it is closed."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Return its name in log lines."""
        return "terminator"

    def doRead(self) -> None:
        """It is readable."""
        if self._descriptor >= 0:
            self.cancel()
            self._call()

    def cancel(self) -> None:
        """Wait no longer."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or the descriptor broke, which counts as its being readable."""
        self.doRead()
