"""The local channel for asyncio applications."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

from portmapd.channel.socket_path import asking_socket
from portmapd.client.aio.runtime import LoopRuntime, Readable
from portmapd.client.core.operations import Session
from portmapd.client.core.reconnecting import ReconnectingConnection
from portmapd.client.core.registrations import Lost
from portmapd.client.core.watching import AsyncChanges, Watchers
from portmapd.client.portmapper import BasePortmapper, User, connect
from portmapd.client.values import RpcMapping, Service, Terminator, names_of
from portmapd.errors import PortmapdError, Terminated

T = TypeVar("T")

Streams = tuple[StreamReader, StreamWriter]
#: What ``async def`` returns.
Awaitable = Coroutine[Any, Any, T]


class Portmapper(
    BasePortmapper[
        Coroutine[Any, Any, None],
        Coroutine[Any, Any, Sequence[Service]],
        Coroutine[Any, Any, Sequence[RpcMapping]],
        Coroutine[Any, Any, str],
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
    :raises RuntimeError: no event loop runs.
    :raises TypeError: *path* is no path.
    """

    def __init__(self, path: str | PathLike[str] | None = None, lost: Lost | None = None) -> None:
        self._runtime = LoopRuntime(asyncio.get_running_loop())
        self._watchers = Watchers(self._runtime)
        self._connection = ReconnectingConnection(
            self._runtime, asking_socket(path), lost, self._watchers
        )
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
        self, name: str, user: User | None, terminator: Terminator | None = None
    ) -> Streams:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP (127.0.0.1, then ::1) or UNIX
        sockets, until one accepts. Each address has 10 seconds for that.

        :param user: a uid, or a user's name; None: any.
        :return: what ``asyncio.open_connection`` gives.
        :raises NotListed: none is registered.
        :raises NotAccepted: none of them accepts.
        """
        skt = await self._run(
            lambda session: connect(session, self._runtime, name, user), terminator
        )
        return await asyncio.open_connection(sock=skt)

    async def connect_root(self, name: str, terminator: Terminator | None = None) -> Streams:
        """Connect to a service of that name that root registered; see :meth:`connect`."""
        return await self.connect(name, 0, terminator)

    async def connect_any(self, name: str, terminator: Terminator | None = None) -> Streams:
        """Connect to a service of that name, whoever registered it; see :meth:`connect`."""
        return await self.connect(name, None, terminator)

    def watch(self, names: str | Iterable[str] | None = None) -> AsyncChanges:
        """Watch what is registered now, and every change, as an asynchronous iterator.

        If there is no daemon, it begins once there is one. Changes that cancel out are left out if
        very many wait to be taken.

        :param names: the name, or the names, whose services are watched; None: all services, and
            the RPC mappings.
        :return: ``async for`` takes :class:`~portmapd.client.values.Change` values from it.
            ``close()`` ends it, and must be called when it is not read any more.
        :raises BadArguments: *names* are no names.
        :raises ClientClosed: the client is closed.
        """
        self._connection.check()
        changes = self._watchers.watch(frozenset(names_of(names) or ()))
        self._runtime.spawn(self._begin_to_watch())
        return changes

    async def _begin_to_watch(self) -> None:
        try:
            self._watchers.begin(await self._connection.open())
        except PortmapdError:
            # The connection is made again as long as anything is watched.
            return

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
