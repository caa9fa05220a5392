"""The blocking client in several threads: none waits longer for another than it would by itself."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from portmapd.client.blocking import Group, Portmapper
from portmapd.errors import CallTimedOut, ClientClosed, DaemonUnreachable, Terminated
from tests.support.clients import Mortal, names, told
from tests.support.exchange import PATIENCE
from tests.support.namespace import eventually
from tests.support.talk import Talk

ME = os.getpid()

#: What happens at once takes less than so many seconds, and what waits takes more.
SOON = 1.0
#: How long a thread has to come to where it waits, in seconds.
TURN = 0.2


class Doing:
    """What a thread does; made when the thread waits.

    :param do: what.
    """

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do
        self._result: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        time.sleep(TURN)
        assert self._thread.is_alive(), f"it did not wait: {self._result!r}"

    def _run(self) -> None:
        try:
            self._result = self._do()
        except Exception as error:
            self._result = error

    def result(self, seconds: float = SOON) -> Any:
        """What it returned or raised, which comes in so many seconds."""
        self._thread.join(seconds)
        late = self._thread.is_alive()
        self._thread.join(PATIENCE)
        assert not late, f"only later: {self._result!r}"
        return self._result


@contextmanager
def crowded(skt: socket.socket) -> Iterator[socket.socket]:
    """Have nobody get a connection to the listening *skt*, which is full."""
    with skt, ExitStack() as waiting:
        skt.listen(0)
        for _ in range(3):
            filling = waiting.enter_context(socket.socket(skt.family))
            filling.setblocking(False)
            filling.connect_ex(skt.getsockname())
        yield skt


@contextmanager
def full(path: Path) -> Iterator[socket.socket]:
    """Give a UNIX socket that takes no connection."""
    skt = socket.socket(socket.AF_UNIX)
    skt.bind(str(path))
    with crowded(skt):
        yield skt


@contextmanager
def terminator() -> Iterator[tuple[int, Callable[[], object]]]:
    """Give a terminator, and what fires it."""
    readable, writable = os.pipe()
    try:
        yield readable, lambda: os.write(writable, b"!")
    finally:
        os.close(readable)
        os.close(writable)


# One thread waits for another


def test_connecting(daemon: Mortal, tmp_path: Path) -> None:
    """While one thread connects to a service that hangs, the others ask the daemon."""
    with (
        full(tmp_path / "s") as hangs,
        terminator() as (readable, fire),
        Portmapper(daemon.path) as portmapper,
    ):
        portmapper.reg("a", hangs)
        connecting = Doing(lambda: portmapper.connect_any("a", readable))
        start = time.monotonic()
        assert names(portmapper) == ["a"]
        assert time.monotonic() - start < SOON
        fire()
        assert isinstance(connecting.result(), Terminated)
        eventually(lambda: names(portmapper) == [], "everything is gone", PATIENCE)


def test_time(daemon: Mortal) -> None:
    """An operation's time begins when it does, and not when another thread's has ended."""
    with Portmapper(daemon.path, timeout=2 * SOON) as portmapper:
        portmapper.reg("a", 1)
        daemon.freeze()
        first, second = Doing(portmapper.list), Doing(portmapper.list)
        assert isinstance(first.result(3 * SOON), CallTimedOut)
        assert isinstance(second.result(), CallTimedOut)
        daemon.thaw()
        eventually(lambda: names(portmapper) == ["a"], "it stands again", PATIENCE)


def test_terminator(daemon: Mortal) -> None:
    """It ends an operation that waits for another, and that one, for the connection is closed."""
    with Portmapper(daemon.path) as portmapper, terminator() as (readable, fire):
        portmapper.reg("a", 1)
        daemon.freeze()
        first = Doing(lambda: portmapper.reg("b", 2))
        second = Doing(lambda: portmapper.list(terminator=readable))
        fire()
        assert isinstance(second.result(), Terminated)
        assert type(first.result()) is DaemonUnreachable
        daemon.thaw()
        eventually(lambda: names(portmapper) == [], "everything is gone", PATIENCE)


# One thread closes the client


def close(portmapper: Portmapper) -> None:
    """Close it, which takes no time."""
    start = time.monotonic()
    portmapper.close()
    assert time.monotonic() - start < SOON


def test_close_while_it_asks(daemon: Mortal) -> None:
    """Operations that wait for the daemon, or for each other, end at once."""
    with Portmapper(daemon.path, timeout=PATIENCE) as portmapper:
        portmapper.reg("a", 1)
        daemon.freeze()
        asking = [Doing(portmapper.list), Doing(lambda: portmapper.reg("b", 2))]
        close(portmapper)
        for one in asking:
            assert type(one.result()) is ClientClosed
        daemon.thaw()
    with Portmapper(daemon.path) as other:
        eventually(lambda: names(other) == [], "everything is gone", PATIENCE)


def test_close_while_it_connects(tmp_path: Path) -> None:
    """The same while the daemon takes no connection."""
    with full(tmp_path / "s"), Portmapper(str(tmp_path / "s"), timeout=PATIENCE) as portmapper:
        connecting = Doing(portmapper.list)
        close(portmapper)
        assert type(connecting.result()) is ClientClosed


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_close_while_a_service_hangs(daemon: Mortal, tmp_path: Path, family: int) -> None:
    """The same while a service is connected to."""
    with (
        socket.socket(family) as skt,
        Portmapper(daemon.path, timeout=PATIENCE) as portmapper,
    ):
        skt.bind(str(tmp_path / "s") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        with crowded(skt):
            portmapper.reg("a", skt)
            connecting = Doing(lambda: portmapper.connect_any("a"))
            close(portmapper)
            assert type(connecting.result()) is ClientClosed


@pytest.mark.parametrize("killed", [False, True])
def test_close_while_it_holds(daemon: Mortal, killed: bool) -> None:
    """Holding ends, with and without a daemon."""
    with Portmapper(daemon.path) as portmapper:
        portmapper.reg("a", 1)
        holding = Doing(portmapper.hold)
        if killed:
            daemon.kill()
            # Its attempts become rare.
            time.sleep(4 * SOON)
        close(portmapper)
        assert holding.result() is None


@pytest.mark.parametrize("killed", [False, True])
def test_close_while_it_watches(daemon: Mortal, killed: bool) -> None:
    """An iteration over changes ends after what came already, with and without a daemon."""
    with Portmapper(daemon.path, timeout=PATIENCE) as portmapper:
        portmapper.reg("a", 1)
        changes, unread = portmapper.watch("a"), portmapper.watch("a")
        watching = Doing(lambda: [told(change) for change in changes])
        if killed:
            daemon.kill()
            time.sleep(2 * SOON)
        close(portmapper)
        for result in (watching.result(), [told(change) for change in unread]):
            assert result == [("registered", "a")]


def test_close_while_it_begins_to_watch(daemon: Mortal) -> None:
    """To begin to watch is an operation."""
    with Portmapper(daemon.path, timeout=PATIENCE) as portmapper:
        daemon.freeze()
        beginning = Doing(portmapper.watch)
        close(portmapper)
        assert type(beginning.result()) is ClientClosed


# What is lost


class Taken:
    """Takes names, so that they cannot be registered again.

    :ivar lost: the names of the groups that were told of.
    """

    def __init__(self, daemon: Mortal) -> None:
        self._daemon = daemon
        self._talk: Talk | None = None
        self.lost: list[str] = []

    def take(self, *names: str) -> None:
        """Restart the daemon, and be the first there; what was taken before is free."""
        self.free()
        self._daemon.kill()
        self._daemon.start()
        self._talk = Talk(self._daemon.path)
        self._talk.register(*((name, "1", 1) for name in names))

    def free(self) -> None:
        """Take nothing any more."""
        if self._talk is not None:
            self._talk.skt.close()
            self._talk = None

    def tell(self, group: Group, why: Exception) -> None:
        """Be told of a group that was lost; this is an application with a bug."""
        self.lost += [name for name, *_ in group.services]
        raise KeyError(why)


@pytest.fixture
def taken(daemon: Mortal) -> Iterator[Taken]:
    """Give what takes names."""
    made = Taken(daemon)
    yield made
    made.free()


def test_fault_in_callback(daemon: Mortal, taken: Taken, caplog: pytest.LogCaptureFixture) -> None:
    """What the application's callback raises is logged; the operation and the rest go on."""
    with Portmapper(daemon.path, lost=taken.tell) as portmapper:
        for port, name in enumerate(("x", "y", "z"), 1):
            portmapper.reg(name, port)
        taken.take("x", "y")
        assert sorted(names(portmapper)) == ["x", "y", "z"]
        assert taken.lost == ["x", "y"]
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_fault_while_it_holds(daemon: Mortal, taken: Taken) -> None:
    """The same in the thread that holds, which goes on to hold what is left."""
    with Portmapper(daemon.path, lost=taken.tell) as portmapper, Portmapper(daemon.path) as other:
        for port, name in enumerate(("x", "y", "z"), 1):
            portmapper.reg(name, port)
        taken.take("x", "y")
        holding = Doing(portmapper.hold)
        eventually(lambda: taken.lost == ["x", "y"], "both are told of", PATIENCE)
        taken.take()
        eventually(lambda: names(other) == ["z"], "the rest is registered again", PATIENCE)
        close(portmapper)
        holding.result()


def test_callback_uses_the_client(daemon: Mortal, taken: Taken) -> None:
    """It may register another name, and wait for another thread that uses the client."""
    found: list[list[str]] = []

    def replace(group: Group, why: Exception) -> None:
        portmapper.reg("y", 2)
        thread = threading.Thread(target=lambda: found.append(sorted(names(portmapper))))
        thread.start()
        thread.join(SOON)

    with Portmapper(daemon.path, lost=replace) as portmapper:
        portmapper.reg("x", 1)
        taken.take("x")
        portmapper.list()
        assert found == [["x", "y"]]


def test_callback_closes_the_client(daemon: Mortal, taken: Taken) -> None:
    """It may close the client."""
    with Portmapper(daemon.path, lost=lambda group, why: portmapper.close()) as portmapper:
        portmapper.reg("x", 1)
        taken.take("x")
        portmapper.hold()
        with pytest.raises(ClientClosed):
            portmapper.list()
