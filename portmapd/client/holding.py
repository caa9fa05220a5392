"""What stands through one blocking client, and its connection, made again when it broke."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from portmapd.channel import command as c
from portmapd.client.exchange import Exchange
from portmapd.client.patience import Patience, Terminator, waits
from portmapd.client.standing import (
    PASSING,
    RETRIES,
    RETRY_WAIT,
    Group,
    Lost,
    Refused,
    Standing,
)
from portmapd.errors import (
    CallTimedOut,
    ClientClosed,
    DaemonUnreachable,
    NotRegistered,
    PortmapdError,
    Refusal,
    Terminated,
)

if TYPE_CHECKING:
    from portmapd.client.registration import MappingFields

T = TypeVar("T")


class Operation(NamedTuple):
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
        """Register *group*, all or nothing.

        :raises Refusal: the daemon refuses; nothing of it is registered.
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

    def unset(self, mappings: Sequence[MappingFields]) -> None:
        """Unset *mappings*, each of which the superuser may have unset already."""
        for mapping in mappings:
            with suppress(NotRegistered):
                self.ask(c.UNSET_MAPPINGS, {"mappings": [mapping]})

    def restore(self, groups: Iterable[Group]) -> list[Refused]:
        """Register *groups*, each all or nothing, on a new connection.

        :return: the groups that are refused for good.
        """
        refused = self._register_each(groups)
        for _ in range(RETRIES):
            again = [group for group, why in refused if isinstance(why, PASSING)]
            if not again:
                break
            self.patience.pause(RETRY_WAIT)
            for_good = [(group, why) for group, why in refused if not isinstance(why, PASSING)]
            refused = for_good + self._register_each(again)
        return refused

    def _register_each(self, groups: Iterable[Group]) -> list[Refused]:
        refused = []
        for group in groups:
            try:
                self.register(group)
            except Refusal as refusal:
                refused.append((group, refusal))
        return refused


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

        :raises DaemonUnreachable: there is no daemon.
        :raises ClientClosed: it was closed for good.
        """
        self._notice_fork()
        with self._lock:
            patience = Patience(timeout, terminator)
            try:
                yield self._connected(patience)
            except Terminated:
                self.abandon()
                raise

    def hold(self, timeout: float | None, terminator: Terminator | None) -> None:
        """Connect again whenever the connection breaks, until it is closed for good.

        :param timeout: how long one attempt may take, in seconds.
        """
        patience = Patience(None, terminator)
        delays = waits()
        try:
            while not self._is_closed:
                self._wait_until_broken(timeout, terminator, patience)
                if not self._is_closed:
                    patience.pause(next(delays))
        except Terminated:
            self.abandon()
            raise

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
            with self._lock:
                standing = self._exchange is not None and self._exchange.stands

    def abandon(self) -> None:
        """Close the connection: nothing that was registered through it stands any more."""
        with self._lock:
            self.standing.clear()
            self._disconnect()

    def check_open(self) -> None:
        """Raise :exc:`~portmapd.errors.ClientClosed` if it was closed for good."""
        if self._is_closed:
            raise ClientClosed(f"the client of {self.path} is closed; make another Portmapper")

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
        self.check_open()
        if self._exchange is not None and self._exchange.stands:
            return Operation(self._exchange, patience)
        self._disconnect()
        operation = Operation(Exchange(self.path, patience), patience)
        try:
            refused = operation.restore(self.standing)
        except BaseException:
            operation.exchange.close()
            raise
        self._exchange = operation.exchange
        self._report(refused)
        return operation

    def _report(self, refused: Sequence[Refused]) -> None:
        for group, _ in refused:
            self.standing.discard(group)
        for group, why in refused:
            (self._lost or _log)(group, why)


def _log(group: Group, why: PortmapdError) -> None:
    # Few programs come here, and it takes long to import.
    import logging

    logging.getLogger("portmapd").warning("%s could not be registered again: %s", group, why)
