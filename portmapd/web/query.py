"""A request and its answer, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import field, frozen
from twisted.internet.interfaces import IPushProducer

from portmapd.errors import PortmapdError

TEXT = "text/plain; charset=utf-8"


class RequestRefused(PortmapdError):
    """A request that cannot be served; the message says why, and what to do.

    :param status: the status of HTTP (RFC 9110, 15).
    :param headers: header fields of the answer.
    """

    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers


@frozen
class Query:
    """What a request asks for.

    :param fields: the fields of its query and of its form, each with all of its values.
    :param accept: the header field ``Accept``; empty: there is none.
    :param is_local: whether the caller is on this host.
    """

    fields: Mapping[str, Sequence[str]] = field(factory=dict)
    accept: str = ""
    is_local: bool = False


class Consumer(Protocol):
    """Where the body of an endless answer goes."""

    def write(self, data: bytes) -> object:
        """Send *data*."""

    def drop(self) -> None:
        """Close the connection at once."""


@frozen
class Answer:
    """What a request is answered with.

    :param body: its body in pieces, which are made as the peer reads them.
    :param kind: its media type.
    :param status: its status.
    :param headers: further header fields.
    :param listen: makes what the body comes from for as long as the connection lasts; None: the
        body has an end.
    """

    body: Iterable[bytes] = ()
    kind: str = TEXT
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    listen: Callable[[Consumer], IPushProducer] | None = None


#: Makes the answer to a query; it may raise :exc:`RequestRefused`.
Handler = Callable[[Query], Answer]


@frozen
class Route:
    """A row of the table of paths.

    :param handle: answers what is asked there.
    :param methods: the methods that it takes.
    """

    handle: Handler
    methods: Sequence[str] = ("GET", "HEAD")


def text_answer(text: str, status: int = 200, **headers: str) -> Answer:
    """A line of text."""
    return Answer([f"{text}\n".encode()], status=status, headers=headers)
