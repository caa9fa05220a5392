"""The local channel over its socket: each command, the socket itself, and the daemon's start."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from portmapd.channel import commands as c
from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NotRegistered,
    Refusal,
    ReservedName,
    UnknownCommand,
    UnsupportedVersion,
)
from tests.support.host import daemon, twistd
from tests.support.namespace import eventually
from tests.support.talk import Served, Talk, served

ME = (os.geteuid(), os.getpid())
OWNER = str(os.geteuid()) if os.geteuid() else "superuser"
EXE = os.path.realpath("/proc/self/exe")
TCP = (400001, 1, "tcp", "127.0.0.1.8.1")
LOCAL = (400001, 1, "local", "/run/s")


def service(name: str, port: str = "80", exe: str = "") -> tuple[str, int, int, str, str]:
    """The row of a service of this process."""
    return name, *ME, port, exe


def test_every_command(channel: Served) -> None:
    """Each command of the protocol does what the document says."""
    with channel.talk() as talk, channel.talk() as watching:
        hello = talk.hello()
        assert (hello["version"], hello["limit"]) == (1, 10)
        assert (hello["uid"], hello["pid"]) == ME
        watching.ask(c.WATCH)
        talk.register(("a", "80", 0), ("a", "/run/a", 0), ("b", "81", 3))
        rows = [service("a"), service("a", "/run/a"), service("b", "81", EXE)]
        assert talk.services(pids=[ME[1]]) == rows
        talk.set(TCP, LOCAL)
        assert talk.mappings() == [(*LOCAL, OWNER), (*TCP, OWNER)]
        talk.deregister(("a", "80"))
        assert talk.services(names=["a"], users=[ME[0]]) == [service("a", "/run/a")]
        talk.ask(c.UNSET_MAPPINGS, mappings=[TCP])
        assert talk.mappings() == [(*LOCAL, OWNER)]
        assert [watching.event() for _ in range(7)] == [
            *(("registered", *row) for row in rows),
            ("mapped", *TCP, OWNER),
            ("mapped", *LOCAL, OWNER),
            ("deregistered", *rows[0]),
            ("unmapped", *TCP, OWNER),
        ]
        watching.ask(c.UNWATCH)
        talk.register(("c", "80", 0))
        watching.ask(c.WATCH, names=["d"])
        talk.register(("e", "80", 0), ("d", "80", 0))
        assert watching.event() == ("registered", *service("d"))


REFUSED: list[tuple[type[Refusal], c.Command, dict[str, Any], str]] = [
    (UnsupportedVersion, c.HELLO, {"version": 2}, "version 2"),
    (InvalidService, c.REGISTER, {"services": [("a b", "80", 0)]}, "name 'a b'"),
    (InvalidService, c.REGISTER, {"services": [("a", "0", 0)]}, "port '0'"),
    (InvalidService, c.REGISTER, {"services": [("a", "80", 8)]}, "flags 8"),
    (ReservedName, c.REGISTER, {"services": [("a.portmapd", "80", 0)]}, "name 'a.portmapd'"),
    (AlreadyRegistered, c.REGISTER, {"services": [("held", "80", 0)]}, "name held"),
    (AlreadyRegistered, c.REGISTER, {"services": [("held", "81", 1)]}, f"pid {ME[1]}"),
    (
        LimitExceeded,
        c.REGISTER,
        {"services": [("a", str(port), 0) for port in range(1, 11)]},
        "10 services (--max-services)",
    ),
    (NotRegistered, c.DEREGISTER, {"services": [("held", "81")]}, "name held"),
    (InvalidMapping, c.SET_MAPPINGS, {"mappings": [(1, 1, "ip", "")]}, "netid 'ip'"),
    (InvalidMapping, c.SET_MAPPINGS, {"mappings": [(100000, 5, *TCP[2:])]}, "program 100000"),
    (AlreadyRegistered, c.SET_MAPPINGS, {"mappings": [TCP]}, f"pid {ME[1]}"),
    (
        LimitExceeded,
        c.SET_MAPPINGS,
        {"mappings": [(2, version, *TCP[2:]) for version in range(64)]},
        "64 mappings (--max-mappings)",
    ),
    (NotRegistered, c.UNSET_MAPPINGS, {"mappings": [LOCAL]}, "program 400001"),
    (BadArguments, c.LIST, {"after": "x"}, "after 'x'"),
    (BadArguments, c.LIST_MAPPINGS, {"after": "1"}, "after '1'"),
    (BadArguments, c.Command("Register"), {}, "services is missing"),
    (UnknownCommand, c.Command("Nothing"), {}, "'Nothing'"),
]


def test_every_error(channel: Served) -> None:
    """Each is told with its name and the field; the connection and all it holds stay."""
    with channel.talk() as talk:
        talk.register(("held", "80", 0))
        talk.set(TCP)
        for kind, command, values, field in REFUSED:
            with pytest.raises(kind) as refused:
                talk.ask(command, **values)
            assert type(refused.value) is kind
            assert field in str(refused.value)
        assert talk.names() == ["held"]
        assert talk.mappings() == [(*TCP, OWNER)]


def test_close(channel: Served) -> None:
    """When the client closes the connection, all of it is gone, and watchers know."""
    with channel.talk() as watching, channel.talk() as talk:
        watching.ask(c.WATCH)
        talk.register(("a", "80", 0))
        talk.set(TCP)
        talk.skt.close()
        changes = [watching.event()[0] for _ in range(4)]
        assert changes == ["registered", "mapped", "deregistered", "unmapped"]
        assert watching.names() == []
        assert watching.mappings() == []


@pytest.mark.options("--max-services", "3000")
def test_limit_and_pages(channel: Served) -> None:
    """The limit is the option's; what does not fit a box comes in pages."""
    with channel.talk() as talk:
        assert talk.hello()["limit"] == 3000
        names = [f"{number}" + "x" * 200 for number in range(3000)]
        for at in range(0, 3000, 250):
            talk.register(*((name, "80", 0) for name in names[at : at + 250]))
        assert talk.names() == names
        with pytest.raises(LimitExceeded, match="3000 services"):
            talk.register(("a", "80", 0))


def test_pipelined(channel: Served) -> None:
    """Any number of commands may be on their way."""
    boxes = [c.LIST.ask(b"%d" % number, {"names": ["a"]}) for number in range(5_000)]
    with channel.talk() as talk:
        talk.register(("a", "80", 0))
        for at in range(0, len(boxes), 500):
            talk.send(b"".join(boxes[at : at + 500]))
            tags = [talk.answer()[b"_answer"] for _ in range(500)]
            assert tags == [b"%d" % number for number in range(at, at + 500)]


def test_itself(channel: Served) -> None:
    """The daemon is listed, with its own pid and its socket."""
    row = ("portmapd.portmapd", os.geteuid(), channel.daemon.pid, channel.path, "")
    with channel.talk() as talk:
        assert talk.services() == [row]
        assert talk.services(pids=[channel.daemon.pid]) == [row]


def test_socket(channel: Served) -> None:
    """Everyone may connect, and enter the directory, which was made for it."""
    path = Path(channel.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_socket_of_a_background_daemon(tmp_path: Path) -> None:
    """So it is in the background, and with an umask that keeps others out."""
    path, pid = tmp_path / "made" / "for" / "s", tmp_path / "pid"
    sockets = ("--port", "0", "--rpc-socket", "none", "--local-socket", str(path))
    done = twistd(
        "--umask=077", f"--pidfile={pid}", f"--logfile={tmp_path}/log", "portmapd", *sockets
    )
    assert done.returncode == 0, done.stdout
    eventually(pid.exists, "the daemon runs")
    number = int(pid.read_text())
    try:
        with Talk(str(path)) as talk:
            assert talk.services()[0][2] == number
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        for folder in path.parents[:2]:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    finally:
        os.kill(number, 15)
    eventually(lambda: not path.exists(), "the socket is removed")
    eventually(lambda: not Path(f"/proc/{number}").exists(), "the daemon ends")


def test_instance() -> None:
    """Each start of the daemon has an instance of its own, and registrations do not survive it."""
    instances = set()
    for _ in range(2):
        with served() as channel, channel.talk() as one, channel.talk() as two:
            assert one.names() == []
            one.register(("a", "80", 0))
            instances |= {one.hello()["instance"], two.hello()["instance"]}
    assert len(instances) == 2


def test_stop() -> None:
    """When the daemon ends, its socket is gone and connections are closed."""
    with served() as channel:
        talk = channel.talk()
        talk.register(("a", "80", 0))
        path = Path(channel.path)
    with talk:
        assert talk.is_closed()
    assert not path.exists()


def test_none(tmp_path: Path) -> None:
    """Without the channel there is no socket for it."""
    with daemon(tmp_path, "--local-socket", "none"):
        assert [path for path in tmp_path.iterdir() if path.is_socket()] == [tmp_path / "rpc.sock"]


def test_stale_socket(tmp_path: Path) -> None:
    """A socket that no process serves is replaced."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(path)
    with daemon(tmp_path, "--local-socket", path), Talk(path) as talk:
        assert talk.hello()["version"] == 1


def refused(path: str) -> str:
    """What a daemon says that cannot have *path* for its socket."""
    sockets = ("--port", "0", "--rpc-socket", "none", "--local-socket", path)
    done = twistd("-n", "--pidfile=", "portmapd", *sockets)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    return done.stdout.splitlines()[-1]


def test_live_socket(channel: Served) -> None:
    """One that is served is left alone, and the start ends with a line that says what to do."""
    with channel.talk() as talk:
        said = refused(channel.path)
        assert f"portmapd: the socket {channel.path} cannot be used: another" in said
        assert "--local-socket" in said
        assert talk.hello()["version"] == 1


def test_no_socket(tmp_path: Path) -> None:
    """So it is with what is not a socket, or cannot be made."""
    (tmp_path / "file").write_text("kept")
    assert "it is not a socket" in refused(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "kept"
    assert "--local-socket" in refused(str(tmp_path / "file" / "s"))
    assert "portmapd: local-socket 'here' is not an absolute path" in refused("here")
