"""The connection of a blocking client, which its threads share. Internal."""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

from portmapd.client.blocking.connection import Dialer, SyncConnection, run
from portmapd.client.blocking.deadline import CloseEvent, Deadline
from portmapd.client.core.connecting import waits
from portmapd.client.core.operations import restore
from portmapd.client.core.registrations import Group, Lost, Refused, Registrations
from portmapd.client.values import Terminator
from portmapd.errors import (
    CallTimedOut,
    ClientClosed,
    DaemonUnreachable,
    PortmapdError,
    Terminated,
)

if TYPE_CHECKING:
    from logging import Logger

T = TypeVar("T")

#: How often a terminator is looked at while another thread's operation is waited for, in seconds.
TURN = 0.05


class SyncSession(Dialer):
    """One operation: it has the connection while it asks, and a deadline.

    :ivar registrations: what is registered through its connection.
    """

    def __init__(self, shared: SharedConnection, deadline: Deadline) -> None:
        super().__init__(deadline)
        self._shared = shared
        self._deadline = deadline
        self.registrations = Registrations()

    @property
    def remote_hosts(self) -> Sequence[str] | None:
        """Where the services are; None: on this machine."""
        return self._shared.remote_hosts

    @asynccontextmanager
    async def connected(self, changes: bool = False) -> AsyncIterator[SyncConnection]:
        """Give the block the connection, once no other thread has it."""
        refused: list[Refused] = []
        try:
            with self._shared.locked(self._deadline):
                connection, self.registrations = await self._shared.open(self._deadline, refused)
                yield connection
        finally:
            # The application's code may use the client, and wait for other threads that do.
            self._shared.report(refused)


class SharedConnection:
    """One client's connection to the daemon; any thread may use it, one at a time.

    :param path: the daemon's socket.
    :param timeout: how long an operation may take, in seconds; None: without a limit.
    :param lost: is told what could not be registered again; None: the log of the logging module.
    :ivar dialer: makes what connects within a deadline.
    """

    #: Services are on this machine.
    remote_hosts: Sequence[str] | None = None

    def __init__(self, path: str, timeout: float | None, lost: Lost | None) -> None:
        self.path = path
        self.timeout = timeout
        self.dialer: Callable[[Deadline], Dialer] = Dialer
        self._report_lost = lost
        self._close_event = CloseEvent(path)
        self._pid = os.getpid()
        self._connection: SyncConnection | None = None
        self._registrations = Registrations()
        self._make_locks()

    def _make_locks(self) -> None:
        # Reentrant: a signal handler may close the client in the middle of an operation.
        #: Is held for as long as an operation has the connection.
        self._lock = RLock()
        #: Is held for a moment: the registrations are those of this very connection.
        self._pairing = RLock()

    def deadline(self, timeout: float | None, terminator: Terminator | None) -> Deadline:
        """Return the deadline of an operation that begins now; closing the client ends it.

        :raises ClientClosed: the client is closed.
        """
        self._notice_fork()
        self._close_event.check()
        return Deadline(timeout, terminator, self._close_event)

    def run(
        self,
        operation: Callable[[SyncSession], Coroutine[Any, Any, T]],
        terminator: Terminator | None,
    ) -> T:
        """Do *operation*; if it is terminated, everything is abandoned."""
        with self.terminable():
            deadline = self.deadline(self.timeout, terminator)
            return run(operation(SyncSession(self, deadline)))

    @contextmanager
    def terminable(self) -> Iterator[None]:
        """If the block is terminated, abandon everything."""
        try:
            yield
        except Terminated:
            self.abandon()
            raise

    @contextmanager
    def locked(self, deadline: Deadline) -> Iterator[None]:
        """Keep other threads from the connection."""
        lock = self._lock
        while not lock.acquire(timeout=min(max(deadline.left, 0), TURN)):
            deadline.pause(0)
        try:
            yield
        finally:
            lock.release()

    async def open(
        self, deadline: Deadline, refused: list[Refused]
    ) -> tuple[SyncConnection, Registrations]:
        """Return the connection, and what is registered through it; the lock must be held.

        :param refused: gets what could not be registered again.
        :raises DaemonUnreachable: there is no daemon.
        :raises ClientClosed: the client is closed.
        """
        self._close_event.check()
        with self._pairing:
            connection = self._connection
            if connection is not None and connection.is_idle:
                connection.deadline = deadline
                return connection, self._registrations
        self._disconnect()
        connection = await SyncConnection.open(self.path, deadline, dialer=self.dialer)
        with self._pairing:
            self._connection, registrations = connection, self._registrations
        try:
            refused += await restore(connection, registrations)
        except BaseException:
            self._disconnect()
            raise
        for group, _ in refused:
            registrations.discard(group)
        return connection, registrations

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def report(self, refused: Iterable[Refused]) -> None:
        """Tell the application what could not be registered again."""
        for group, why in refused:
            try:
                (self._report_lost or _log)(group, why)
            except Exception:
                _logger().exception("%s failed for %s", self._report_lost, group)

    def hold(self, terminator: Terminator | None) -> None:
        """Connect again whenever the connection breaks, until the client is closed."""
        delays = waits()
        with suppress(ClientClosed), self.terminable():
            deadline = self.deadline(None, terminator)
            while True:
                self._wait_until_broken(terminator, deadline)
                deadline.pause(next(delays))

    def _wait_until_broken(self, terminator: Terminator | None, deadline: Deadline) -> None:
        """Wait while everything is registered; return at once if that cannot be achieved."""
        is_connected = True
        while is_connected:
            try:
                descriptor = self.run(_descriptor, terminator)
            except (DaemonUnreachable, CallTimedOut):
                self._close_event.check()
                return
            try:
                deadline.wait(descriptor, select.POLLIN)
            finally:
                os.close(descriptor)
            # It may have been the answer to another thread's operation.
            with self.locked(deadline):
                is_connected = self._connection is not None and self._connection.is_idle

    def abandon(self) -> None:
        """Close the connection, and forget everything that was registered through it.

        An operation that another thread waits for fails.
        """
        with self._pairing:
            self._registrations = Registrations()
            connection = self._connection
            if connection is not None:
                connection.shut_down()
        # Otherwise the thread that has the connection, or the next one, closes it.
        if self._lock.acquire(blocking=False):
            try:
                if self._connection is connection:
                    self._disconnect()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Close it for good; operations that wait fail at once."""
        self._notice_fork()
        self._close_event.set()
        with self._lock:
            self.abandon()

    def _notice_fork(self) -> None:
        """Leave what was registered before a fork to the process that registered it."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            # The threads that held them may not be in this process.
            self._make_locks()
            if not self._close_event.is_set:
                self._close_event = CloseEvent(self.path)
            self.abandon()


async def _descriptor(session: SyncSession) -> int:
    """Return a duplicate of the connection's descriptor."""
    async with session.connected() as connection:
        return os.dup(connection.fileno())


def _log(group: Group, why: PortmapdError) -> None:
    _logger().warning("%s could not be registered again: %s", group, why)


def _logger() -> Logger:
    # It takes long to import, and few programs need it.
    import logging

    return logging.getLogger("portmapd")
