"""The changes that a blocking program watches; no Twisted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from portmapd.channel import commands as c
from portmapd.channel.box import Box
from portmapd.client.census import Census
from portmapd.client.exchange import Exchange
from portmapd.client.holding import Holding
from portmapd.client.operating import Operation
from portmapd.client.patience import Patience, Terminator, waits
from portmapd.client.standing import Standing
from portmapd.client.values import Change, Service, change_of, mapping_of, service_of
from portmapd.client.watching import Subject, View
from portmapd.errors import ClientClosed, DaemonUnreachable, Terminated


class Changes(Iterator[Change]):
    """An iterator of changes, from what is registered now on; ``next`` waits for one.

    It has a connection of its own. What the daemon left out for a reader who is slow, or while it
    was restarted, comes as the difference to what is registered then. A program that catches
    :exc:`~portmapd.errors.DaemonUnreachable` may go on with it later. When it is closed, or the
    client is, by another thread too, it ends after the changes that came already. It is a context
    manager, which closes it.

    :param holding: the client's; it is abandoned if the watching is terminated.
    :param names: the names whose services are watched; empty: all, and the RPC mappings.
    :param timeout: how long, in seconds, a daemon that is gone is waited for, and one that is
        there may take to list what is registered; None: for ever.
    :param terminator: ends it by becoming readable.
    :raises DaemonUnreachable: there is no daemon.
    :raises ClientClosed: the client is closed.
    """

    def __init__(
        self,
        holding: Holding,
        names: Iterable[str],
        timeout: float | None,
        terminator: Terminator | None,
    ) -> None:
        self._holding = holding
        self._view = View(frozenset(names))
        self._timeout = timeout
        self._terminator = terminator
        self._exchange: Exchange | None = None
        self._is_closed = False
        self._overflowed = False
        #: While everything is listed: the count of the services, and what happened to mappings.
        self._census: Census | None = None
        self._mapped: list[Change] = []
        with self._until_terminated():
            self._begin(self._patience(timeout))

    def __next__(self) -> Change:
        changes = self._view.changes
        with self._until_terminated():
            try:
                while not changes and not self._is_closed:
                    self._follow()
            except ClientClosed:
                self._is_closed = True
        if not changes:
            # It may have connected again while another thread closed it.
            self._disconnect()
            raise StopIteration
        return changes.popleft()

    def close(self) -> None:
        """Watch no more: it ends after the changes that came already."""
        self._is_closed = True
        self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _until_terminated(self) -> Iterator[None]:
        try:
            yield
        except Terminated:
            self.close()
            self._holding.abandon()
            raise

    def _patience(self, timeout: float | None) -> Patience:
        return self._holding.patience(timeout, self._terminator)

    def _disconnect(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _follow(self) -> None:
        """Wait for what comes next; begin again if the connection broke."""
        exchange = self._exchange
        if exchange is None or not exchange.is_ours:
            return self._begin_again()
        try:
            if self._overflowed:
                self._list(_operation(exchange, self._patience(self._timeout)))
            else:
                exchange.listen(self._patience(None))
        except ClientClosed:
            raise
        except DaemonUnreachable:
            # It is closed, which the next turn sees.
            pass
        return None

    def _begin_again(self) -> None:
        patience = self._patience(self._timeout)
        for wait in waits():
            try:
                return self._begin(patience)
            except DaemonUnreachable:
                if patience.left <= wait:
                    raise
                patience.pause(wait)
        return None

    def _begin(self, patience: Patience) -> None:
        self._disconnect()
        exchange = Exchange(self._holding.path, patience, self._event)
        operation = _operation(exchange, patience)
        try:
            operation.ask(c.WATCH, {"names": self._names})
            self._list(operation)
        except BaseException:
            exchange.close()
            raise
        self._exchange = exchange

    @property
    def _names(self) -> list[str] | None:
        return sorted(self._view.names) or None

    def _list(self, operation: Operation) -> None:
        """Bring the view up to date."""
        self._overflowed = False
        self._census, self._mapped = Census(), []
        try:
            subjects = self._subjects(operation, self._census)
        finally:
            self._census = None
        self._view.listed(subjects, self._mapped)

    def _subjects(self, operation: Operation, census: Census) -> list[Subject]:
        """Everything that is watched, from now on."""
        mappings: list[Subject] = []
        if not self._names:
            for page in operation.pages(c.LIST_MAPPINGS, "mappings", {}, mapping_of):
                mappings += page
        _count(operation, census, {"names": self._names})
        while census.unsure:
            _count(operation, census, census.again())
        return [*mappings, *census.counts.elements()]

    def _event(self, box: Box) -> None:
        """The daemon sent *box*."""
        if box.get(c.COMMAND) == c.OVERFLOW:
            self._overflowed = True
        elif box.get(c.COMMAND) == c.EVENT:
            self._happened(change_of(box))

    def _happened(self, change: Change) -> None:
        if self._census is None:
            self._view.happened(change)
        elif isinstance(change.subject, Service):
            self._census.happened(change)
        else:
            self._mapped.append(change)


def _operation(exchange: Exchange, patience: Patience) -> Operation:
    """An operation on a connection through which nothing is registered."""
    return Operation(exchange, patience, Standing())


def _count(operation: Operation, census: Census, wanted: Mapping[str, Any]) -> None:
    """List services for *census*."""
    services: list[Service] = []
    for page in operation.pages(c.LIST, "services", wanted, service_of):
        census.first()
        services += page
    census.listed(services)
