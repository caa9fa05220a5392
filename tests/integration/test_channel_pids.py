"""Process ids that are used again: no process is taken for the one that had its pid before."""

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from portmapd.channel.commands import REGISTER, WATCH
from portmapd.errors import ExecutableUnknown, LimitExceeded
from tests.integration.test_channel_peers import EXE, PID2EXE, executable
from tests.support.daemon import TWISTD, portmapd
from tests.support.namespace import Namespace, Started
from tests.support.registrant import Registrant
from tests.support.talk import Talk

#: The process id that comes again; no other process of the namespace gets near it by itself.
PID = 20_000
#: twistd, with a number for SO_PEERPIDFD that no kernel knows.
OLD_TWISTD = """
from portmapd.server import peer_process
from twisted.scripts.twistd import run
peer_process._SO_PEERPIDFD = 9999
run()
"""


class Host:
    """A namespace with a daemon and its processes.

    :ivar other: an executable that is not this interpreter's.
    """

    def __init__(self, namespace: Namespace, daemon: Started, folder: Path) -> None:
        self.namespace = namespace
        self.daemon = daemon
        self.path = str(folder / "s")
        self.other = Path(shutil.copy(EXE, folder / "other"))

    @contextmanager
    def process(self, executable: str = sys.executable) -> Iterator[Registrant]:
        """Start a process with that id."""
        self.namespace.run("sh", "-c", f"echo {PID - 1} >/proc/sys/kernel/ns_last_pid")
        command = self.namespace.enter("env", f"PYTHONHOME={sys.base_prefix}", executable)
        with Registrant(self.path, command=tuple(command)) as process:
            assert process.pid == PID
            yield process

    def kill(self, process: Registrant) -> None:
        """Kill a process, and wait until its id is free."""
        self.signal(signal.SIGKILL, process.pid)
        process.wait()

    def signal(self, number: signal.Signals, pid: int) -> None:
        """Send a signal to a process of the namespace."""
        self.namespace.run("kill", f"-{number}", str(pid))

    def talk(self) -> Talk:
        """A connection of a process outside of the namespace."""
        return Talk(self.path)


@contextmanager
def serving(
    namespace: Namespace, folder: Path, twistd: tuple[str, ...] = (TWISTD,)
) -> Iterator[Host]:
    """Run a daemon in the namespace."""
    path = str(folder / "s")
    options = ("--local-socket", path, "--max-services", "3")
    with portmapd(namespace, folder, *options, socket=path, twistd=twistd) as daemon:
        yield Host(namespace, daemon, folder)


@pytest.fixture
def host(namespace: Namespace, tmp_path: Path) -> Iterator[Host]:
    """Give a namespace with a daemon."""
    with serving(namespace, tmp_path) as made:
        yield made


@pytest.fixture
def old_host(namespace: Namespace, tmp_path: Path) -> Iterator[Host]:
    """Give one whose kernel does not tell the pidfd of a socket's peer, as before Linux 6.5."""
    with serving(namespace, tmp_path, (sys.executable, "-c", OLD_TWISTD)) as made:
        yield made


def test_next(host: Host) -> None:
    """The next process of an id has nothing of the one before."""
    with host.process() as first, Talk(first.connect()) as before:
        before.register(PID2EXE, ("a", "80", 2), ("b", "80", 1))
        host.kill(first)
        with host.process(str(host.other)) as second, Talk(second.connect()) as after:
            assert after.hello()["pid"] == PID
            assert after.names() == []
            assert executable(after, PID) == []
            after.register(PID2EXE, ("c", "80", 1), ("b", "80", 1))
            assert executable(after, PID) == [str(host.other)]
            with pytest.raises(LimitExceeded, match="this one holds 3"):
                after.register(("d", "80", 0))
            assert before.is_closed()


def test_child_holds_the_socket(host: Host) -> None:
    """A child of the process before, which holds its socket, has nothing either."""
    with host.process() as first, Talk(first.connect()) as before, host.talk() as watching:
        before.register(PID2EXE)
        watching.ask(WATCH)
        child = first.fork()
        host.kill(first)
        assert watching.event() == ("deregistered", PID2EXE[0], 0, PID, "*", EXE)
        with host.process(str(host.other)) as second, Talk(second.connect()) as after:
            after.register(PID2EXE)
            assert watching.event() == ("registered", PID2EXE[0], 0, PID, "*", str(host.other))
            assert before.is_closed()
        host.signal(signal.SIGKILL, child)


def test_gone_before_it_was_seen(host: Host) -> None:
    """A process that connects and ends before the daemon looks is not taken for the next one."""
    asked = REGISTER.ask(b"1", {"services": [PID2EXE]})
    with ExitStack() as stack:
        watching, first = host.talk(), stack.enter_context(host.process())
        stack.enter_context(watching).ask(WATCH)
        with host.daemon.paused():
            before = stack.enter_context(Talk(first.connect()))
            before.send(asked)
            child = first.fork()
            host.kill(first)
            second = stack.enter_context(host.process(str(host.other)))
            after = stack.enter_context(Talk(second.connect()))
            after.send(asked)
        assert watching.event() == ("registered", PID2EXE[0], 0, PID, "*", str(host.other))
        assert executable(watching, PID) == [str(host.other)]
        assert before.is_closed()
        assert executable(watching, PID) == [str(host.other)]
        host.signal(signal.SIGKILL, child)


def test_outside(host: Host) -> None:
    """A process whose id the daemon cannot see is served, and its end is seen all the same."""
    with Registrant(host.path) as process, Talk(process.connect()) as talk:
        assert talk.hello()["pid"] == 0
        with pytest.raises(ExecutableUnknown, match="process in another pid namespace"):
            talk.register(PID2EXE)
        with host.talk() as watching:
            watching.ask(WATCH)
            talk.register(("a", "80", 1))
            assert watching.event() == ("registered", "a", 0, 0, "80", "")
            process.kill()
            assert watching.event() == ("deregistered", "a", 0, 0, "80", "")
            assert talk.is_closed()


def test_limits_outside(host: Host) -> None:
    """Such processes are not taken for each other."""
    with Registrant(host.path) as first, Registrant(host.path) as second:
        for process in (first, second):
            with Talk(process.connect()) as talk:
                talk.register(*((name, "80", 0) for name in "abc"))
                with pytest.raises(LimitExceeded):
                    talk.register(("d", "80", 0))


def test_outside_of_old_kernels(old_host: Host) -> None:
    """A process outside is served there as well, and what it registers ends with its connection."""
    with Registrant(old_host.path) as process, old_host.talk() as watching:
        watching.ask(WATCH)
        with Talk(process.connect()) as one, Talk(process.connect()) as two:
            assert one.hello()["pid"] == 0
            with pytest.raises(ExecutableUnknown, match="register without flag 2"):
                one.register(PID2EXE)
            one.register(("a", "80", 1))
            assert watching.event() == ("registered", "a", 0, 0, "80", "")
            two.register(("b", "80", 0), ("c", "80", 0), ("d", "80", 0))
            with pytest.raises(LimitExceeded, match="--max-services"):
                two.register(("e", "80", 0))
            assert [watching.event()[1] for _ in "bcd"] == ["b", "c", "d"]
            # This process has copies of the connections, so that they outlive the other one.
            process.kill()
        gone = [watching.event()[:2] for _ in "abcd"]
        assert sorted(gone) == [("deregistered", name) for name in "abcd"]


def test_inside_of_old_kernels(old_host: Host) -> None:
    """Processes that the daemon sees are told apart, and their ends are seen, as ever."""
    with old_host.process() as first, Talk(first.connect()) as talk, old_host.talk() as watching:
        watching.ask(WATCH)
        talk.register(PID2EXE)
        assert watching.event() == ("registered", PID2EXE[0], 0, PID, "*", EXE)
        child = first.fork()
        old_host.kill(first)
        assert watching.event() == ("deregistered", PID2EXE[0], 0, PID, "*", EXE)
        old_host.signal(signal.SIGKILL, child)
