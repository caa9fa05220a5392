"""Clients of the local channel in the test's own process, and a daemon that may be killed."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from portmapd.client import blocking
from portmapd.client.core.watching import AsyncChanges
from portmapd.client.twisted import Portmapper
from portmapd.client.values import Change
from portmapd.errors import DaemonUnreachable
from tests.support.daemon import ERRORS, NO_STATE
from tests.support.exchange import PATIENCE
from tests.support.host import serves, start
from tests.support.namespace import eventually

#: The name under which a daemon lists itself.
ITSELF = "portmapd.portmapd"
#: How often something is looked at, in seconds.
TURN = 0.02


@asynccontextmanager
async def portmapper(path: str, lost: Any = None) -> AsyncIterator[Portmapper]:
    """Give a client for the block."""
    client = Portmapper(reactor, path, lost)
    try:
        yield client
    finally:
        await client.close()


async def listed(client: Portmapper, **wanted: Any) -> list[tuple[str, int | str]]:
    """Names and ports of what is listed, but for the daemon itself."""
    services = await client.list(**wanted)
    return [(one.name, one.port) for one in services if one.name != ITSELF]


async def until_listed(client: Portmapper, *wanted: tuple[str, int | str]) -> None:
    """Wait until this and nothing else is listed, over whatever happens to the connection."""
    found: list[tuple[str, int | str]] | None = None
    for _ in range(round(PATIENCE / TURN)):
        with suppress(DaemonUnreachable):
            found = sorted(await listed(client))
        if found == sorted(wanted):
            return
        await pause()
    raise AssertionError(f"{found} is listed")


async def mapped(client: Portmapper) -> list[tuple[int, int, str, str]]:
    """The mappings that are listed, but for the port mapper's own."""
    mappings = await client.mappings()
    return [(m.program, m.version, m.netid, m.address) for m in mappings if m.program != 100000]


async def changes(watching: AsyncChanges, count: int) -> list[tuple[str, str]]:
    """The kinds and names, or addresses, of the next changes that are not the port mapper's own."""
    taken: list[tuple[str, str]] = []
    while len(taken) < count:
        waiting = Deferred.fromCoroutine(watching.__anext__())
        kind, what = told(await waiting.addTimeout(PATIENCE, reactor))
        if what:
            taken.append((kind, what))
    return taken


def told(change: Change) -> tuple[str, str]:
    """The kind of a change, and its name or address; empty for the port mapper's own."""
    subject: Any = change.subject
    own = getattr(subject, "program", 0) == 100000 or getattr(subject, "name", "") == ITSELF
    return change.kind, "" if own else getattr(subject, "name", "") or subject.address


async def pause(seconds: float = TURN) -> None:
    """Let the reactor turn."""
    await deferLater(reactor, seconds)


async def until(true: Callable[[], object], what: str) -> None:
    """Wait until *true* is; fail with *what* if that takes too long."""
    anything: Any = reactor
    end = anything.seconds() + PATIENCE
    while not true():
        assert anything.seconds() < end, f"not in {PATIENCE:g} s: {what}"
        await pause()


def names(portmapper: blocking.Portmapper) -> list[str]:
    """The names that this process has registered."""
    return [service.name for service in portmapper.list(pid=os.getpid())]


class Mortal:
    """A daemon that serves nothing but a local channel, and may be killed and started again.

    :ivar path: the path of its socket.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.path = str(folder / "portmapd.sock")
        self._log = folder / "portmapd.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it serves when this returns."""
        words = ("--port", "0", "--rpc-socket", "none", "--local-socket", self.path)
        with self._log.open("ab") as output:
            process = self._process = start(output, *NO_STATE, *words, *self._options)
        eventually(lambda: serves(process, self.path, self._log), f"{self.path} is served")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            if number is not signal.SIGKILL:
                # One that is frozen would not end.
                self._process.send_signal(signal.SIGCONT)
            self._process.wait(PATIENCE)
            self._process = None

    def freeze(self) -> None:
        """Have it do nothing, until it is killed or thawed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def check(self) -> None:
        """Assert that it has logged no error."""
        said = self._log.read_text()
        assert not any(error in said for error in ERRORS), said


@contextmanager
def mortal(folder: Path, *options: str) -> Iterator[Mortal]:
    """Run a daemon in the block that may be killed there."""
    daemon = Mortal(folder, *options)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill(signal.SIGTERM)
    daemon.check()
