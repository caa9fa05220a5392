"""The changes that a blocking program watches; no Twisted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from portmapd.channel import command as c
from portmapd.channel.box import Box
from portmapd.client.exchange import Exchange
from portmapd.client.holding import Operation
from portmapd.client.patience import Patience, Terminator, waits
from portmapd.client.values import Change, RpcMapping, Service, change_of, mapping_of, service_of
from portmapd.client.watching import Subject, View
from portmapd.errors import DaemonUnreachable, Terminated


class Changes(Iterator[Change]):
    """An iterator of changes, from what is registered now on; ``next`` waits for one.

    It has a connection of its own. What the daemon left out for a reader who is slow, or while it
    was restarted, comes as the difference to what is registered then. A program that catches
    :exc:`~portmapd.errors.DaemonUnreachable` may go on with it later. It is a context manager,
    which closes it.

    :param path: the daemon's socket.
    :param names: the names whose services are watched; empty: all, and the RPC mappings.
    :param timeout: how long, in seconds, a daemon that is gone is waited for, and one that is
        there may take to list what is registered; None: for ever.
    :param terminator: ends it by becoming readable.
    :param terminated: is called then.
    :raises DaemonUnreachable: there is no daemon.
    """

    def __init__(
        self,
        path: str,
        names: Iterable[str],
        timeout: float | None,
        terminator: Terminator | None,
        terminated: Callable[[], object],
    ) -> None:
        self._path = path
        self._view = View(frozenset(names))
        self._timeout = timeout
        self._terminator = terminator
        self._terminated = terminated
        self._exchange: Exchange | None = None
        self._is_closed = False
        self._overflowed = False
        #: What happened to each kind while it is listed; None while it is not.
        self._during: dict[type, list[Change]] | None = None
        with self._until_terminated():
            self._begin(Patience(timeout, terminator))

    def __next__(self) -> Change:
        changes = self._view.changes
        with self._until_terminated():
            while not changes and not self._is_closed:
                self._follow()
        if not changes:
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
            self._terminated()
            raise

    def _disconnect(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    def _follow(self) -> None:
        """Wait for what comes next; begin again if the connection broke."""
        exchange = self._exchange
        if exchange is None or not exchange.is_ours:
            return self._begin_again()
        # If it breaks it is closed, which the next turn sees.
        with suppress(DaemonUnreachable):
            if self._overflowed:
                self._list(Operation(exchange, Patience(self._timeout, self._terminator)))
            else:
                exchange.listen(Patience(None, self._terminator))
        return None

    def _begin_again(self) -> None:
        patience = Patience(self._timeout, self._terminator)
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
        operation = Operation(Exchange(self._path, patience, self._event), patience)
        try:
            operation.ask(c.WATCH, {"names": self._names})
            self._list(operation)
        except BaseException:
            operation.exchange.close()
            raise
        self._exchange = operation.exchange

    @property
    def _names(self) -> list[str] | None:
        return sorted(self._view.names) or None

    def _list(self, operation: Operation) -> None:
        """Bring the view up to date."""
        self._overflowed = False
        self._during = {Service: [], RpcMapping: []}
        try:
            subjects = self._services(operation)
            if not self._names:
                subjects += self._mappings(operation)
        finally:
            during, self._during = self._during, None
        self._view.listed(subjects, [change for kind in during.values() for change in kind])

    def _services(self, operation: Operation) -> list[Subject]:
        wanted = {"names": self._names}
        return self._all(Service, operation.pages(c.LIST, "services", wanted, service_of))

    def _mappings(self, operation: Operation) -> list[Subject]:
        pages = operation.pages(c.LIST_MAPPINGS, "mappings", {}, mapping_of)
        return self._all(RpcMapping, pages)

    def _all(self, kind: type, pages: Iterator[Sequence[Subject]]) -> list[Subject]:
        """Everything on *pages*; what happened before the first came is on them."""
        first = next(pages)
        if self._during is not None:
            self._during[kind].clear()
        return [*first, *(subject for page in pages for subject in page)]

    def _event(self, box: Box) -> None:
        """The daemon sent *box*."""
        if box.get(c.COMMAND) == c.OVERFLOW:
            self._overflowed = True
        elif box.get(c.COMMAND) == c.EVENT:
            change = change_of(box)
            if self._during is None:
                self._view.happened(change)
            else:
                self._during[type(change.subject)].append(change)
