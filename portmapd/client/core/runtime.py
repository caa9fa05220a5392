"""What an asynchronous client needs of its reactor or event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from portmapd.client.core.connecting import Dialer, Stream
from portmapd.client.core.registrations import Group
from portmapd.client.values import Terminator
from portmapd.errors import PortmapdError

if TYPE_CHECKING:
    from portmapd.client.core.async_connection import AsyncConnection

T = TypeVar("T")
S = TypeVar("S", bound=Stream)


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


class Runtime(Dialer[S], Protocol[S]):
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

        :raises BadArguments: it is no open descriptor.
        """

    def log_lost(self, group: Group, why: PortmapdError) -> None:
        """Log that *group* could not be registered again."""

    def log_failure(self, what: str) -> None:
        """Log the exception that is being handled."""
