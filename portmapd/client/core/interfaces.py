"""What the core needs of a client: its connection, its session, and its reactor or event loop.

They exist for type checkers only: nothing imports them when it runs, for that takes time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from portmapd.channel import commands as c
from portmapd.client.core.async_connection import AsyncConnection
from portmapd.client.core.connecting import Target
from portmapd.client.core.registrations import Group, Registrations
from portmapd.client.values import Terminator
from portmapd.errors import PortmapdError

T = TypeVar("T")


class Connection(Protocol):
    """What operations need of a connection."""

    async def ask(self, command: c.Command, values: Mapping[str, Any]) -> dict[str, Any]:
        """Ask *command* with these arguments, and return its answer by name.

        :raises Refusal: the daemon refuses.
        :raises BadArguments: an argument cannot be encoded; nothing is sent.
        :raises DaemonUnreachable: the connection broke before the answer came.
        """

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do several things, at once if possible, and return their results in order."""

    def check(self) -> None:
        """Raise :exc:`~portmapd.errors.DaemonUnreachable` if the connection has ended."""


class Session(Protocol):
    """What operations need of a client.

    :ivar registrations: what is registered through it.
    :ivar remote_hosts: the addresses of the machine where services are; None: they are on this one.
    """

    @property
    def registrations(self) -> Registrations: ...

    @property
    def remote_hosts(self) -> Sequence[str] | None: ...

    def connected(self, changes: bool = False) -> AbstractAsyncContextManager[Connection]:
        """Give the block a connection on which everything is registered.

        :param changes: the block changes what is registered: if it is interrupted, the connection
            is closed, so that nothing is left half done.
        :raises DaemonUnreachable: there is no daemon.
        """


class Stream(Protocol):
    """A stream that was connected; sockets have these methods."""

    def getsockname(self) -> Any:
        """Return its own address."""

    def getpeername(self) -> Any:
        """Return the address of its peer."""

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Return an option of its socket."""

    def close(self) -> object:
        """Close it."""


S_co = TypeVar("S_co", bound=Stream, covariant=True)


class Dialer(Protocol[S_co]):
    """Makes connections.

    :ivar left: the seconds that are left for all of them; infinity without a limit.
    """

    @property
    def left(self) -> float: ...

    async def dial(self, target: Target, seconds: float) -> S_co:
        """Connect to *target* within so many seconds.

        :raises OSError: it cannot be connected to; ``EAGAIN``: the queue of a UNIX socket is full.
        :raises CallTimedOut: it took too long.
        """

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def time(self) -> float:
        """Return the seconds of a clock."""


S = TypeVar("S", bound=Stream)


class RemoteDialer(Dialer[S], Protocol[S]):
    """Makes connections to other machines."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host.

        :raises OSError: it has none.
        :raises CallTimedOut: it took too long.
        """

    async def exchange(self, stream: S, request: bytes, limit: int, seconds: float) -> bytes:
        """Send *request*, and return what comes until the peer closes the stream.

        :param limit: the most bytes that may come.
        :raises OSError: the stream broke, or more came.
        :raises CallTimedOut: it took longer than so many seconds.
        """


class Future(Protocol[T]):
    """A result that is awaited; ``asyncio.Future`` has these methods."""

    def done(self) -> bool:
        """Is there a result, or was it cancelled?"""

    def set_result(self, result: T, /) -> None:
        """Give it its result."""

    def set_exception(self, error: BaseException, /) -> None:
        """Have it raise *error*."""

    def __await__(self) -> Generator[Any, Any, T]: ...


class Cancellable(Protocol):
    """A delayed call, or work under way."""

    def cancel(self) -> object:
        """End it."""


class Transport(Protocol):
    """Where a connection's bytes go; ``asyncio.Transport`` has these methods."""

    def write(self, data: bytes, /) -> None:
        """Send *data*, without waiting for that."""

    def abort(self) -> None:
        """Close it at once; its protocol is told later."""


class Runtime(RemoteDialer[S], Protocol[S]):
    """A reactor or an event loop."""

    def future(self) -> Future[Any]:
        """Make a future."""

    def call_later(self, seconds: float, call: Callable[[], object]) -> Cancellable:
        """Have *call* called after so many seconds."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> Cancellable:
        """Begin *work*, which handles its own errors."""

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do several things at once; if one raises an error, raise it."""

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Do *work*.

        :raises CallTimedOut: it took longer than so many seconds.
        """

    async def attach(self, stream: S, connection: AsyncConnection) -> None:
        """Give the bytes of *stream* to *connection*, and tell it of its transport."""

    def when_readable(self, terminator: Terminator, call: Callable[[], object]) -> Cancellable:
        """Have *call* called once the terminator is readable.

        :raises BadArguments: it is not an open descriptor.
        """

    def log_lost(self, group: Group, why: PortmapdError) -> None:
        """Log that *group* could not be registered again."""

    def log_failure(self, what: str) -> None:
        """Log the exception that is being handled."""
