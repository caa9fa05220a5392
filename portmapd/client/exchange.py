"""One connection to the daemon's local channel, on a plain socket; no Twisted."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader
from portmapd.client.dial import dial
from portmapd.client.patience import Patience
from portmapd.errors import BadArguments, BrokenStream, DaemonUnreachable

#: The most bytes that are read at once.
CHUNK = 65_536


def unheard(box: Box) -> None:
    """Take an event that nobody asked for."""


class Exchange:
    """Asks one command at a time, and waits for its answer.

    Whatever interrupts it, but a refusal, closes it: nothing is left to come out of step.

    :param path: the daemon's socket.
    :param patience: the time to connect.
    :param event: is given every box that is no answer.
    :raises DaemonUnreachable: there is no daemon.
    :raises CallTimedOut: the daemon takes no connection in time.
    :raises Terminated: the terminator became readable.
    """

    def __init__(
        self, path: str, patience: Patience, event: Callable[[Box], object] = unheard
    ) -> None:
        self._path = path
        self._event = event
        self._reader = BoxReader()
        self._boxes: deque[Box] = deque()
        self._count = 0
        self._pid = os.getpid()
        try:
            self._skt = dial((socket.AF_UNIX, path), patience)
        except OSError as error:
            raise DaemonUnreachable(
                f"no daemon answers at {path} ({error.strerror or error}); "
                "is portmapd running there?"
            ) from error

    @property
    def is_ours(self) -> bool:
        """Is it open, and was it made by this process, and not by one that forked since?"""
        return self._skt.fileno() >= 0 and self._pid == os.getpid()

    @property
    def stands(self) -> bool:
        """Can it be asked? It must not watch anything."""
        if not self.is_ours:
            return False
        poll = select.poll()
        poll.register(self._skt, select.POLLIN)
        return not poll.poll(0)

    def fileno(self) -> int:
        """Its descriptor; -1 once it is closed."""
        return self._skt.fileno()

    def ask(self, command: c.Command, values: Mapping[str, Any], patience: Patience) -> Any:
        """The answer to *command* with these arguments, by name.

        :raises Refusal: the daemon refuses.
        :raises BadArguments: an argument cannot be sent.
        :raises DaemonUnreachable: the connection broke before the answer came.
        :raises CallTimedOut: the answer did not come in time.
        :raises Terminated: the terminator became readable.
        """
        self._count += 1
        tag = b"%x" % self._count
        box = _encode(command, tag, values)
        with self._unless_broken():
            self._send(box, patience)
            answer = self._answer(tag, patience)
            if c.ERROR not in answer:
                return command.read_answer(answer)
        raise c.read_refusal(answer)

    def _answer(self, tag: bytes, patience: Patience) -> Box:
        while True:
            box = self._next(patience)
            if tag == box.get(c.ANSWER, box.get(c.ERROR)):
                return box
            self._event(box)

    def listen(self, patience: Patience) -> None:
        """Wait for an event; raises as :meth:`ask` does."""
        with self._unless_broken():
            self._event(self._next(patience))

    def _next(self, patience: Patience) -> Box:
        while not self._boxes:
            patience.wait(self._skt.fileno(), select.POLLIN)
            data = self._skt.recv(CHUNK)
            if not data:
                raise ConnectionResetError
            self._boxes.extend(self._reader.feed(data))
        return self._boxes.popleft()

    def _send(self, data: bytes, patience: Patience) -> None:
        rest = memoryview(data)
        while rest:
            patience.wait(self._skt.fileno(), select.POLLOUT)
            rest = rest[self._skt.send(rest, socket.MSG_NOSIGNAL) :]

    @contextmanager
    def _unless_broken(self) -> Iterator[None]:
        """Close the connection if the block does not come to its end."""
        try:
            yield
        except (OSError, ValueError) as error:
            # ValueError: another thread closed it.
            self.close()
            raise DaemonUnreachable(
                f"the connection to the daemon at {self._path} was lost"
            ) from error
        except (BrokenStream, BadArguments) as error:
            self.close()
            raise DaemonUnreachable(
                f"what answers at {self._path} is no portmapd: {error}"
            ) from error
        except BaseException:
            self.close()
            raise

    def shut_down(self) -> None:
        """End the connection; what was registered through it is gone, and what waits fails.

        The descriptor stays open, for another thread may wait for it. In a process that forked,
        the connection of the one it forked from stays.
        """
        if self.is_ours:
            with suppress(OSError):
                self._skt.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; what was registered through it is gone."""
        # A forked child may have the descriptor, too.
        self.shut_down()
        self._skt.close()


def _encode(command: c.Command, tag: bytes, values: Mapping[str, Any]) -> bytes:
    try:
        return command.ask(tag, values)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadArguments(f"an argument of {command.name} cannot be sent: {error}") from error
