"""What one process passes on of each socket, and how it is written."""

from __future__ import annotations

import os
import socket
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from attrs import define, evolve, field, frozen

from portmapd.errors import InvalidState


class PassableTransport(Protocol):
    """A transport that another process can take over."""

    @property
    def is_passable(self) -> bool:
        """Whether it is neither lost nor about to be."""

    @property
    def unsent(self) -> bytes:
        """What was written and is not sent yet."""

    def fileno(self) -> int:
        """Its descriptor."""

    def queue(self, data: bytes) -> None:
        """Have *data* sent when the reactor runs, and not before."""


@define
class Descriptors:
    """Descriptors that are passed on with a text that refers to them by their places."""

    numbers: list[int] = field(factory=list)

    def add(self, number: int) -> int:
        """Pass on a descriptor.

        :return: its place.
        """
        self.numbers.append(number)
        return len(self.numbers) - 1


class Received:
    """Descriptors that have come; each is taken once.

    :param numbers: the descriptors, in their places.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers: list[int | None] = list(numbers)

    def take(self, place: int) -> int:
        """The descriptor in that place, which is the caller's from now on.

        :raises InvalidState: there is none, or it was taken before.
        """
        try:
            number = self._numbers[place]
        except (IndexError, TypeError):
            number = None
        if number is None:
            raise InvalidState(f"there is no descriptor {place}")
        self._numbers[place] = None
        return number

    def socket(self, place: int) -> socket.socket:
        """The socket in that place."""
        number = self.take(place)
        try:
            skt = socket.socket(fileno=number)
        except OSError as error:
            os.close(number)
            raise InvalidState(f"descriptor {place} is no socket") from error
        skt.setblocking(False)
        return skt

    def after(self, count: int) -> Received:
        """Those behind the first ones, in places of their own."""
        rest = [number for number in self._numbers[count:] if number is not None]
        self._numbers[count:] = []
        return Received(rest)

    def close(self) -> None:
        """Close those that nobody has taken."""
        for number in self._numbers:
            if number is not None:
                with suppress(OSError):
                    os.close(number)
        self._numbers = [None] * len(self._numbers)


@frozen
class PassedStream:
    """A stream of requests.

    :param descriptor: the place of its descriptor.
    :param input: what has come, as far as it is not answered.
    :param output: what is not sent yet.
    :param broken: what broke the framing behind the input; empty: nothing did.
    :param is_closing: whether it is closed behind the output.
    """

    descriptor: int
    input: bytes = b""
    output: bytes = b""
    broken: str = ""
    is_closing: bool = False

    def encode(self) -> list[Any]:
        """As a value of JSON."""
        data = _text(self.input), _text(self.output)
        return [self.descriptor, *data, self.broken, self.is_closing]

    @classmethod
    def decode(cls, row: list[Any]) -> PassedStream:
        """Read what :meth:`encode` gave.

        :raises InvalidState: it is malformed.
        """
        try:
            descriptor, unanswered, unsent, broken, is_closing = row
            data = b64decode(unanswered), b64decode(unsent)
            return cls(descriptor, *data, broken, is_closing)
        except (TypeError, ValueError) as error:
            raise InvalidState(f"a stream cannot be taken over: {error}") from error


@frozen
class PassedWatch:
    """What a connection of the local channel watches.

    :param names: the names; empty: all.
    :param is_on: whether it watches at all; if not, these are events of before.
    :param events: those that it has not been sent.
    :param has_overflowed: whether there were more than are kept.
    """

    names: Sequence[str]
    is_on: bool
    events: bytes
    has_overflowed: bool

    def encode(self) -> list[Any]:
        """As a value of JSON."""
        return [list(self.names), self.is_on, _text(self.events), self.has_overflowed]

    @classmethod
    def decode(cls, row: list[Any]) -> PassedWatch:
        """Read what :meth:`encode` gave.

        :raises InvalidState: it is malformed.
        """
        try:
            names, is_on, events, has_overflowed = row
            return cls(names, is_on, b64decode(events), has_overflowed)
        except (TypeError, ValueError) as error:
            raise InvalidState(f"a watcher cannot be taken over: {error}") from error


@frozen
class PassedConnection:
    """A connection of the local channel.

    :param stream: its stream.
    :param process: the place of its process among the processes; None: it was not looked up.
    :param is_waiting: whether its process and its executable are still to be looked up.
    :param holder: the serial of its holder; None: it has none.
    :param watch: what it watches; None: it never has.
    :param restarts: the tags of its requests for a restart, which are not answered yet.
    :param cluster_watch: what it watches of the cluster; None: it never has.
    """

    stream: PassedStream
    process: int | None
    is_waiting: bool
    holder: int | None
    watch: PassedWatch | None
    restarts: Sequence[bytes] = ()
    cluster_watch: PassedWatch | None = None

    def encode(self) -> list[Any]:
        """As a value of JSON."""
        watches = [_encoded(self.watch), _encoded(self.cluster_watch)]
        tags = [_text(tag) for tag in self.restarts]
        row = [self.stream.encode(), self.process, self.is_waiting, self.holder, watches[0], tags]
        # Earlier versions know no clusters.
        return [*row, watches[1]] if watches[1] else row

    @classmethod
    def decode(cls, row: list[Any]) -> PassedConnection:
        """Read what :meth:`encode` gave.

        :raises InvalidState: it is malformed.
        """
        try:
            stream, process, is_waiting, holder, watch, tags, *more = row
            restarts = [b64decode(tag) for tag in tags]
        except (TypeError, ValueError) as error:
            raise InvalidState(f"a connection cannot be taken over: {error}") from error
        watched = [PassedWatch.decode(each) if each else None for each in (watch, *more, None)]
        decoded = PassedStream.decode(stream)
        return cls(decoded, process, is_waiting, holder, watched[0], restarts, watched[1])

    def unsure(self) -> PassedConnection:
        """The same, some time later: what it watches may have changed meanwhile."""
        if self.watch is None:
            return self
        return evolve(self, watch=evolve(self.watch, events=b"", has_overflowed=True))


@frozen
class PassedSocket:
    """A listening socket, or the UDP sockets of one address.

    :param kind: ``udp``, ``tcp``, ``rpc`` or ``channel``.
    :param place: the address or the path that it is bound to.
    :param port: of UDP and TCP; None: it has none.
    :param descriptors: the places of its descriptors, the one first that was bound first.
    :param is_made: whether one of the processes has made it, rather than a service manager.
    :param streams: its connections, as a value of JSON.
    """

    kind: str
    place: str
    port: int | None
    descriptors: Sequence[int]
    is_made: bool
    streams: Any = None

    @property
    def is_internet(self) -> bool:
        """Whether it is bound to an address, and not to a path."""
        return self.kind in ("udp", "tcp")


def _encoded(watch: PassedWatch | None) -> list[Any] | None:
    return None if watch is None else watch.encode()


def _text(data: bytes) -> str:
    return b64encode(data).decode()
