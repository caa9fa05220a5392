"""The blocking client where an operation does not come to its end, or the daemon to another."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portmapd.channel.box import BoxReader, encode_box
from portmapd.client.blocking import Flags, Group, Portmapper
from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    CallTimedOut,
    DaemonUnreachable,
    PortmapdError,
    Terminated,
)
from tests.support.clients import Mortal, mortal, names
from tests.support.exchange import PATIENCE
from tests.support.impostor import impostor
from tests.support.namespace import eventually
from tests.support.registrant import Registrant
from tests.support.talk import Talk

ME = os.getpid()
NAME = "printer.example.com"
PROGRAM = 400_001

#: Threads that other tests left do nothing that a child could wait for.
MAY_FORK = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def settled(portmapper: Portmapper, expected: list[str]) -> None:
    """Assert what is registered, once the daemon has seen that an earlier connection is closed."""
    eventually(lambda: names(portmapper) == expected, f"{expected} is registered", PATIENCE)


def restart(daemon: Mortal) -> None:
    """Kill it, and start it again."""
    daemon.kill()
    daemon.start()


@contextmanager
def later(do: Callable[[], object], seconds: float = 0.2) -> Iterator[None]:
    """Have *do* done while the block waits."""
    timer = threading.Timer(seconds, do)
    timer.start()
    try:
        yield
    finally:
        timer.join()


class Pipe:
    """A terminator."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        """What becomes readable."""
        return self._read

    def fire(self) -> None:
        """Make it readable."""
        os.write(self._write, b"!")

    def hang_up(self) -> None:
        """Close the other end, which counts as well."""
        os.close(self._write)
        self._write = -1

    def close(self) -> None:
        """Close what is open."""
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give a terminator."""
    made = Pipe()
    yield made
    made.close()


# The daemon goes


def test_no_daemon(tmp_path: Path) -> None:
    """Without a daemon, the error names the path; once there is one, the client works."""
    with Portmapper(str(tmp_path / "portmapd.sock")) as portmapper:
        with pytest.raises(DaemonUnreachable, match=r"portmapd\.sock \(No such file"):
            portmapper.reg(NAME, 1)
        with mortal(tmp_path):
            assert names(portmapper) == []
            portmapper.reg(NAME, 1)
            assert names(portmapper) == [NAME]


def test_long_path() -> None:
    """A path that no socket can have."""
    with pytest.raises(DaemonUnreachable, match="too long"):
        Portmapper("/" + "a" * 200).list()


def test_restart(daemon: Mortal) -> None:
    """After the daemon was killed and restarted, the next operation restores everything."""
    with Portmapper(daemon.path) as portmapper:
        portmapper.reg([("a", 1, Flags.EXCLUSIVE), ("b", "/run/b", Flags.PUBLIC)])
        portmapper.reg("c", 3, rpc=(PROGRAM, 1))
        portmapper.set(PROGRAM, 2, "udp", "0.0.0.0.0.9")
        portmapper.regpid2exe()
        portmapper.reg("gone", 4)
        portmapper.dereg("gone", 4)
        before = portmapper.list(pid=ME), portmapper.mappings()[-2:]
        daemon.kill()
        with pytest.raises(DaemonUnreachable):
            portmapper.list()
        daemon.start()
        assert (portmapper.list(pid=ME), portmapper.mappings()[-2:]) == before


@pytest.mark.parametrize("told", [True, False])
def test_not_restored(daemon: Mortal, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    """What another took meanwhile is reported, with its whole group; the other groups stand."""
    lost: list[tuple[Group, PortmapdError]] = []

    def report(group: Group, why: PortmapdError) -> None:
        lost.append((group, why))

    with Portmapper(daemon.path, lost=report if told else None) as portmapper:
        portmapper.reg([("a", 1), ("taken", 2)])
        portmapper.reg("b", 3)
        restart(daemon)
        with Registrant(daemon.path) as process, Talk(process.connect()) as talk:
            talk.register(("taken", "1", 1))
            assert names(portmapper) == ["b"]
            assert names(portmapper) == ["b"]
        if told:
            ((group, why),) = lost
            assert group.services == (("a", "1", 0), ("taken", "2", 0))
            assert isinstance(why, AlreadyRegistered)
        else:
            assert "taken" in caplog.text
        restart(daemon)
        assert names(portmapper) == ["b"]


def test_own_ghost(daemon: Mortal) -> None:
    """What our own broken connection holds for a moment longer is waited for."""
    with Portmapper(daemon.path) as portmapper:
        portmapper.reg(NAME, 1)
        restart(daemon)
        with Talk(daemon.path) as ghost:
            ghost.register((NAME, "1", 1))
            with later(ghost.skt.close):
                assert names(portmapper) == [NAME]


def test_broken_while_it_waits(daemon: Mortal) -> None:
    """The operation that waits fails, and is not registered again; what stood before is."""
    with Portmapper(daemon.path) as portmapper:
        portmapper.reg("a", 1)
        daemon.freeze()
        with later(daemon.kill), pytest.raises(DaemonUnreachable, match="lost"):
            portmapper.reg("b", 2)
        daemon.start()
        assert names(portmapper) == ["a"]


# Time


def test_timeout(daemon: Mortal) -> None:
    """A daemon that does not answer: the connection is closed, and the next operation restores."""
    with Portmapper(daemon.path, timeout=0.3) as portmapper:
        portmapper.reg("a", 1)
        daemon.freeze()
        with pytest.raises(CallTimedOut, match=r"0\.3 s"):
            portmapper.reg("b", 2)
        daemon.thaw()
        settled(portmapper, ["a"])


def test_full_socket(tmp_path: Path) -> None:
    """A daemon that takes no connection: the time counts from the beginning."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waits:
        full.bind(path)
        full.listen(0)
        waits.connect(path)
        with pytest.raises(CallTimedOut):
            Portmapper(path, timeout=0.3).list()


def test_interrupted(daemon: Mortal) -> None:
    """An exception of a signal handler leaves nothing out of step."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Portmapper(daemon.path) as portmapper:
            portmapper.reg("a", 1)
            daemon.freeze()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                portmapper.list("nobody")
            daemon.thaw()
            settled(portmapper, ["a"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_restart_of_a_slow_signal(daemon: Mortal) -> None:
    """A signal that is handled without an exception interrupts nothing."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    try:
        with Portmapper(daemon.path) as portmapper:
            daemon.freeze()
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            with later(daemon.thaw, 0.5):
                assert portmapper.list("portmapd.portmapd")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Terminators


@pytest.mark.parametrize("end", [Pipe.fire, Pipe.hang_up])
def test_terminator(daemon: Mortal, pipe: Pipe, end: Callable[[Pipe], None]) -> None:
    """The operation that waits is terminated, the connection closed, everything of it gone."""
    with Portmapper(daemon.path) as portmapper:
        portmapper.reg("a", 1)
        daemon.freeze()
        with later(lambda: end(pipe)), pytest.raises(Terminated):
            portmapper.list(terminator=pipe)
        daemon.thaw()
        settled(portmapper, [])


def test_fired_before(daemon: Mortal, pipe: Pipe) -> None:
    """A terminator that is readable already lets nothing begin."""
    pipe.fire()
    with Portmapper(daemon.path) as portmapper:
        with pytest.raises(Terminated):
            portmapper.reg("a", 1, terminator=pipe.fileno())
        settled(portmapper, [])


def test_terminated_while_it_connects(daemon: Mortal, pipe: Pipe, tmp_path: Path) -> None:
    """Also while a service that hangs is connected to."""
    path = str(tmp_path / "s")
    with (
        Portmapper(daemon.path) as portmapper,
        socket.socket(socket.AF_UNIX) as full,
        socket.socket(socket.AF_UNIX) as waits,
    ):
        full.bind(path)
        full.listen(0)
        waits.connect(path)
        portmapper.reg("a", path)
        with later(pipe.fire), pytest.raises(Terminated):
            portmapper.connect_any("a", pipe)
        settled(portmapper, [])


def test_no_terminator(daemon: Mortal) -> None:
    """A terminator that is closed, or none at all, is refused before anything is asked."""
    with Portmapper(daemon.path) as portmapper:
        portmapper.reg("a", 1)
        made = Pipe()
        made.close()
        for terminator in (made, made.fileno(), -1, "pipe"):
            with pytest.raises(BadArguments, match="terminator"):
                portmapper.list(terminator=terminator)  # type: ignore[arg-type]
        assert names(portmapper) == ["a"]


# Holding


def test_hold(daemon: Mortal, pipe: Pipe) -> None:
    """While it is held, everything is registered again without an operation."""
    lost: list[BaseException] = []

    def hold() -> None:
        try:
            portmapper.hold(pipe)
        except Terminated as error:
            lost.append(error)

    with Portmapper(daemon.path) as portmapper, Portmapper(daemon.path) as other:
        portmapper.reg("a", 1, rpc=(PROGRAM, 1))
        thread = threading.Thread(target=hold)
        thread.start()
        for _ in range(2):
            daemon.kill()
            time.sleep(0.2)
            daemon.start()
            eventually(lambda: names(other) == ["a"], "it is registered again", PATIENCE)
        portmapper.reg("b", 2)
        assert sorted(names(other)) == ["a", "b"]
        pipe.fire()
        thread.join(PATIENCE)
        assert len(lost) == 1
        eventually(lambda: names(other) == [], "everything is gone", PATIENCE)


def test_hold_until_closed(daemon: Mortal) -> None:
    """It returns once another thread closes the client, with and without a daemon."""
    for kill in (False, True):
        with Portmapper(daemon.path) as portmapper:
            portmapper.reg("a", 1)
            if kill:
                daemon.kill()
            thread = threading.Thread(target=portmapper.hold)
            thread.start()
            time.sleep(0.2)
        thread.join(PATIENCE)
        assert not thread.is_alive()


# Forks


def in_child(do: Callable[[], bool]) -> bool:
    """What *do* gives in a forked child."""
    child = os.fork()
    if not child:
        # Nothing of the test's process may be undone by it.
        status = 1
        try:
            status = 0 if do() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@MAY_FORK
def test_fork(daemon: Mortal) -> None:
    """A child has a connection of its own, and leaves its parent's alone, whatever it does."""
    with Portmapper(daemon.path) as portmapper:
        portmapper.reg("a", 1)

        def child() -> bool:
            portmapper.reg("b", 2)
            pids = {service.name: service.pid for service in portmapper.list(["a", "b"])}
            portmapper.close()
            return pids == {"a": ME, "b": os.getpid()}

        assert in_child(child)
        assert names(portmapper) == ["a"]
        assert in_child(lambda: not portmapper.close())  # type: ignore[func-returns-value]
        assert names(portmapper) == ["a"]


@MAY_FORK
def test_fork_holds_nothing(daemon: Mortal) -> None:
    """A child that lives on does not keep what its parent closes."""
    go_on, goes_on = os.pipe()
    with Portmapper(daemon.path) as portmapper, Portmapper(daemon.path) as other:
        portmapper.reg("a", 1)
        child = os.fork()
        if not child:
            os.close(goes_on)
            os.read(go_on, 1)
            os._exit(0)
        portmapper.close()
        eventually(lambda: names(other) == [], "it is gone", PATIENCE)
    os.close(goes_on)
    os.close(go_on)
    os.waitpid(child, 0)


# Impostors


def answers(data: bytes) -> Callable[[socket.socket], object]:
    """Answer everything with the same bytes."""

    def behave(skt: socket.socket) -> None:
        while skt.recv(65_536):
            skt.sendall(data)

    return behave


def flood(skt: socket.socket) -> None:
    """Send without an end."""
    while True:
        skt.sendall(b"\0\1a\xff\xff" + bytes(65_535))


def wrong_types(skt: socket.socket) -> None:
    """Answer each question with rows that are none."""
    reader = BoxReader()
    while data := skt.recv(65_536):
        for box in reader.feed(data):
            skt.sendall(encode_box({b"_answer": box[b"_ask"], b"services": b"\0\4name"}))


@pytest.mark.parametrize(
    "behave",
    [answers(b"220 mail.example.com ESMTP\r\n"), answers(b"\0\0"), flood, wrong_types],
    ids=["text", "empty boxes", "flood", "wrong types"],
)
def test_impostor(tmp_path: Path, behave: Callable[[socket.socket], object]) -> None:
    """What is not a portmapd is told so, or runs out of time; memory and time are bounded."""
    with (
        impostor(tmp_path / "s", behave) as path,
        Portmapper(path, timeout=1) as portmapper,
        pytest.raises((DaemonUnreachable, CallTimedOut), match=r"not a portmapd|1 s"),
    ):
        portmapper.list()


def test_hangs_up(tmp_path: Path) -> None:
    """What closes every connection."""
    with (
        impostor(tmp_path / "s", lambda skt: skt.recv(1)) as path,
        pytest.raises(DaemonUnreachable, match="lost"),
    ):
        Portmapper(path).list()
