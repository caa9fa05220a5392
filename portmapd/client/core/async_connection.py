"""A connection that answers many commands at once, for reactors and event loops."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from portmapd.channel import commands as c
from portmapd.client.core.channel_protocol import Answer, ChannelProtocol, Event
from portmapd.errors import DaemonUnreachable, PortmapdError

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Future, Runtime, Transport

T = TypeVar("T")
E = TypeVar("E", bound=PortmapdError)


class AsyncConnection:
    """One connection to the daemon; operations may ask at any time.

    :param path: the daemon's socket, for messages.
    :param event: is given what the daemon tells a watcher.
    :param lost: is called with this connection once it is closed.
    """

    def __init__(
        self,
        runtime: Runtime[Any],
        path: str,
        event: Callable[[Event], object],
        lost: Callable[[AsyncConnection], object],
    ) -> None:
        self._runtime = runtime
        self._path = path
        self._event = event
        self._lost = lost
        self._protocol: ChannelProtocol[Future[dict[str, Any]]] = ChannelProtocol(path)
        self._transport: Transport | None = None
        self._process = os.getpid()
        #: Why nothing can be asked any more; None while it can.
        self._end: DaemonUnreachable | None = None

    def __len__(self) -> int:
        """Return the number of commands that wait for an answer."""
        return len(self._protocol)

    def __bool__(self) -> bool:
        return True

    @property
    def is_inherited(self) -> bool:
        """Does it belong to another process, of which this one is a fork?"""
        return os.getpid() != self._process

    def opened(self, transport: Transport) -> None:
        """*transport* takes its bytes."""
        self._transport = transport

    def check(self) -> None:
        """Raise the reason if it has ended."""
        if self._end is not None:
            raise copy_of(self._end)

    async def ask(self, command: c.Command, values: Mapping[str, Any]) -> dict[str, Any]:
        """Ask *command*; see :meth:`portmapd.client.core.interfaces.Connection.ask`."""
        self.check()
        answer: Future[dict[str, Any]] = self._runtime.future()
        tag, data = self._protocol.ask(command, values, answer)
        assert self._transport is not None
        self._transport.write(data)
        try:
            return await answer
        finally:
            self._protocol.forget(tag)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._runtime.sleep(seconds)

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do several things at once."""
        return await self._runtime.gather(work)

    def received(self, data: bytes) -> None:
        """The daemon sent *data*."""
        try:
            for received in self._protocol.receive(data):
                self._take(received)
                if self._end is not None:
                    return
        except DaemonUnreachable as error:
            self.close(error)

    def _take(self, received: Answer[Future[dict[str, Any]]] | Event) -> None:
        if not isinstance(received, Answer):
            self._event(received)
        elif received.waiter.done():
            # It was cancelled, and has not been told yet.
            pass
        elif isinstance(received.outcome, dict):
            received.waiter.set_result(received.outcome)
        else:
            received.waiter.set_exception(received.outcome)

    def close(self, why: DaemonUnreachable) -> None:
        """Close it at once, so that what was registered through it is gone.

        A fork of the process that made it only forgets it.

        :param why: what the commands that wait for an answer raise.
        """
        if self._end is None:
            self._end = why
        if self.is_inherited or self._transport is None:
            self.lost()
        else:
            self._transport.abort()

    def lost(self) -> None:
        """Its transport is closed."""
        if self._end is None:
            self._end = DaemonUnreachable(f"the connection to the daemon at {self._path} was lost")
        # First: what fails may be asked again at once.
        self._lost(self)
        for answer in self._protocol.end():
            if not answer.done():
                answer.set_exception(copy_of(self._end))


def copy_of(error: E) -> E:
    """Return the same error for another operation, which raises it with a traceback of its own."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
