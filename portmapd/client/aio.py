"""The clients for asyncio applications; no Twisted is imported."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from portmapd.client import sockets
from portmapd.client.async_portmapper import AsyncPortmapper
from portmapd.client.core.async_connection import AsyncConnection
from portmapd.client.core.connecting import Target
from portmapd.client.core.registrations import Group, Lost
from portmapd.client.core.remote import RESOLVE_TIMEOUT
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
from portmapd.errors import CallTimedOut, PortmapdError, Terminated

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Session
    from portmapd.client.rpc.aio import PortmapClient

__all__ = [
    "AsyncChanges",
    "Change",
    "Flags",
    "Group",
    "PortmapClient",
    "Portmapper",
    "RpcMapping",
    "Service",
]

T = TypeVar("T")

#: The most bytes that are read at once.
CHUNK = 65_536

_log = logging.getLogger("portmapd")

Streams = tuple[StreamReader, StreamWriter]
#: What ``async def`` returns.
Awaitable = Coroutine[Any, Any, T]


class Portmapper(
    AsyncPortmapper[
        Coroutine[Any, Any, None],
        Coroutine[Any, Any, Sequence[Service]],
        Coroutine[Any, Any, Sequence[RpcMapping]],
        Coroutine[Any, Any, str],
        Coroutine[Any, Any, Status],
        Coroutine[Any, Any, Known[ClusterService]],
        Coroutine[Any, Any, Known[ClusterMapping]],
        Coroutine[Any, Any, ClusterStatus],
    ]
):
    """Registers and finds named services of this machine.

    What is registered through it stays registered until it is deregistered, the client is closed,
    or the process ends. When the connection to the daemon breaks, it is made again, and everything
    is registered again in the groups in which it was. ``async with`` closes it.

    Every operation is awaited. Any operation may raise

    - a :exc:`~portmapd.errors.Refusal` if a rule forbids it; the message names the field.
    - :exc:`~portmapd.errors.DaemonUnreachable` if there is no daemon, or the connection breaks
      before it answers; the operation is not tried again then, and what was to be registered is
      not. It is :exc:`~portmapd.errors.ClientClosed` after :meth:`close`.
    - :exc:`~portmapd.errors.Terminated` if its *terminator*, a descriptor or an object with
      ``fileno()``, becomes readable while it waits (None: there is none). Then the connection to
      the daemon is closed, and everything that was registered through it is gone.

    An operation may be cancelled, and be given a limit by ``asyncio.timeout``. A query that is
    cancelled is forgotten. If an operation is cancelled that changes what is registered, nothing
    is left half done: the connection is closed, and everything that was registered before is
    registered again on the next one. Other operations that wait then raise
    :exc:`~portmapd.errors.DaemonUnreachable`.

    An operation without a connection waits 10 seconds at most for the daemon to take one, and 10
    more for its greeting; then it raises :exc:`~portmapd.errors.DaemonUnreachable`. On a
    connection there is no limit.

    :param path: the path of the daemon's socket; None: the user's own daemon's if there is one,
        else the system's.
    :param lost: is called with each :class:`~portmapd.client.core.registrations.Group` that could
        not be registered again, and the exception that says why; None: the logger ``portmapd`` of
        the logging module warns of it.
    :param host: another machine, a name or an address, with its port if that is not 80: its
        services with a port are listed and connected to by what its ``--http`` tells. Nothing can
        be registered or watched there, and its users are uids. None: this machine.
    :raises RuntimeError: no event loop runs.
    :raises TypeError: *path* is not a path.
    :raises ValueError: *host* is none, or there is a *path*, too.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        lost: Lost | None = None,
        *,
        host: str | None = None,
    ) -> None:
        self._runtime = LoopRuntime(asyncio.get_running_loop())
        super().__init__(self._runtime, path, lost, host)
        #: Interrupts each operation that is under way.
        self._under_way: dict[Callable[[PortmapdError], object], None] = {}

    async def _run(
        self, operation: Callable[[Session], Coroutine[Any, Any, T]], terminator: Terminator | None
    ) -> T:
        self._connection.check()
        async with self._interruptible(terminator):
            return await operation(self._connection)

    @asynccontextmanager
    async def _interruptible(self, terminator: Terminator | None) -> AsyncIterator[None]:
        """Let the block be interrupted by the terminator, and by the end of the client."""
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        reasons: list[PortmapdError] = []

        def interrupt(why: PortmapdError) -> None:
            if not reasons:
                reasons.append(why)
                task.cancel()

        def terminate() -> None:
            interrupt(Terminated("the terminator became readable: the connection is closed"))
            self._connection.abandon()

        readable: Readable | None = None
        if terminator is not None:
            readable = self._runtime.when_readable(terminator, terminate)
        self._under_way[interrupt] = None
        try:
            yield
        except BaseException:
            if reasons and task.uncancel() <= cancelling:
                raise reasons[0] from None
            raise
        finally:
            del self._under_way[interrupt]
            if readable is not None:
                readable.cancel()

    async def connect(
        self,
        name: str,
        user: User | None,
        terminator: Terminator | None = None,
        where: str = ANYWHERE,
    ) -> Streams:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP (127.0.0.1, then ::1) or UNIX
        sockets, until one accepts. Each address has 10 seconds for that.

        :param user: a uid, or a user's name; None: any.
        :param where: ``any``: on this machine, else on any other machine of the cluster that shares
            it, in random order; ``local``: on this machine alone; else the name of a machine of
            the cluster.
        :return: what ``asyncio.open_connection`` gives.
        :raises NotListed: none is registered.
        :raises NotAccepted: none of them accepts.
        """
        skt = await self._run(
            lambda session: connect(session, self._runtime, name, user, where), terminator
        )
        return await asyncio.open_connection(sock=skt)

    async def connect_root(self, name: str, terminator: Terminator | None = None) -> Streams:
        """Connect to a service of that name that root registered; see :meth:`connect`."""
        return await self.connect(name, 0, terminator)

    async def connect_any(
        self, name: str, terminator: Terminator | None = None, where: str = ANYWHERE
    ) -> Streams:
        """Connect to a service of that name, whoever registered it; see :meth:`connect`."""
        return await self.connect(name, None, terminator, where)

    async def close(self) -> None:
        """Close the connection; everything that was registered through it is gone.

        Operations that wait, and later ones, raise :exc:`~portmapd.errors.ClientClosed`;
        iterations over changes end.
        """
        closed = self._connection.close()
        self._watchers.close()
        for interrupt in tuple(self._under_way):
            interrupt(self._connection.closed())
        await closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class ChannelClientProtocol(asyncio.Protocol):
    """One connection to the daemon's local channel."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._connection.opened(transport)

    def data_received(self, data: bytes) -> None:
        self._connection.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost()


class LoopRuntime:
    """An event loop, as the client's core uses it."""

    #: There is no limit to the time of an operation but those of its parts.
    left = math.inf

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: The loop itself keeps weak references only.
        self._tasks: set[asyncio.Task[None]] = set()

    def time(self) -> float:
        """Return the loop's time."""
        return self.loop.time()

    def future(self) -> asyncio.Future[Any]:
        """Make a future."""
        return self.loop.create_future()

    def call_later(self, seconds: float, call: Callable[[], object]) -> asyncio.TimerHandle:
        """Have *call* called after so many seconds."""
        return self.loop.call_later(seconds, call)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin *work*."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do several things at once."""
        return await asyncio.gather(*work)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Do *work*, which may take so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise CallTimedOut(f"it was not done in {seconds:g} s") from None

    async def dial(self, target: Target, seconds: float) -> socket.socket:
        """Connect to *target*; see :class:`~portmapd.client.core.interfaces.Dialer`."""
        return await self.within(seconds, sockets.connect(target, self._until_writable))

    async def _until_writable(self, skt: socket.socket) -> None:
        writable = self.loop.create_future()
        self.loop.add_writer(skt, _finish, writable)
        try:
            await writable
        finally:
            self.loop.remove_writer(skt)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host."""
        looked_up = self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = await self.within(RESOLVE_TIMEOUT, looked_up)
        return list(dict.fromkeys(str(row[4][0]) for row in found))

    async def exchange(
        self, stream: socket.socket, request: bytes, limit: int, seconds: float
    ) -> bytes:
        """Send *request*, and return what comes."""
        with stream:
            return await self.within(seconds, self._exchanged(stream, request, limit))

    async def _exchanged(self, stream: socket.socket, request: bytes, limit: int) -> bytes:
        await self.loop.sock_sendall(stream, request)
        answer = bytearray()
        while data := await self.loop.sock_recv(stream, CHUNK):
            answer += data
            if len(answer) > limit:
                raise OSError("the answer is too long")
        return bytes(answer)

    async def attach(self, stream: socket.socket, connection: AsyncConnection) -> None:
        """Give the bytes of *stream* to *connection*."""
        try:
            await self.loop.create_connection(
                lambda: ChannelClientProtocol(connection), sock=stream
            )
        except BaseException:
            stream.close()
            raise

    def when_readable(self, terminator: Terminator, call: Callable[[], object]) -> Readable:
        """Have *call* called once the terminator is readable."""
        return Readable(self.loop, descriptor_of(terminator), call)

    def log_lost(self, group: Group, why: PortmapdError) -> None:
        """Log that *group* could not be registered again."""
        _log.warning("%s could not be registered again: %s", group, why)

    def log_failure(self, what: str) -> None:
        """Log the exception that is being handled."""
        _log.exception(what)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Readable:
    """Calls once, when a descriptor becomes readable.

    The descriptor is duplicated, so that the application may have it in its loop, too.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, call: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._call = call
        self._descriptor = os.dup(descriptor)
        loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        self.cancel()
        self._call()

    def cancel(self) -> None:
        """Wait no longer."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


# It takes long to import, and most programs use the local channel alone.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "PortmapClient":
            from portmapd.client.rpc.aio import PortmapClient

            return PortmapClient
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
