"""What the client's core needs of an event loop. Internal."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from portmapd.client import sockets
from portmapd.client.core.async_connection import AsyncConnection
from portmapd.client.core.connecting import Target
from portmapd.client.core.registrations import Group
from portmapd.client.values import Terminator, descriptor_of
from portmapd.errors import CallTimedOut, PortmapdError

T = TypeVar("T")

_log = logging.getLogger("portmapd")


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
        """Connect to *target*; see :class:`~portmapd.client.core.connecting.Dialer`."""
        return await self.within(seconds, sockets.connect(target, self._until_writable))

    async def _until_writable(self, skt: socket.socket) -> None:
        writable = self.loop.create_future()
        self.loop.add_writer(skt, _finish, writable)
        try:
            await writable
        finally:
            self.loop.remove_writer(skt)

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
