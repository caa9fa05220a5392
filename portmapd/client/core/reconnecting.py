"""The connection of an asynchronous client, which is made again when it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from portmapd.client.core.async_connection import AsyncConnection, copy_of
from portmapd.client.core.channel_protocol import Event, LostName
from portmapd.client.core.connecting import TIMEOUT, dial_daemon, waits
from portmapd.client.core.operations import greet, restore
from portmapd.client.core.registrations import Group, Lost, Refused, Registrations
from portmapd.client.core.watching import AllWatchers
from portmapd.errors import (
    CallTimedOut,
    ClientClosed,
    DaemonUnreachable,
    NameLost,
    PortmapdError,
)

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Cancellable, Future, Runtime

#: How long the daemon has to greet, in seconds.
GREETING_TIMEOUT = 10.0


class _Attempt:
    """One attempt to connect.

    :ivar work: the work under way; None until it has begun.
    """

    work: Cancellable | None = None


class ReconnectingConnection:
    """One client's connection to the daemon, on which everything is registered.

    There is one attempt to connect at a time, and it belongs to no operation: operations wait for
    it, and may stop waiting without harm to the others. While anything is registered or watched, a
    connection that breaks is made again.

    :param path: the daemon's socket.
    :param lost: is told what could not be registered again; None: the log is.
    :param watchers: are told of every new connection, and of events.
    """

    #: Services are on this machine.
    remote_hosts: Sequence[str] | None = None

    def __init__(
        self, runtime: Runtime[Any], path: str, lost: Lost | None, watchers: AllWatchers
    ) -> None:
        self.registrations = Registrations()
        self.is_closed = False
        self._runtime = runtime
        self._path = path
        self._report_lost = lost
        self._watchers = watchers
        self._connection: AsyncConnection | None = None
        self._attempt: _Attempt | None = None
        self._waiting: list[Future[AsyncConnection]] = []
        self._retry: Cancellable | None = None
        self._waits: Iterator[float] = waits()
        #: Connections that are not closed yet, and who waits for that.
        self._open: set[AsyncConnection] = set()
        self._closing: list[Future[None]] = []

    @asynccontextmanager
    async def connected(self, changes: bool = False) -> AsyncIterator[AsyncConnection]:
        """Give the block the connection; see :class:`~portmapd.client.core.interfaces.Session`."""
        connection = await self.open()
        try:
            yield connection
        except PortmapdError:
            raise
        except BaseException:
            if changes and connection is self._connection:
                self._drop(self._interrupted())
            raise

    async def open(self) -> AsyncConnection:
        """Return the connection, on which everything is registered.

        :raises DaemonUnreachable: there is no daemon, or the connection is another process's.
        :raises ClientClosed: the application closed the client.
        """
        self.check()
        if self._connection is not None:
            return self._connection
        waiting: Future[AsyncConnection] = self._runtime.future()
        self._waiting.append(waiting)
        self._begin()
        return await waiting

    def check(self) -> None:
        """Raise the error if the client cannot be used at all."""
        if self.is_closed:
            raise self.closed()
        if self._connection is not None and self._connection.is_inherited:
            raise DaemonUnreachable(
                "the connection to the daemon belongs to the process that this one was forked "
                "from; make a Portmapper of its own"
            )

    def closed(self) -> ClientClosed:
        """Make the error of operations after the end of the client."""
        return ClientClosed(f"the client of {self._path} is closed; make another Portmapper")

    def _interrupted(self) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"the connection to the daemon at {self._path} was closed, because another operation "
            "was cancelled or terminated"
        )

    # An attempt to connect

    def _begin(self) -> None:
        if self._attempt is None:
            self._attempt = attempt = _Attempt()
            attempt.work = self._runtime.spawn(self._try(attempt))

    async def _try(self, attempt: _Attempt) -> None:
        try:
            connection = await self._connect()
        except Exception as error:
            if self._attempt is attempt:
                self._failed(error)
        else:
            if self._attempt is attempt:
                self._connected(connection)

    async def _connect(self) -> AsyncConnection:
        stream = await dial_daemon(self._runtime, self._path, TIMEOUT)
        connection = AsyncConnection(self._runtime, self._path, self._take, self._broken)
        self._open.add(connection)
        try:
            await self._runtime.attach(stream, connection)
            await self._greet(connection)
            refused = await restore(connection, self.registrations)
            connection.check()
        except BaseException:
            connection.close(self._unanswered())
            raise
        self._report(refused)
        return connection

    async def _greet(self, connection: AsyncConnection) -> None:
        try:
            await self._runtime.within(GREETING_TIMEOUT, greet(connection))
        except CallTimedOut:
            raise self._unanswered() from None

    def _unanswered(self) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"what listens at {self._path} does not answer; is that portmapd's socket?"
        )

    def _take(self, event: Event) -> None:
        """Take in what the daemon told."""
        if isinstance(event, LostName):
            lost = self.registrations.lost(event.name, event.port)
            self._report((group, NameLost(event.why)) for group in lost)
        else:
            self._watchers.take(event)

    def _report(self, refused: Iterable[Refused]) -> None:
        for group, why in refused:
            self.registrations.discard(group)
            # Later: the application may do anything in there.
            self._runtime.call_later(0, partial(self._tell, group, why))

    def _tell(self, group: Group, why: PortmapdError) -> None:
        try:
            (self._report_lost or self._runtime.log_lost)(group, why)
        except Exception:
            self._runtime.log_failure("the callback for a lost registration failed")

    def _connected(self, connection: AsyncConnection) -> None:
        self._attempt = None
        self._connection = connection
        self._waits = waits()
        self._watchers.resume(connection)
        for waiting in self._take_waiting():
            waiting.set_result(connection)

    def _failed(self, error: Exception) -> None:
        self._attempt = None
        if not isinstance(error, PortmapdError):
            self._runtime.log_failure("connecting failed")
        for waiting in self._take_waiting():
            waiting.set_exception(copy_of(error) if isinstance(error, PortmapdError) else error)
        self._try_later()

    def _take_waiting(self) -> list[Future[AsyncConnection]]:
        taken, self._waiting = self._waiting, []
        return [waiting for waiting in taken if not waiting.done()]

    # The end of a connection

    def _broken(self, connection: AsyncConnection) -> None:
        self._open.discard(connection)
        if self._connection is connection:
            self._connection = None
        if connection.is_inherited:
            self.registrations.clear()
        if not self._open:
            closing, self._closing = self._closing, []
            for waiting in closing:
                waiting.set_result(None)
        self._try_later()

    def _try_later(self) -> None:
        """Connect again after a while if anything needs a connection."""
        idle = self._connection is None and self._attempt is None and self._retry is None
        if idle and not self.is_closed and (self.registrations or self._watchers):
            self._retry = self._runtime.call_later(next(self._waits), self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self._connection is None:
            self._begin()

    def abandon(self) -> None:
        """Close the connection, and forget everything that was registered through it.

        Operations that wait for a connection get another one.
        """
        self.registrations.clear()
        self._drop(self._interrupted())
        if any(not waiting.done() for waiting in self._waiting):
            self._begin()
        self._try_later()

    def _drop(self, why: DaemonUnreachable) -> None:
        connection, self._connection = self._connection, None
        attempt, self._attempt = self._attempt, None
        if attempt is not None and attempt.work is not None:
            attempt.work.cancel()
        if connection is not None:
            connection.close(why)

    def close(self) -> Future[None]:
        """Close it for good.

        :return: has a result once everything is closed.
        """
        self.is_closed = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.registrations.clear()
        self._drop(self.closed())
        for waiting in self._take_waiting():
            waiting.set_exception(self.closed())
        done: Future[None] = self._runtime.future()
        if self._open:
            self._closing.append(done)
        else:
            done.set_result(None)
        return done
