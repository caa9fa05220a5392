"""A connection of the client's core to a daemon in memory; nothing waits."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from portmapd.channel import commands as c
from portmapd.client.core.registrations import Registrations
from tests.support.channel_sessions import Connection

T = TypeVar("T")


class MemoryConnection:
    """Asks a session of the daemon itself.

    :param session: the daemon's end.
    :param before: is called before each command, with its name: the world may change then.
    :ivar asked: the names of the commands.
    :ivar slept: the seconds of each wait.
    """

    def __init__(
        self, session: Connection, before: Callable[[str], object] = lambda name: None
    ) -> None:
        self.session = session
        self.asked: list[str] = []
        self.slept: list[float] = []
        self._before = before

    async def ask(self, command: c.Command, values: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a command."""
        self._before(command.name)
        self.asked.append(command.name)
        return self.session.ask(command, **values)

    async def sleep(self, seconds: float) -> None:
        """Wait for no time at all."""
        self.slept.append(seconds)
        self._before("sleep")

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do one thing after the other."""
        return [await one for one in work]

    def check(self) -> None:
        """It never ends."""


class MemorySession:
    """What operations need of a client; its connection is always there.

    :ivar changes: for each operation, whether it said that it changes what is registered.
    """

    remote_hosts: Sequence[str] | None = None

    def __init__(self, connection: MemoryConnection) -> None:
        self.registrations = Registrations()
        self.changes: list[bool] = []
        self._connection = connection

    @asynccontextmanager
    async def connected(self, changes: bool = False) -> AsyncIterator[MemoryConnection]:
        """Give the connection."""
        self.changes.append(changes)
        yield self._connection
