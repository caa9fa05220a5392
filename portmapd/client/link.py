"""One connection to the daemon's local channel."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader
from portmapd.errors import BadArguments, BrokenStream, DaemonUnreachable

#: What the encoders raise for a value that is too long or not of its type.
_UNWRITABLE = (ValueError, TypeError, AttributeError, struct.error)


class Link(Protocol):
    """Asks commands, and matches their answers.

    :param path: the daemon's socket, for messages.
    :param event: is given every box that is no answer; :exc:`~portmapd.errors.BadArguments` is
        raised there for one that cannot be read.
    :param lost: is called with this link once it is broken.
    """

    transport: Any

    def __init__(
        self, path: str, event: Callable[[Box], object], lost: Callable[[Link], object]
    ) -> None:
        self._path = path
        self._event = event
        self._lost = lost
        self._reader = BoxReader()
        self._pending: dict[bytes, tuple[c.Command, Deferred[dict[str, Any]]]] = {}
        self._count = 0
        self._process = os.getpid()
        #: Why nothing can be asked any more; None while it can.
        self._end: DaemonUnreachable | None = None

    @property
    def is_inherited(self) -> bool:
        """Does it belong to another process, of which this one is a fork?"""
        return os.getpid() != self._process

    def ask(self, command: c.Command, values: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """Ask *command* with these arguments; fires with its answer, by name.

        Fails with the :exc:`~portmapd.errors.Refusal` that the daemon answers, or with
        :exc:`~portmapd.errors.DaemonUnreachable` if the connection breaks before it does.
        """
        if self._end is not None:
            return fail(_another(self._end))
        self._count += 1
        tag = b"%x" % self._count
        try:
            box = command.ask(tag, values)
        except _UNWRITABLE as error:
            return fail(BadArguments(f"an argument is too long or not of its type: {error}"))
        answer: Deferred[dict[str, Any]] = Deferred(lambda _: self._forget(tag))
        self._pending[tag] = command, answer
        self.transport.write(box)
        return answer

    def _forget(self, tag: bytes) -> None:
        self._pending.pop(tag, None)

    def dataReceived(self, data: bytes) -> None:
        try:
            for box in self._reader.feed(data):
                self._take(box)
                if self._end is not None:
                    return
        except (BrokenStream, BadArguments) as error:
            self.close(
                DaemonUnreachable(
                    f"what serves at {self._path} is no portmapd that this client understands "
                    f"({error}); check the path"
                )
            )

    def _take(self, box: Box) -> None:
        tag = box.get(c.ANSWER, box.get(c.ERROR))
        if tag is None:
            self._event(box)
            return
        if tag not in self._pending:
            return
        command, answer = self._pending[tag]
        outcome = c.read_refusal(box) if c.ERROR in box else command.read_answer(box)
        del self._pending[tag]
        if isinstance(outcome, dict):
            answer.callback(outcome)
        else:
            answer.errback(outcome)

    def close(self, why: DaemonUnreachable) -> None:
        """Break the connection; what was registered through it is gone.

        A fork of the process that made it only forgets it.

        :param why: what the operations fail with that wait for an answer.
        """
        if self._end is None:
            self._end = why
        if self.is_inherited:
            self.connectionLost()
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        if self._end is None:
            self._end = DaemonUnreachable(f"the connection to the daemon at {self._path} was lost")
        self._lost(self)
        pending, self._pending = self._pending, {}
        for _, answer in pending.values():
            answer.errback(_another(self._end))


def _another(error: DaemonUnreachable) -> DaemonUnreachable:
    """The same error, for another operation: it is raised with a traceback of its own."""
    return type(error)(*error.args)
