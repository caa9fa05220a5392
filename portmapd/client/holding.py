"""What stands through one blocking client, and its connection, made again when it broke."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, TypeVar

from attrs import frozen

from portmapd.channel import command as c
from portmapd.client.exchange import Exchange
from portmapd.client.patience import Patience, Terminator
from portmapd.client.standing import Group, Standing
from portmapd.errors import (
    AlreadyRegistered,
    DaemonUnreachable,
    PortmapdError,
    Refusal,
    Terminated,
)

T = TypeVar("T")

#: How often, and after how many seconds, what is taken is tried again: our own broken connection
#: may hold it for a moment longer.
RETRIES = 5
RETRY_WAIT = 0.1

#: Is told of a group that could not be registered again, and why.
Lost = Callable[[Group, PortmapdError], object]


@frozen
class Operation:
    """One operation: its connection, and its time."""

    exchange: Exchange
    patience: Patience

    def ask(self, command: c.Command, values: Mapping[str, Any]) -> Any:
        """Ask *command*; see :meth:`~portmapd.client.exchange.Exchange.ask`."""
        return self.exchange.ask(command, values, self.patience)

    def pages(
        self,
        command: c.Command,
        column: str,
        wanted: Mapping[str, Any],
        make: Callable[[tuple[Any, ...]], T],
    ) -> Iterator[Sequence[T]]:
        """The pages of a listing, each when it comes.

        :param column: what the answer has the rows in.
        :param make: makes a value of a row.
        """
        more: str | None = None
        while True:
            answer = self.ask(command, {**wanted, "after": more})
            yield [make(row) for row in answer[column]]
            more = answer["more"]
            if more is None:
                return

    def register(self, group: Group) -> None:
        """Register *group*, all or nothing; :exc:`~portmapd.errors.Refusal` is raised for nothing.
        """
        if group.services:
            self.ask(c.REGISTER, {"services": group.services})
        if not group.mappings:
            return
        try:
            self.ask(c.SET_MAPPINGS, {"mappings": group.mappings})
        except Refusal:
            if group.services:
                keys = [registration[:2] for registration in group.services]
                self.ask(c.DEREGISTER, {"services": keys})
            raise

    def register_again(self, group: Group) -> None:
        """Register *group*, which a connection that just broke may still hold."""
        for _ in range(RETRIES):
            try:
                return self.register(group)
            except AlreadyRegistered:
                self.patience.pause(RETRY_WAIT)
        return self.register(group)


class Holding:
    """One client's hold on the daemon; any thread may use it, one at a time.

    :param path: the daemon's socket.
    :param lost: is told what could not be restored; None: the log of the logging module is.
    :ivar standing: what is registered.
    """

    def __init__(self, path: str, lost: Lost | None) -> None:
        self.path = path
        self.standing = Standing()
        self._lost = lost
        self._lock = RLock()
        self._exchange: Exchange | None = None
        self._is_closed = False
        self._pid = os.getpid()

    @contextmanager
    def operation(
        self, timeout: float | None, terminator: Terminator | None
    ) -> Iterator[Operation]:
        """Give the block a connection on which everything stands.

        :raises DaemonUnreachable: there is no daemon, or this client is closed.
        """
        self._notice_fork()
        with self._lock:
            patience = Patience(timeout, terminator)
            try:
                yield self._connected(patience)
            except Terminated:
                self.abandon()
                raise

    def duplicate(self) -> int | None:
        """A descriptor that becomes readable when the connection breaks, for the caller to close.

        None: there is no connection.
        """
        with self._lock:
            exchange = self._exchange
            return os.dup(exchange.fileno()) if exchange and exchange.is_ours else None

    @property
    def is_closed(self) -> bool:
        """Was it closed for good?"""
        return self._is_closed

    def abandon(self) -> None:
        """Close the connection: nothing that was registered through it stands any more."""
        with self._lock:
            self.standing.clear()
            self._disconnect()

    def close(self) -> None:
        """Close it for good."""
        self._notice_fork()
        with self._lock:
            self._is_closed = True
            self.abandon()

    def _notice_fork(self) -> None:
        """Leave what was registered before a fork to the process that registered it."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            # The thread that held the old one may not be in this process.
            self._lock = RLock()
            self.abandon()

    def _disconnect(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _connected(self, patience: Patience) -> Operation:
        if self._is_closed:
            raise DaemonUnreachable("this Portmapper is closed; make a new one")
        if self._exchange is not None and self._exchange.stands:
            return Operation(self._exchange, patience)
        self._disconnect()
        operation = Operation(Exchange(self.path, patience), patience)
        try:
            refused = list(self._restore(operation))
        except BaseException:
            operation.exchange.close()
            raise
        self._exchange = operation.exchange
        for group, refusal in refused:
            (self._lost or _log)(group, refusal)
        return operation

    def _restore(self, operation: Operation) -> Iterator[tuple[Group, Refusal]]:
        """Register everything again, and give what the daemon refuses."""
        for group in self.standing:
            try:
                operation.register_again(group)
            except Refusal as refusal:
                self.standing.discard(group)
                yield group, refusal


def _log(group: Group, why: PortmapdError) -> None:
    # Few programs come here, and it takes long to import.
    import logging

    logging.getLogger("portmapd").warning("%s could not be registered again: %s", group, why)
