"""The servers that are measured: started, waited for, stopped."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from bench.errors import MeasureError
from bench.programs import BUILD, LOOP, TOP

PORTMAPD, RPCBIND, C_LOOP = "portmapd", "rpcbind", "C loop"
"""The servers' names, as the table shows them."""

START_LIMIT = 20.0
"""Seconds after which a server that does not answer is given up."""

STOP_LIMIT = 20.0
"""Seconds from SIGTERM to SIGKILL."""

_ASK_AGAIN = 0.001
_NULL_CALL = struct.pack(">10I", 1, 0, 2, 100000, 2, 0, 0, 0, 0, 0)


@frozen
class Server:
    """What to run.

    name: as the table shows it.
    command: program and arguments; it stays in the foreground.
    port: the UDP port, and TCP port if it serves TCP, on 127.0.0.1.
    """

    name: str
    command: tuple[str, ...]
    port: int


@frozen
class Running:
    """A server that answers.

    pid: its process.
    start_seconds: from exec to the first answer.
    """

    server: Server
    pid: int
    start_seconds: float

    @property
    def port(self) -> int:
        """The server's port."""
        return self.server.port


def portmapd(port: int = 211) -> Server:
    """The port mapper under test, by the twistd beside this interpreter.

    Its local socket has a directory of its own, for two may run at once. Ports of the benchmark's
    servers are below 512, where neither the kernel nor rpcbind takes one by itself.
    """
    twistd = Path(sys.executable).with_name("twistd")
    sockets = ("--rpc-socket", "none", "--local-socket", f"/run/portmapd-{port}/portmapd.sock")
    plugin = ("portmapd", "--port", str(port), *sockets)
    return Server(PORTMAPD, (str(twistd), "-n", "--pidfile=", *plugin), port)


def rpcbind() -> Server:
    """The peer. Its port cannot be chosen."""
    return Server(RPCBIND, ("rpcbind", "-f"), 111)


def c_loop() -> Server:
    """The bare recvfrom/sendto loop: the most that a server of one datagram a time can reach."""
    return Server(C_LOOP, (str(LOOP), "311"), 311)


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """Start a server, yield once it answers, stop it.

    Raises MeasureError when it does not start; what it wrote is in bench/build.
    """
    log = BUILD / f"{server.name.replace(' ', '-')}-{server.port}.log"
    before = time.perf_counter()
    process = _start(server, log)
    try:
        _await_answer(server, process, log)
        yield Running(server, process.pid, time.perf_counter() - before)
    finally:
        _stop(process)


def _start(server: Server, log: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(TOP), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    with log.open("wb") as output:
        try:
            return subprocess.Popen(
                server.command, cwd=TOP, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise MeasureError(f"{server.name} does not start: {error}") from error


def _await_answer(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_LIMIT
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("127.0.0.1", server.port))
        asking.settimeout(_ASK_AGAIN)
        while not _answers(asking):
            if process.poll() is not None:
                raise MeasureError(f"{server.name} ended at its start: {_last_line(log)}")
            if time.monotonic() > limit:
                raise MeasureError(f"{server.name} does not answer on UDP port {server.port}")


def _answers(asking: socket.socket) -> bool:
    """Whether a NULL call is answered at once."""
    try:
        asking.send(_NULL_CALL)
        return bool(asking.recv(512))
    except ConnectionRefusedError:
        time.sleep(_ASK_AGAIN)
    except TimeoutError:
        pass
    return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
