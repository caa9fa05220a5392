"""The changes that a blocking program watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from portmapd.client.blocking.connection import SyncConnection, run
from portmapd.client.blocking.session import SharedConnection
from portmapd.client.core.connecting import waits
from portmapd.client.core.watch_state import WatchState
from portmapd.client.core.watches import CLUSTER, LOCAL, Commands, Watches
from portmapd.client.values import Change, Terminator
from portmapd.errors import ClientClosed, DaemonUnreachable, Terminated

__all__ = ["CLUSTER", "LOCAL", "Changes"]


class Changes(Iterator[Change]):
    """An iterator of changes, beginning with what is registered; ``next`` waits for one.

    It has a connection of its own. If the daemon left changes out because they were not read in
    time, or was restarted, the difference to what is registered then comes. A program that catches
    :exc:`~portmapd.errors.DaemonUnreachable` may go on with it later. When it is closed, or the
    client is, by another thread too, it ends after the changes that came already. It is a context
    manager, which closes it.

    :param shared: the client's connection; everything of it is abandoned if the watch is
        terminated.
    :param names: the names whose services are watched; empty: all, and the RPC mappings.
    :param terminator: ends it by becoming readable; None: nothing does.
    :param commands: how the daemon is asked.
    :raises DaemonUnreachable: there is no daemon.
    :raises ClientClosed: the client is closed.
    """

    def __init__(
        self,
        shared: SharedConnection,
        names: Iterable[str],
        terminator: Terminator | None,
        commands: Commands = LOCAL,
    ) -> None:
        self._shared = shared
        self._state = WatchState(frozenset(names))
        self._watches = Watches(self._state, commands=commands)
        self._terminator = terminator
        self._connection: SyncConnection | None = None
        self._is_closed = False
        try:
            self._begin()
        except Terminated:
            self._terminated()
            raise

    def __next__(self) -> Change:
        changes = self._state.changes
        try:
            while not changes and not self._is_closed:
                self._follow()
        except ClientClosed:
            self._is_closed = True
        except Terminated:
            self._terminated()
            raise
        if not changes:
            # It may have connected again while another thread closed it.
            self._disconnect()
            raise StopIteration
        return changes.popleft()

    def _follow(self) -> None:
        """Wait for an event; begin again if the connection broke."""
        connection = self._connection
        if connection is None or not connection.is_own:
            return self._begin_again()
        try:
            if self._watches.is_stale:
                connection.deadline = self._shared.deadline(self._shared.timeout, self._terminator)
                run(self._watches.synchronise(connection))
            else:
                connection.deadline = self._shared.deadline(None, self._terminator)
                connection.listen()
        except ClientClosed:
            raise
        except DaemonUnreachable:
            # The connection is closed, which the next turn sees.
            pass
        return None

    def _begin_again(self) -> None:
        deadline = self._shared.deadline(self._shared.timeout, self._terminator)
        for wait in waits():
            try:
                return self._begin()
            except ClientClosed:
                raise
            except DaemonUnreachable:
                if deadline.left <= wait:
                    raise
                deadline.pause(wait)
        return None

    def _begin(self) -> None:
        self._disconnect()
        deadline = self._shared.deadline(self._shared.timeout, self._terminator)
        connection = run(SyncConnection.open(self._shared.path, deadline, self._watches.take))
        try:
            run(self._watches.synchronise(connection))
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        """Watch no longer: it ends after the changes that came already."""
        self._is_closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _terminated(self) -> None:
        self.close()
        self._shared.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
