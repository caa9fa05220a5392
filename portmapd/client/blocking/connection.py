"""One connection to the daemon that blocks, and the driver of the core's coroutines. Internal."""

from __future__ import annotations

import math
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self, TypeVar

from portmapd.channel import commands as c
from portmapd.client import sockets
from portmapd.client.blocking.deadline import Deadline
from portmapd.client.core.channel_protocol import (
    Answer,
    ChannelProtocol,
    Event,
    LostName,
    Overflow,
)
from portmapd.client.core.connecting import Target, dial_daemon
from portmapd.client.values import Change
from portmapd.errors import DaemonUnreachable

T = TypeVar("T")

#: The most bytes that are read at once.
CHUNK = 65_536


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the core; what it awaits blocks instead."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("it waits for an event loop")


class Dialer:
    """Makes connections within a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self.time = deadline.time

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._deadline.left

    async def dial(self, target: Target, seconds: float) -> socket.socket:
        """Connect to *target*; see :class:`~portmapd.client.core.interfaces.Dialer`."""
        part = self._deadline.within(seconds)
        part.pause(0)

        async def until_writable(skt: socket.socket) -> None:
            part.wait(skt.fileno(), select.POLLOUT)

        return await sockets.connect(target, until_writable)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        self._deadline.pause(seconds)


def ignore(event: Change | Overflow) -> None:
    """Take an event that nobody watches for."""


class SyncConnection:
    """Asks one command at a time, and waits for its answer.

    Whatever interrupts that, but a refusal, closes the connection: a late answer would come to
    another command. The greeting goes with the first command, for a round trip takes as long as a
    registration.

    :param event: is given what the daemon tells a watcher.
    """

    def __init__(
        self,
        path: str,
        skt: socket.socket,
        deadline: Deadline,
        event: Callable[[Change | Overflow], object],
    ) -> None:
        #: Of the current operation.
        self.deadline = deadline
        self._path = path
        self._skt = skt
        self._event = event
        self._protocol: ChannelProtocol[c.Command] = ChannelProtocol(path)
        _, self._greeting = self._protocol.ask(c.HELLO, {"version": c.VERSION}, c.HELLO)
        self._received: deque[Answer[c.Command] | Event] = deque()
        #: Has the daemon taken something away that was registered through it?
        self._has_lost = False
        self._pid = os.getpid()

    @classmethod
    async def open(
        cls,
        path: str,
        deadline: Deadline,
        event: Callable[[Change | Overflow], object] = ignore,
        dialer: Callable[[Deadline], Dialer] = Dialer,
    ) -> Self:
        """Connect to the daemon at *path*.

        :param dialer: makes what connects within a deadline.

        :raises DaemonUnreachable: there is no daemon.
        :raises CallTimedOut: the daemon takes no connection in time.
        :raises Terminated: the terminator became readable.
        """
        return cls(path, await dial_daemon(dialer(deadline), path, math.inf), deadline, event)

    @property
    def is_own(self) -> bool:
        """Is it open, and was it made by this process, and not before a fork?"""
        return self._skt.fileno() >= 0 and self._pid == os.getpid()

    @property
    def is_idle(self) -> bool:
        """Can it be asked? It must not watch anything."""
        if not self.is_own or self._has_lost:
            return False
        poll = select.poll()
        poll.register(self._skt, select.POLLIN)
        # Without a question, all that comes is the end, or the loss of a name.
        return not poll.poll(0)

    def fileno(self) -> int:
        """Return its descriptor; -1 once it is closed."""
        return self._skt.fileno()

    async def ask(self, command: c.Command, values: Mapping[str, Any]) -> dict[str, Any]:
        """Ask *command*; see :meth:`portmapd.client.core.interfaces.Connection.ask`.

        :raises UnsupportedVersion: the daemon speaks another version.
        :raises CallTimedOut: the answer did not come in time.
        :raises Terminated: the terminator became readable.
        """
        _, data = self._protocol.ask(command, values, command)
        with self._closed_if_broken():
            if self._greeting:
                self._send(self._greeting + data)
                self._greeting = b""
                _result(self._answer())
            else:
                self._send(data)
            answer = self._answer()
        return _result(answer)

    def _answer(self) -> Answer[c.Command]:
        while not isinstance(received := self._next(), Answer):
            self._take(received)
        return received

    def _take(self, event: Event) -> None:
        if isinstance(event, LostName):
            # Everything is registered again on another connection, as far as that is possible.
            self._has_lost = True
        else:
            self._event(event)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        self.deadline.pause(seconds)

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do one thing after the other."""
        return [await one for one in work]

    def check(self) -> None:
        """Raise :exc:`~portmapd.errors.DaemonUnreachable` if it is closed."""
        if not self.is_own:
            raise self._lost()

    def listen(self) -> None:
        """Wait for an event; it raises as :meth:`ask` does."""
        with self._closed_if_broken():
            received = self._next()
        assert not isinstance(received, Answer)
        self._take(received)

    def _next(self) -> Answer[c.Command] | Event:
        while not self._received:
            self.deadline.wait(self._skt.fileno(), select.POLLIN)
            data = self._skt.recv(CHUNK)
            if not data:
                raise ConnectionResetError
            self._received.extend(self._protocol.receive(data))
        return self._received.popleft()

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self.deadline.wait(self._skt.fileno(), select.POLLOUT)
            rest = rest[self._skt.send(rest, socket.MSG_NOSIGNAL) :]

    @contextmanager
    def _closed_if_broken(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            # ValueError: another thread closed it.
            self.close()
            raise self._lost() from error
        except BaseException:
            self.close()
            raise

    def _lost(self) -> DaemonUnreachable:
        return DaemonUnreachable(f"the connection to the daemon at {self._path} was lost")

    def shut_down(self) -> None:
        """End the connection, so that what was registered through it is gone, and waits fail.

        The descriptor stays open, because another thread may wait for it. In a process that
        forked, the parent's connection stays.
        """
        if self.is_own:
            with suppress(OSError):
                self._skt.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; what was registered through it is gone."""
        # A forked child may have the descriptor, too.
        self.shut_down()
        self._skt.close()


def _result(answer: Answer[c.Command]) -> dict[str, Any]:
    if isinstance(answer.outcome, dict):
        return answer.outcome
    raise answer.outcome
