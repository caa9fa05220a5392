"""The changes that a blocking program watches; no Twisted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from portmapd.client.exchange import Exchange
from portmapd.client.patience import Patience, Terminator
from portmapd.client.values import Change, RpcMapping, Service
from portmapd.client.watching import View

T = TypeVar("T", Service, RpcMapping)

#: The wait before the first attempt to connect again, in seconds; it doubles up to the longest.
FIRST_WAIT = 0.05
LONGEST_WAIT = 2.0


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
        #: What happened to each kind while it is listed.
        self._during: dict[type, list[Change]] = {}
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
