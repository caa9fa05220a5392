"""A daemon with a status page, and requests to it."""

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from portmapd.client.blocking import Portmapper
from tests.support.exchange import PATIENCE, free_port
from tests.support.host import Daemon, daemon


@frozen
class Answered:
    """An answer over HTTP.

    :param header: its header fields, by their names in lower case.
    """

    status: int
    header: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """Its body."""
        return self.body.decode()


@frozen
class WebDaemon:
    """A daemon with a status page on loopback.

    :param daemon: its process.
    :param port: the port of the page.
    :param path: the socket of its local channel.
    """

    daemon: Daemon
    port: int
    path: str

    def ask(
        self, target: str, method: str = "GET", body: bytes | None = None, **header: str
    ) -> Answered:
        """Ask once, on a connection of its own; ``_`` stands for ``-`` in names of fields."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            fields = {name.replace("_", "-"): value for name, value in header.items()}
            connection.request(method, target, body, fields)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answered(answer.status, found, answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A connection on which nothing is sent yet."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def client(self) -> Portmapper:
        """A client of its local channel."""
        return Portmapper(self.path)


@contextmanager
def web_daemon(folder: Path, *options: str) -> Iterator[WebDaemon]:
    """Run a daemon with a status page in the block.

    :param folder: where its log and its sockets are.
    """
    port, path = free_port(), str(folder / "channel.sock")
    words = ("--local-socket", path, "--http", f"tcp:{port}:interface=127.0.0.1", *options)
    with daemon(folder, *words) as running:
        yield WebDaemon(running, port, path)
