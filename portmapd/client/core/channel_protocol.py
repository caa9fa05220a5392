"""The client's side of the channel's protocol, without I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader
from portmapd.client.values import Change, change_of
from portmapd.errors import BadArguments, BrokenStream, DaemonUnreachable, Refusal

#: What waits for an answer: whatever a client uses for that.
W = TypeVar("W")

#: What the encoders raise for a value that is too long or not of its type.
_UNWRITABLE = (ValueError, TypeError, AttributeError, struct.error)


class Answer(Generic[W]):
    """The answer to a command, and what waits for it."""

    __slots__ = ("outcome", "waiter")

    def __init__(self, waiter: W, outcome: dict[str, Any] | Refusal) -> None:
        self.waiter = waiter
        self.outcome = outcome


class Overflow:
    """The daemon left changes out, because they were not read in time.

    :param of_cluster: whether they were changes of the cluster.
    """

    __slots__ = ("of_cluster",)

    def __init__(self, of_cluster: bool = False) -> None:
        self.of_cluster = of_cluster


class LostName(NamedTuple):
    """A name is registered no longer, though its connection is there; a named tuple."""

    name: str
    port: str
    why: str


#: What the daemon tells without having been asked.
Event = Change | Overflow | LostName

_OVERFLOWS = {c.OVERFLOW: Overflow(), c.CLUSTER_OVERFLOW: Overflow(of_cluster=True)}
OVERFLOW = _OVERFLOWS[c.OVERFLOW]


class ChannelProtocol(Generic[W]):
    """The client's side of the channel's protocol: bytes in, bytes out, no I/O.

    :param path: the daemon's socket, for messages.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader = BoxReader()
        self._waiting: dict[bytes, tuple[c.Command, W]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return the number of commands that wait for an answer."""
        return len(self._waiting)

    def ask(self, command: c.Command, values: Mapping[str, Any], waiter: W) -> tuple[bytes, bytes]:
        """Encode a command.

        :return: its tag, and the bytes to send.
        :raises BadArguments: an argument is too long or not of its type.
        """
        self._count += 1
        tag = b"%x" % self._count
        try:
            box = command.ask(tag, values)
        except _UNWRITABLE as error:
            raise BadArguments(
                f"an argument of {command.name} is too long or not of its type: {error}"
            ) from error
        self._waiting[tag] = command, waiter
        return tag, box

    def forget(self, tag: bytes) -> None:
        """Ignore the answer that has this tag."""
        self._waiting.pop(tag, None)

    def end(self) -> list[W]:
        """The connection has ended: return what still waits."""
        waiting = [waiter for _, waiter in self._waiting.values()]
        self._waiting.clear()
        return waiting

    def receive(self, data: bytes) -> Iterator[Answer[W] | Event]:
        """Take *data* in, and yield what it completes.

        :raises DaemonUnreachable: it is not the channel's protocol.
        """
        try:
            for box in self._reader.feed(data):
                received = self._received(box)
                if received is not None:
                    yield received
        except (BrokenStream, BadArguments) as error:
            raise DaemonUnreachable(
                f"what serves at {self._path} is not a portmapd that this client understands "
                f"({error}); check the path"
            ) from error

    def _received(self, box: Box) -> Answer[W] | Event | None:
        tag = box.get(c.ANSWER, box.get(c.ERROR))
        if tag is None:
            return _event(box)
        if tag not in self._waiting:
            return None
        command, waiter = self._waiting[tag]
        outcome = c.read_refusal(box) if c.ERROR in box else command.read_answer(box)
        del self._waiting[tag]
        return Answer(waiter, outcome)


def _event(box: Box) -> Event | None:
    command = box.get(c.COMMAND, b"")
    if command == c.EVENT:
        return change_of(box)
    if command == c.LOST:
        return LostName(*[column.take(box) for column in c.LOST_ROW.columns])
    return _OVERFLOWS.get(command)
