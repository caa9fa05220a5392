"""A plug-in of pytest: the fixture ``portmapd`` gives a test a port mapper of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import IPPROTO_UDP
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from portmapd.errors import PortmapdError

if TYPE_CHECKING:
    import portmapd.client.blocking

#: How long the port mapper may take to serve, and to end, in seconds.
PATIENCE = 30.0
#: How often it is looked whether it serves, in seconds.
INTERVAL = 0.02
PROGRAM, VERSION = 100000, 2

_TWISTD = "from twisted.scripts.twistd import run; run()"


class RunningPortMapper:
    """A port mapper in a process of its own, on free ports of loopback.

    :ivar host: its address.
    :ivar port: its port over UDP and TCP, over IPv4 and, where the host has it, IPv6.
    :ivar rpc_socket: the path of its rpcbind socket.
    :ivar local_socket: the path of its local channel.
    :ivar log: the path of its log.
    """

    host = "127.0.0.1"

    def __init__(self, folder: str) -> None:
        # The path of a UNIX socket is short: pytest's own folders are too deep.
        self.rpc_socket = f"{folder}/rpc.sock"
        self.local_socket = f"{folder}/channel.sock"
        self.log = Path(folder, "portmapd.log")
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, and wait until it serves.

        :param options: further options of ``twistd portmapd``.
        :raises RuntimeError: it does not serve; the message has its log.
        """
        sockets = ("--rpc-socket", self.rpc_socket, "--local-socket", self.local_socket)
        # What this host's own port mapper has, its options and its mappings, is none of a test's.
        own = ("--config", "none", "--state", "none")
        words = ("portmapd", "--port", str(self.port), *sockets, *own, *options)
        command = (sys.executable, "-c", _TWISTD, "-n", "--pidfile=", *words)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        ends = time.monotonic() + PATIENCE
        while not (port := self._served_port()):
            if self._process.poll() is not None or time.monotonic() > ends:
                self.stop()
                raise RuntimeError(f"the port mapper does not serve:\n{self.log.read_text()}")
            time.sleep(INTERVAL)
        self.port = port

    def _served_port(self) -> int:
        from portmapd.client.blocking import PortmapClient

        try:
            with PortmapClient(self.rpc_socket, transport="local", timeout=PATIENCE) as client:
                return client.getport(PROGRAM, VERSION, IPPROTO_UDP)
        except PortmapdError:
            return 0

    def stop(self) -> None:
        """End it; :meth:`start` starts it again, on the same port, without its registrations."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def client(self) -> portmapd.client.blocking.PortmapClient:
        """A client of program 100000 that blocks; the test closes it.

        It asks over the rpcbind socket, so that what it registers is this user's.
        """
        from portmapd.client.blocking import PortmapClient

        return PortmapClient(self.rpc_socket, transport="local")

    def portmapper(self) -> portmapd.client.blocking.Portmapper:
        """A client of the local channel that blocks; the test closes it."""
        from portmapd.client.blocking import Portmapper

        return Portmapper(self.local_socket)


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line(
        "markers", "portmapd(*options): the options that the test's port mapper runs with"
    )


@pytest.fixture(name="portmapd")
def running_port_mapper(request: pytest.FixtureRequest) -> Iterator[RunningPortMapper]:
    """Give the test a port mapper of its own, on free ports, which ends with the test.

    ``@pytest.mark.portmapd("--callit", "all")`` names further options of ``twistd portmapd``.
    """
    marks = reversed([*request.node.iter_markers("portmapd")])
    options = [str(option) for mark in marks for option in mark.args]
    with TemporaryDirectory(prefix="portmapd-") as folder:
        running = RunningPortMapper(folder)
        running.start(*options)
        try:
            yield running
        finally:
            running.stop()
