"""Who registers on the local channel: users, processes, children, and what they execute."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portmapd.channel.commands import WATCH
from portmapd.errors import AlreadyRegistered, ExecutableUnknown, LimitExceeded
from tests.support.registrant import Registrant
from tests.support.talk import Served, Talk

PID2EXE = ("pid2exe.portmapd", "*", 2)
EXE = os.path.realpath("/proc/self/exe")
TCP = (400001, 1, "tcp", "127.0.0.1.8.1")

#: Between the end of a process and the news of it; 0.1 s at most on a machine with nothing to do.
SOON = 2.0

root = pytest.mark.skipif(os.geteuid() != 0, reason="to be several users takes root")


@pytest.fixture
def registrant(channel: Served) -> Iterator[Registrant]:
    """Give a process that can connect."""
    with channel.registrant() as process:
        yield process


@pytest.fixture
def watching(channel: Served) -> Iterator[Talk]:
    """Give a connection that watches everything."""
    with channel.talk() as talk:
        talk.ask(WATCH)
        yield talk


def executable(talk: Talk, pid: int) -> list[str]:
    """What is announced as the executable of a process, once for each announcement."""
    return [row[4] for row in talk.services(names=[PID2EXE[0]], pids=[pid])]


@root
def test_users(channel: Served) -> None:
    """Each user has names of its own, and mappings under its own uid."""
    with channel.registrant(uid=1) as first, channel.registrant(uid=2) as second:
        one, two, root = Talk(first.connect()), Talk(second.connect()), channel.talk()
        with one, two, root:
            for talk, uid, program in ((one, 1, 7), (two, 2, 8), (root, 0, 9)):
                assert talk.hello()["uid"] == uid
                talk.register(("a", "80", 1))
                talk.set((program, *TCP[1:]))
            who = [(first.pid, 1), (second.pid, 2), (os.getpid(), 0)]
            assert root.services(names=["a"]) == [("a", uid, pid, "80", "") for pid, uid in who]
            assert root.services(users=[2]) == [("a", 2, second.pid, "80", "")]
            assert [row[4] for row in root.mappings()] == ["1", "2", "superuser"]
            with pytest.raises(
                AlreadyRegistered, match=f"mapped to .* by uid [0-9]+, pid {second.pid}"
            ):
                one.set((8, *TCP[1:]))


@root
def test_user_of_the_moment(channel: Served) -> None:
    """A connection's user is that of the moment when it was made."""
    with channel.registrant() as process:
        before = Talk(process.connect())
        process.tell("become", 1)
        after = Talk(process.connect())
        with before, after:
            assert [before.hello()["uid"], after.hello()["uid"]] == [0, 1]
            before.register(("a", "80", 1))
            after.register(("a", "80", 1))
            with pytest.raises(AlreadyRegistered, match=f"uid 0, pid {process.pid}"):
                before.register(("a", "81", 0))


@root
def test_executable_of_other_users(channel: Served) -> None:
    """The daemon, as root, knows the executables of all."""
    with channel.registrant(uid=1) as process, Talk(process.connect()) as talk:
        talk.register(PID2EXE)
        with channel.registrant(uid=2) as other, Talk(other.connect()) as asking:
            assert executable(asking, process.pid) == [EXE]


@pytest.mark.options("--max-services", "3")
def test_limit(channel: Served) -> None:
    """The limit is of a process, with all its connections, and of no other."""
    with channel.registrant() as process, channel.registrant() as other:
        one, two = Talk(process.connect()), Talk(process.connect())
        with one, two, Talk(other.connect()) as three:
            one.register(("a", "80", 0), ("b", "80", 0), ("x", "80", 0))
            two.set(TCP)
            with pytest.raises(LimitExceeded, match=r"--max-services.* this one holds 3"):
                two.register(("c", "80", 0))
            three.register(*((name, "80", 0) for name in "def"))
            one.skt.close()
            process.tell("close")
            while three.services(names=["a"]):
                time.sleep(0.01)
            two.register(("c", "80", 0), ("a", "80", 0))


@pytest.mark.options("--max-services", "1", "--max-mappings", "2")
def test_limit_on_mappings(channel: Served) -> None:
    """Mappings are counted apart from services, by process as well."""
    with channel.registrant() as process, channel.registrant() as other:
        one, two = Talk(process.connect()), Talk(process.connect())
        with one, two, Talk(other.connect()) as three:
            one.register(("a", "80", 0))
            one.set((9, 1, "tcp", "0.0.0.0.0.9"))
            two.set((9, 2, "tcp", "0.0.0.0.0.9"))
            with pytest.raises(LimitExceeded, match=r"2 mappings .--max-mappings"):
                two.set((9, 3, "tcp", "0.0.0.0.0.9"))
            three.set((9, 3, "tcp", "0.0.0.0.0.9"), (9, 4, "tcp", "0.0.0.0.0.9"))


def test_nfs_server(channel: Served, registrant: Registrant) -> None:
    """A small NFS server, three programs on four netids, fits the usual limit."""
    with Talk(registrant.connect()) as talk:
        talk.set(
            *(
                (program, version, netid, f"{host}.8.1")
                for program, versions in ((100003, (3, 4)), (100005, (1, 2, 3)), (100227, (3,)))
                for version in versions
                for netid, host in (
                    ("udp", "0.0.0.0"),
                    ("tcp", "0.0.0.0"),
                    ("udp6", "::"),
                    ("tcp6", "::"),
                )
            )
        )


def test_killed(watching: Talk, registrant: Registrant) -> None:
    """SIGKILL of the registrant: all that it held is gone, and watchers know, soon."""
    talks = [Talk(registrant.connect()) for _ in range(3)]
    for number, talk in enumerate(talks):
        talk.register((f"n{number}", "80", 0))
    talks[0].set(TCP)
    assert [watching.event()[0] for _ in range(4)] == ["registered"] * 3 + ["mapped"]
    registrant.kill()
    ended = time.monotonic()
    changes = [watching.event()[0] for _ in range(4)]
    assert sorted(changes) == ["deregistered"] * 3 + ["unmapped"]
    assert time.monotonic() - ended < SOON
    assert watching.names() == []
    assert watching.mappings() == []
    for talk in talks:
        # This process holds the sockets still.
        with talk:
            assert talk.is_closed()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_alone(watching: Talk, registrant: Registrant, number: signal.Signals) -> None:
    """So it is when no other process holds the socket."""
    with Talk(registrant.connect()) as talk:
        talk.register(("a", "80", 0))
    assert watching.event()[0] == "registered"
    registrant.kill(number)
    ended = time.monotonic()
    assert watching.event()[0] == "deregistered"
    assert time.monotonic() - ended < SOON


def test_child(watching: Talk, registrant: Registrant) -> None:
    """A child that holds the socket keeps nothing: the end of the parent is the end."""
    with Talk(registrant.connect()) as talk:
        talk.register(("a", "80", 0))
        child = registrant.fork()
        try:
            assert watching.event() == ("registered", "a", *me(registrant), "80", "")
            assert talk.hello()["pid"] == registrant.pid
            registrant.kill()
            assert watching.event() == ("deregistered", "a", *me(registrant), "80", "")
            assert Path(f"/proc/{child}").exists()
            assert talk.is_closed()
        finally:
            os.kill(child, signal.SIGKILL)


def me(process: Registrant) -> tuple[int, int]:
    """The uid and the pid of a process of ours."""
    return os.geteuid(), process.pid


def test_child_of_one_that_only_asked(registrant: Registrant) -> None:
    """Neither does it keep a connection on which nothing was registered."""
    with Talk(registrant.connect()) as talk:
        assert talk.hello()["pid"] == registrant.pid
        child = registrant.fork()
        try:
            registrant.kill()
            ended = time.monotonic()
            while not talk.is_closed():
                assert time.monotonic() - ended < SOON
                time.sleep(0.01)
        finally:
            os.kill(child, signal.SIGKILL)


def test_child_ends(watching: Talk, registrant: Registrant) -> None:
    """The end of a child ends nothing."""
    with Talk(registrant.connect()) as talk:
        talk.register(("a", "80", 0))
        child = registrant.fork()
        os.kill(child, signal.SIGKILL)
        registrant.tell("wait", child)
        talk.register(("b", "80", 0))
        assert [watching.event()[:2] for _ in range(2)] == [
            ("registered", "a"),
            ("registered", "b"),
        ]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Give another interpreter: a copy of this one's executable."""
    tmp_path.chmod(0o755)
    return Path(shutil.copy(EXE, tmp_path / "other"))


def test_pid2exe(channel: Served, registrant: Registrant) -> None:
    """A process announces its executable, and stops."""
    with Talk(registrant.connect()) as talk, channel.talk() as asking:
        assert executable(asking, registrant.pid) == []
        talk.register(PID2EXE)
        assert executable(asking, registrant.pid) == [EXE]
        assert executable(asking, os.getpid()) == []
        talk.deregister(PID2EXE[:2])
        assert executable(asking, registrant.pid) == []


def test_execute(channel: Served, registrant: Registrant, copy: Path) -> None:
    """A process that became another program is not known by the one it was."""
    before = Talk(registrant.connect())
    before.register(PID2EXE, ("a", "80", 2))
    registrant.execute(str(copy), sys.base_prefix)
    with before, channel.talk() as asking:
        assert executable(asking, registrant.pid) == [EXE]
        with Talk(registrant.connect()) as after:
            after.hello()
            assert executable(asking, registrant.pid) == [""]
            assert asking.services(names=["a"]) == [("a", *me(registrant), "80", "")]
            with pytest.raises(ExecutableUnknown, match=f"pid {registrant.pid}"):
                before.register(("b", "80", 2))
            after.register(PID2EXE)
            assert executable(asking, registrant.pid) == ["", str(copy)]


def test_deleted(channel: Served, registrant: Registrant, copy: Path) -> None:
    """A file that was deleted is not an executable; the connection is good but for that."""
    registrant.execute(str(copy), sys.base_prefix)
    copy.unlink()
    with Talk(registrant.connect()) as talk:
        for new in (PID2EXE, ("a", "80", 2), ("a", "80", 3)):
            with pytest.raises(ExecutableUnknown, match="deleted, replaced, or may not be read"):
                talk.register(("b", "80", 0), new)
        talk.register(("b", "80", 1))
        assert talk.services(names=["b"]) == [("b", *me(registrant), "80", "")]


def test_replaced(channel: Served, registrant: Registrant, copy: Path) -> None:
    """Neither is a file that took its place, or its name as the kernel shows it."""
    registrant.execute(str(copy), sys.base_prefix)
    shutil.copy(EXE, copy.with_name("new"))
    copy.with_name("new").rename(copy)
    shutil.copy(EXE, f"{copy} (deleted)")
    with Talk(registrant.connect()) as talk, pytest.raises(ExecutableUnknown):
        talk.register(PID2EXE)
    registrant.execute(str(copy), sys.base_prefix)
    with Talk(registrant.connect()) as talk:
        talk.register(PID2EXE)
        assert executable(talk, registrant.pid) == [str(copy)]


def test_odd_executable(channel: Served, registrant: Registrant, copy: Path) -> None:
    """A path that is not text is not known; one that is odd text is what it is."""
    odd = copy.rename(copy.with_name("a\nb \N{PRINTER}"))
    registrant.execute(str(odd), sys.base_prefix)
    with Talk(registrant.connect()) as talk:
        talk.register(PID2EXE)
        assert executable(talk, registrant.pid) == [str(odd)]
        no_text = odd.rename(os.fsdecode(bytes(copy.parent) + b"/\xff"))
        registrant.execute(str(no_text), sys.base_prefix)
        with Talk(registrant.connect()) as again, pytest.raises(ExecutableUnknown):
            again.register(PID2EXE)
