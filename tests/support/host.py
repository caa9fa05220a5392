"""The daemon on this host, with a free port, for tests that need no namespace."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from portmapd.oncrpc.program import Pmap, encode_pmap
from tests.support.daemon import ERRORS, NO_STATE, TWISTD
from tests.support.exchange import PATIENCE, connect_local, results
from tests.support.namespace import TOP, eventually


def run(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends, or has gone into the background.

    :param env: variables that are added to the environment.
    """
    return subprocess.run(
        command,
        cwd=TOP,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def twistd(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``twistd`` until it ends, or has gone into the background.

    :param words: its options, then those of the port mapper, which keeps no state by default.
    """
    return run(TWISTD, *words, *NO_STATE)


def start(
    output: IO[bytes], *words: str, pid_file: str = "", twistd: Sequence[str] = (TWISTD,)
) -> subprocess.Popen[bytes]:
    """Start a daemon in the foreground, and do not wait until it serves.

    :param output: where it logs.
    :param words: options of ``twistd portmapd``.
    :param twistd: the command that is twistd.
    """
    return subprocess.Popen(
        [*twistd, "-n", f"--pidfile={pid_file}", "portmapd", *words],
        cwd=TOP,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )


def serves(process: subprocess.Popen[bytes], path: str, log: Path) -> bool:
    """Whether a daemon that was started serves at *path* by now.

    :raises AssertionError: it has ended.
    """
    assert process.poll() is None, f"the daemon did not start:\n{log.read_text()}"
    try:
        connect_local(path).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def served_port(path: str) -> int:
    """The port that the daemon serves whose rpcbind socket is at *path*."""
    with connect_local(path) as skt:
        return results(skt, 2, 3, encode_pmap(Pmap(100000, 2, 17, 0))).uint()


class Daemon:
    """A ``twistd portmapd`` in the foreground.

    :ivar path: the path of its rpcbind socket.
    :ivar port: the port that it serves.
    """

    def __init__(self, process: subprocess.Popen[bytes], path: str) -> None:
        self._process = process
        self.path = path
        self.port = served_port(path)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait(self) -> int:
        """Wait for its end, and give its exit status as Popen does."""
        return self._process.wait(PATIENCE)

    @property
    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def resident(self) -> int:
        """Its resident memory, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kilobytes) * 1024


@contextmanager
def daemon(folder: Path, *options: str) -> Iterator[Daemon]:
    """Run a daemon in the block, ended by SIGTERM after it.

    :param folder: where its log and its sockets are.
    """
    path, log = str(folder / "rpc.sock"), folder / "twistd.log"
    words = (*NO_STATE, "--port", "0", "--rpc-socket", path, "--local-socket", "none", *options)
    with log.open("wb") as output:
        process = start(output, *words)
    try:
        eventually(lambda: serves(process, path, log), f"{path} is served")
        yield Daemon(process, path)
    finally:
        process.terminate()
        status = process.wait(PATIENCE)
    said = log.read_text()
    assert status == 0, said
    assert not any(error in said for error in ERRORS), said
