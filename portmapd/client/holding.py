"""What stands through one blocking client, and its connection, made again when it broke."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING

from portmapd.client.exchange import Exchange
from portmapd.client.operating import Operation
from portmapd.client.patience import Closing, Patience, Terminator, waits
from portmapd.client.standing import Group, Lost, Refused, Standing
from portmapd.errors import (
    CallTimedOut,
    ClientClosed,
    DaemonUnreachable,
    PortmapdError,
    Terminated,
)

if TYPE_CHECKING:
    from logging import Logger

#: How often a terminator is looked at while another thread's operation is waited for, in seconds.
TURN = 0.05


class Holding:
    """One client's hold on the daemon; any thread may use it, one at a time.

    :param path: the daemon's socket.
    :param lost: is told what could not be restored; None: the log of the logging module is.
    """

    def __init__(self, path: str, lost: Lost | None) -> None:
        self.path = path
        self._lost = lost
        self._closing = Closing(path)
        self._pid = os.getpid()
        self._exchange: Exchange | None = None
        self._standing = Standing()
        self._make_locks()

    def _make_locks(self) -> None:
        # A signal handler may close the client in the middle of an operation.
        #: Is held for as long as an operation has the connection.
        self._lock = RLock()
        #: Is held for a moment: what stands is what stands on this very connection.
        self._pairing = RLock()

    def patience(self, timeout: float | None, terminator: Terminator | None) -> Patience:
        """The time of an operation that begins now; closing the client ends it.

        :raises ClientClosed: it was closed for good.
        """
        self._notice_fork()
        self._closing.check()
        return Patience(timeout, terminator, self._closing)

    @contextmanager
    def waiting(self, timeout: float | None, terminator: Terminator | None) -> Iterator[Patience]:
        """Give the block its time; if it is terminated, everything is abandoned."""
        patience = self.patience(timeout, terminator)
        try:
            yield patience
        except Terminated:
            self.abandon()
            raise

    @contextmanager
    def asking(self, patience: Patience) -> Iterator[Operation]:
        """Give the block a connection on which everything stands, once no other thread has it.

        :raises DaemonUnreachable: there is no daemon.
        :raises ClientClosed: it was closed for good.
        """
        refused: list[Refused] = []
        try:
            with self._locked(patience):
                yield self._connected(patience, refused)
        finally:
            # The application's code may use the client, and wait for other threads that do.
            self._report(refused)

    @contextmanager
    def operation(
        self, timeout: float | None, terminator: Terminator | None
    ) -> Iterator[Operation]:
        """Both :meth:`waiting` and :meth:`asking`."""
        with self.waiting(timeout, terminator) as patience, self.asking(patience) as operation:
            yield operation

    def hold(self, timeout: float | None, terminator: Terminator | None) -> None:
        """Connect again whenever the connection breaks, until it is closed for good.

        :param timeout: how long one attempt may take, in seconds.
        """
        delays = waits()
        with suppress(ClientClosed), self.waiting(None, terminator) as patience:
            while True:
                self._wait_until_broken(timeout, terminator, patience)
                patience.pause(next(delays))

    def _wait_until_broken(
        self, timeout: float | None, terminator: Terminator | None, patience: Patience
    ) -> None:
        """Wait while everything stands; return at once if it cannot be made to."""
        standing = True
        while standing:
            try:
                with self.operation(timeout, terminator) as operation:
                    descriptor = os.dup(operation.exchange.fileno())
            except (DaemonUnreachable, CallTimedOut):
                return
            try:
                patience.wait(descriptor, select.POLLIN)
            finally:
                os.close(descriptor)
            # It may have been the answer to another thread's operation.
            with self._locked(patience):
                standing = self._exchange is not None and self._exchange.stands

    def abandon(self) -> None:
        """Close the connection: nothing that was registered through it stands any more.

        An operation that another thread waits for fails.
        """
        with self._pairing:
            self._standing = Standing()
            exchange = self._exchange
            if exchange is not None:
                exchange.shut_down()
        # Otherwise the thread that has the connection, or the next one, closes it.
        if self._lock.acquire(blocking=False):
            try:
                if self._exchange is exchange:
                    self._disconnect()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Close it for good; operations that wait fail at once."""
        self._notice_fork()
        self._closing.close()
        with self._lock:
            self.abandon()

    def _notice_fork(self) -> None:
        """Leave what was registered before a fork to the process that registered it."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            # The threads that held them may not be in this process.
            self._make_locks()
            if not self._closing.is_closed:
                self._closing = Closing(self.path)
            self.abandon()

    @contextmanager
    def _locked(self, patience: Patience) -> Iterator[None]:
        lock = self._lock
        while not lock.acquire(timeout=min(max(patience.left, 0), TURN)):
            patience.pause(0)
        try:
            yield
        finally:
            lock.release()

    def _disconnect(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _connected(self, patience: Patience, refused: list[Refused]) -> Operation:
        """An operation on a connection on which everything stands.

        :param refused: gets what is refused for good when it is registered again.
        """
        self._closing.check()
        with self._pairing:
            if self._exchange is not None and self._exchange.stands:
                return Operation(self._exchange, patience, self._standing)
        self._disconnect()
        exchange = Exchange(self.path, patience)
        with self._pairing:
            self._exchange = exchange
            operation = Operation(exchange, patience, self._standing)
        try:
            refused += operation.restore()
        except BaseException:
            self._disconnect()
            raise
        return operation

    def _report(self, refused: Iterable[Refused]) -> None:
        for group, why in refused:
            try:
                (self._lost or _log)(group, why)
            except Exception:
                _logger().exception("%s failed for %s", self._lost, group)


def _log(group: Group, why: PortmapdError) -> None:
    _logger().warning("%s could not be registered again: %s", group, why)


def _logger() -> Logger:
    # Few programs come here, and it takes long to import.
    import logging

    return logging.getLogger("portmapd")
