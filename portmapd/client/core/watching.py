"""The watchers of an asynchronous client, which share its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from portmapd.channel import commands as c
from portmapd.client.core.async_connection import AsyncConnection, copy_of
from portmapd.client.core.channel_protocol import Overflow
from portmapd.client.core.watch_state import WatchState
from portmapd.client.core.watches import CLUSTER, LOCAL, Commands, Watches
from portmapd.client.values import Change, ClusterMapping, ClusterService
from portmapd.errors import DaemonUnreachable, InternalError, PortmapdError

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Future, Runtime


class AsyncChanges(AsyncIterator[Change]):
    """An asynchronous iterator of changes, beginning with what is registered.

    It goes on over restarts of the daemon, until it is closed.
    """

    def __init__(
        self,
        future: Callable[[], Future[None]],
        state: WatchState,
        closed: Callable[[AsyncChanges], object],
    ) -> None:
        self.state = state
        self._future = future
        self._closed = closed
        self._waiting: Future[None] | None = None
        self._is_closed = False
        self._error: PortmapdError | None = None

    def __aiter__(self) -> AsyncChanges:
        return self

    async def __anext__(self) -> Change:
        """Wait for the next change.

        :raises PortmapdError: the daemon refuses to be watched.
        :raises RuntimeError: something else waits for the next change already.
        """
        while not self.state.changes:
            if self._error is not None:
                raise self._error
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiting is not None:
                raise RuntimeError("something else waits for the next change already")
            self._waiting = self._future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self.state.changes.popleft()

    def wake(self) -> None:
        """Wake what waits, if there are changes, or there is the end."""
        waiting = self._waiting
        if waiting is not None and not waiting.done() and (self.state.changes or self._is_closed):
            waiting.set_result(None)

    def close(self) -> None:
        """Watch no longer: the iteration ends after the changes that came already."""
        if not self._is_closed:
            self._is_closed = True
            self._closed(self)
            self.wake()

    def fail(self, error: PortmapdError) -> None:
        """Watch no longer; the iteration raises *error* after the changes that came already."""
        self._error = error
        self.close()


class Watchers:
    """Every watcher of one client, of this machine or of the cluster.

    :param commands: how the daemon is asked.
    """

    def __init__(self, runtime: Runtime[Any], commands: Commands = LOCAL) -> None:
        self._runtime = runtime
        self._changes: list[AsyncChanges] = []
        self._watches = Watches(commands=commands)
        self._connection: AsyncConnection | None = None
        self._is_running = False

    def __bool__(self) -> bool:
        return bool(self._changes)

    def watch(self, names: frozenset[str]) -> AsyncChanges:
        """Watch *names*, or everything if they are empty, once there is a connection."""
        changes = AsyncChanges(self._runtime.future, WatchState(names), self._discard)
        self._changes.append(changes)
        self._watches.add(changes.state)
        return changes

    def _discard(self, changes: AsyncChanges) -> None:
        self._changes = [one for one in self._changes if one is not changes]
        self._watches.discard(changes.state)
        if not self._changes and self._connection is not None:
            self._runtime.spawn(_unwatch(self._connection, self._watches.commands.unwatch))

    def close(self) -> None:
        """End every iteration."""
        self._connection = None
        for changes in tuple(self._changes):
            changes.close()

    def begin(self, connection: AsyncConnection) -> None:
        """Watch what was added, unless that began with the connection."""
        if self._watches.is_stale:
            self.resume(connection)

    def resume(self, connection: AsyncConnection) -> None:
        """Watch on *connection*, and bring every watcher up to date."""
        self._connection = connection
        self._watches.is_stale = True
        if self._changes and not self._is_running:
            self._is_running = True
            self._runtime.spawn(self._synchronise())

    async def _synchronise(self) -> None:
        try:
            while self._watches.is_stale and self._changes and self._connection is not None:
                try:
                    await self._watches.synchronise(self._connection)
                except DaemonUnreachable:
                    # Another connection is made, and resumes.
                    continue
                except PortmapdError as error:
                    self._fail(error)
                self._wake()
        except Exception:
            self._runtime.log_failure("watching failed")
            self._fail(InternalError("watching failed; the log tells how"))
        finally:
            self._is_running = False

    def _fail(self, error: PortmapdError) -> None:
        for changes in tuple(self._changes):
            changes.fail(copy_of(error))

    def _wake(self) -> None:
        for changes in tuple(self._changes):
            changes.wake()

    def take(self, event: Change | Overflow) -> None:
        """Take in what the daemon told."""
        self._watches.take(event)
        if isinstance(event, Overflow) and self._connection is not None:
            self.resume(self._connection)
        self._wake()


async def _unwatch(connection: AsyncConnection, command: c.Command) -> None:
    # A connection that is lost watches nothing either.
    with suppress(PortmapdError):
        await connection.ask(command, {})


class AllWatchers:
    """The watchers of one client: those of this machine, and those of the cluster."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self.local = Watchers(runtime)
        self.cluster = Watchers(runtime, CLUSTER)

    def __bool__(self) -> bool:
        return bool(self.local or self.cluster)

    def resume(self, connection: AsyncConnection) -> None:
        """Watch on *connection*, and bring every watcher up to date."""
        for each in (self.local, self.cluster):
            each.resume(connection)

    def take(self, event: Change | Overflow) -> None:
        """Take in what the daemon told."""
        if isinstance(event, Overflow):
            is_of_cluster = event.of_cluster
        else:
            is_of_cluster = isinstance(event.subject, ClusterService | ClusterMapping)
        (self.cluster if is_of_cluster else self.local).take(event)

    def close(self) -> None:
        """End every iteration."""
        for each in (self.local, self.cluster):
            each.close()
