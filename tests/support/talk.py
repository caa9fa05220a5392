"""Speaking on the local channel, over plain blocking sockets."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import frozen

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader
from tests.support.channel_sessions import Wanted, read_event
from tests.support.exchange import connect_local
from tests.support.host import Daemon, daemon
from tests.support.registrant import PATIENCE, Registrant


class Talk:
    """A connection to the daemon.

    :param skt: the socket, or the path of the daemon's.
    """

    def __init__(self, skt: socket.socket | str) -> None:
        self.skt = skt if isinstance(skt, socket.socket) else connect_local(skt)
        self.skt.settimeout(PATIENCE)
        self._reader = BoxReader()
        self._boxes: list[Box] = []
        self._events: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.skt.close()

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self.skt.sendall(data)

    def box(self) -> Box:
        """The next box.

        :raises EOFError: the connection was closed instead.
        """
        while not self._boxes:
            try:
                data = self.skt.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError("closed")
            self._boxes.extend(self._reader.feed(data))
        return self._boxes.pop(0)

    def answer(self) -> Box:
        """The next box that is not an event."""
        while b"_command" in (box := self.box()):
            self._events.append(read_event(box))
        return box

    def event(self) -> tuple[Any, ...]:
        """The change and the row of the next event, or ``("overflow",)``."""
        return self._events.pop(0) if self._events else read_event(self.box())

    def ask(self, command: c.Command, **values: Any) -> dict[str, Any]:
        """The answer to a command.

        :raises Refusal: it is refused.
        """
        self.send(command.ask(b"t", values))
        answer = self.answer()
        if b"_error" in answer:
            raise c.read_refusal(answer)
        assert answer[b"_answer"] == b"t"
        return command.read_answer(answer)

    def hello(self) -> dict[str, Any]:
        """Say hello."""
        return self.ask(c.HELLO, version=c.VERSION)

    def register(self, *services: Wanted) -> None:
        """Register services."""
        self.ask(c.REGISTER, services=services)

    def deregister(self, *services: tuple[str, str]) -> None:
        """Undo registrations."""
        self.ask(c.DEREGISTER, services=services)

    def set(self, *mappings: tuple[int, int, str, str]) -> None:
        """Register mappings."""
        self.ask(c.SET_MAPPINGS, mappings=mappings)

    def services(self, **values: Any) -> list[tuple[str, int, int, str, str]]:
        """The listing of services, whole."""
        return [row for page in self._pages(c.LIST, "services", values) for row in page]

    def names(self) -> list[str]:
        """The names that are listed, but for the daemon's own."""
        return [row[0] for row in self.services() if row[0] != "portmapd.portmapd"]

    def mappings(self) -> list[tuple[int, int, str, str, str]]:
        """The listing of mappings, whole, but for the port mapper's own."""
        pages = self._pages(c.LIST_MAPPINGS, "mappings", {})
        return [row for page in pages for row in page if row[0] != 100000]

    def _pages(self, command: c.Command, key: str, values: dict[str, Any]) -> Iterator[list[Any]]:
        more: str | None = None
        while True:
            page = self.ask(command, after=more, **values)
            yield page[key]
            more = page["more"]
            if more is None:
                return

    def is_closed(self) -> bool:
        """Does the daemon close the connection, rather than answer?"""
        try:
            self.send(c.HELLO.ask(b"closed?", {"version": c.VERSION}))
            while self.answer().get(b"_answer") != b"closed?":
                continue
        except (EOFError, OSError):
            return True
        return False


@frozen
class Served:
    """A daemon's local channel.

    :param path: the path of its socket.
    """

    daemon: Daemon
    path: str

    def talk(self) -> Talk:
        """A connection of this process."""
        return Talk(self.path)

    def registrant(self, uid: int | None = None) -> Registrant:
        """A process that can connect."""
        return Registrant(self.path, uid)


@contextmanager
def served(*options: str) -> Iterator[Served]:
    """Run a daemon with a local channel in the block, where everybody can reach it."""
    with tempfile.TemporaryDirectory(prefix="portmapd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = str(folder / "run" / "portmapd.sock")
        with daemon(folder, "--local-socket", path, *options) as running:
            yield Served(running, path)
