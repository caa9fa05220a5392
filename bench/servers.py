"""The servers that are measured: started, waited for, stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attrs import frozen

from bench.errors import MeasureError
from bench.probe import Answers, name_server, port_mapper
from bench.programs import BUILD, LOOP, TOP

PORTMAPD, RPCBIND, C_LOOP, EPMD = "portmapd", "rpcbind", "C loop", "epmd"
"""The servers' names, as the table shows them."""

START_LIMIT = 20.0
"""Seconds after which a server that does not answer is given up."""

STOP_LIMIT = 20.0
"""Seconds from SIGTERM to SIGKILL."""


@frozen
class Server:
    """What to run.

    name: as the table shows it.
    command: program and arguments; it stays in the foreground.
    port: the UDP or TCP port, or both, on 127.0.0.1.
    path: of the socket of its local channel, if it has one.
    probe: tells, given the port, whether it answers.
    """

    name: str
    command: tuple[str, ...]
    port: int
    path: str | None = None
    probe: Callable[[int], AbstractContextManager[Answers]] = port_mapper


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


def portmapd(port: int = 211, *options: str) -> Server:
    """The port mapper under test, by the twistd beside this interpreter.

    Its local socket has a directory of its own, for two may run at once. Ports of the benchmark's
    servers are below 512, where neither the kernel nor rpcbind takes one by itself.
    """
    twistd = Path(sys.executable).with_name("twistd")
    path = f"/run/portmapd-{port}/portmapd.sock"
    sockets = ("--rpc-socket", "none", "--local-socket", path)
    plugin = ("portmapd", "--port", str(port), *sockets, *options)
    return Server(PORTMAPD, (str(twistd), "-n", "--pidfile=", *plugin), port, path)


def rpcbind() -> Server:
    """The peer. Its port cannot be chosen."""
    return Server(RPCBIND, ("rpcbind", "-f"), 111)


def c_loop() -> Server:
    """The bare recvfrom/sendto loop: the most that a server of one datagram a time can reach."""
    return Server(C_LOOP, (str(LOOP), "311"), 311)


def epmd(port: int = 411) -> Server:
    """Erlang's port mapper daemon, the peer of the local channel."""
    return Server(EPMD, ("epmd", "-port", str(port)), port, probe=name_server)


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
    with server.probe(server.port) as answers:
        while not answers():
            if process.poll() is not None:
                raise MeasureError(f"{server.name} ended at its start: {_last_line(log)}")
            if time.monotonic() > limit:
                raise MeasureError(f"{server.name} does not answer on port {server.port}")


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
