"""The servers that are measured: started, awaited, stopped, and what their processes cost."""

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen

from bench import MeasureError

PORTMAPD, RPCBIND, C_LOOP, EPMD = "portmapd", "rpcbind", "C loop", "epmd"
"""The servers' names, as the table shows them."""

HOST = "127.0.0.1"
TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "bench" / "build"
"""Compiled programs and the servers' logs; not in version control."""

START_LIMIT, STOP_LIMIT = 20.0, 20.0
"""Seconds from the start to the first answer, and from SIGTERM to SIGKILL."""

ANSWER_LIMIT, ASK_AGAIN = 0.1, 0.001
"""Seconds to wait for an answer, and from one question to the next."""

NO_LIMIT = "10000000"
"""More mappings than are set."""

_NULL_CALL = struct.pack(">10I", 1, 0, 2, 100000, 2, 0, 0, 0, 0, 0)
_EPMD_NAMES = b"\0\1n"


@frozen
class Server:
    """A server to start.

    :param name: as the table shows it.
    :param command: program and arguments; it stays in the foreground.
    :param port: its UDP or TCP port on 127.0.0.1, or both. Below 512, where neither the kernel nor
        rpcbind picks one by itself.
    :param top: its working directory and the first entry of its Python path.
    :param path: the socket of its local channel; None: it has none.
    :param question: the kind of socket and the bytes that tell whether it answers.
    """

    name: str
    command: tuple[str, ...]
    port: int
    top: Path = TOP
    path: str | None = None
    question: tuple[socket.SocketKind, bytes] = (socket.SOCK_DGRAM, _NULL_CALL)

    def ask(self, kind: socket.SocketKind, question: bytes) -> bytes:
        """The start of its answer; empty if it refuses or closes the connection, or is slow."""
        with socket.socket(socket.AF_INET, kind) as skt:
            skt.settimeout(ANSWER_LIMIT)
            try:
                skt.connect((HOST, self.port))
                skt.sendall(question)
                return skt.recv(512)
            except (ConnectionError, TimeoutError):
                return b""


@frozen
class Running:
    """A server that answers.

    :param start_seconds: from exec to the first answer.
    :param log: what it writes.
    """

    server: Server
    pid: int
    start_seconds: float
    log: Path

    def resident_bytes(self) -> int:
        """The resident set (VmRSS)."""
        return self._memory("VmRSS")

    def peak_bytes(self) -> int:
        """The largest resident set since the start (VmHWM)."""
        return self._memory("VmHWM")

    def _memory(self, kind: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{kind}:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def waited_seconds(self) -> float:
        """Seconds that its main thread was ready to run and had no processor."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9

    def cpu_seconds(self) -> float:
        """Seconds on a processor, all threads, in nanoseconds (/proc/PID/stat has 10 ms)."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


@frozen
class Checkout:
    """A version of portmapd.

    :param python: the interpreter of its virtual environment.
    :param port: the first of its servers' ports.
    """

    top: Path
    python: Path
    port: int

    @property
    def twistd(self) -> Path:
        """The twistd beside the interpreter."""
        return self.python.with_name("twistd")

    def portmapd(self, *options: str, number: int = 0) -> Server:
        """The server, with these options of ``twistd portmapd``.

        :param number: tells servers apart that run at the same time.
        """
        port = self.port + number
        path = f"/run/portmapd-{port}/portmapd.sock"
        twistd = (str(self.twistd), "-n", "--pidfile=", "portmapd")
        sockets = ("--port", str(port), "--rpc-socket", "none", "--local-socket", path)
        command = (*twistd, *sockets, *self._limits, *options)
        return Server(PORTMAPD, command, port, self.top, path)

    @property
    def _limits(self) -> tuple[str, ...]:
        """The options that let one user have all mappings; older versions have no such limits."""
        options = ("--max-user-mappings", "--max-total-mappings")
        files = (self.top / "portmapd" / name for name in ("options.py", "tap.py"))
        known = "".join(file.read_text() for file in files if file.exists())
        return tuple(w for option in options if option[2:] in known for w in (option, NO_LIMIT))


THIS = Checkout(TOP, Path(sys.executable), 211)
"""The checkout that the benchmark is part of."""


def other_checkout(top: Path) -> Checkout:
    """Another checkout, with its own virtual environment in ``.venv``."""
    return Checkout(top.resolve(), top.resolve() / ".venv" / "bin" / "python", 231)


def rpcbind() -> Server:
    """The port mapper of libtirpc. Its port cannot be chosen."""
    return Server(RPCBIND, ("rpcbind", "-f"), 111)


def c_loop() -> Server:
    """A bare recvfrom/sendto loop: the most that one datagram at a time can reach."""
    return Server(C_LOOP, (str(BUILD / "loop"), "311"), 311)


def epmd(number: int = 0) -> Server:
    """Erlang's port mapper daemon, the peer of the local channel."""
    port, question = 411 + number, (socket.SOCK_STREAM, _EPMD_NAMES)
    return Server(EPMD, ("epmd", "-port", str(port)), port, question=question)


@contextmanager
def running(server: Server, folder: Path = BUILD) -> Iterator[Running]:
    """Start a server, yield it once it answers, stop it.

    :param folder: where its log goes.
    :raises MeasureError: it does not start; what it wrote is in its log.
    """
    log = folder / f"{server.name.replace(' ', '-')}-{server.port}.log"
    began = time.perf_counter()
    # Each server starts without the mappings of those before it.
    with TemporaryDirectory(prefix="portmapd-bench-") as state:
        process = _start(server, log, state)
        try:
            _await_answer(server, process, log)
            yield Running(server, process.pid, time.perf_counter() - began, log)
        finally:
            _stop(process)


def _start(server: Server, log: Path, state: str) -> subprocess.Popen[bytes]:
    folders = filter(None, (str(server.top), os.environ.get("PYTHONPATH")))
    paths = {"PYTHONPATH": os.pathsep.join(folders), "STATE_DIRECTORY": state}
    environment = {**os.environ, **paths}
    both = subprocess.STDOUT
    with log.open("wb") as output:
        return subprocess.Popen(
            server.command, cwd=server.top, env=environment, stdout=output, stderr=both
        )


def _await_answer(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_LIMIT
    while not server.ask(*server.question):
        if process.poll() is not None:
            wrote = log.read_text(errors="replace").split() or ["nothing"]
            raise MeasureError(f"{server.name} ended at its start: {' '.join(wrote[-20:])}")
        if time.monotonic() > limit:
            raise MeasureError(f"{server.name} does not answer on port {server.port}")
        time.sleep(ASK_AGAIN)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
