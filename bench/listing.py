"""What portmapd's local channel lists, asked over one connection."""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.errors import MeasureError
from bench.servers import Running
from portmapd.channel.box import BoxReader
from portmapd.channel.commands import ITSELF, LIST

ANSWER_LIMIT = 20.0
"""Seconds to wait for an answer."""


class Listing:
    """Asks for names.

    skt: a connection to the channel.
    """

    def __init__(self, skt: socket.socket) -> None:
        self._skt = skt
        self._reader = BoxReader()

    def any_of(self, names: Iterable[str]) -> bool:
        """Whether any of these names is registered."""
        return bool(self._page(names=list(names))["services"])

    def is_empty(self) -> bool:
        """Whether nothing but the daemon itself is registered."""
        page = self._page()
        return page["more"] is None and [row[0] for row in page["services"]] == [ITSELF]

    def _page(self, **wanted: Any) -> dict[str, Any]:
        self._skt.sendall(LIST.ask(b"1", wanted))
        while data := self._skt.recv(65_536):
            for box in self._reader.feed(data):
                return LIST.read_answer(box)
        raise MeasureError("portmapd closed the connection of a listing")


@contextmanager
def listing(server: Running) -> Iterator[Listing]:
    """A connection for listings."""
    path = server.server.path
    assert path is not None
    with socket.socket(socket.AF_UNIX) as skt:
        skt.settimeout(ANSWER_LIMIT)
        skt.connect(path)
        yield Listing(skt)
