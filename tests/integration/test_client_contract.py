"""What holds for every client of the local channel, for Twisted, asyncio and plain sockets."""

import os
import pwd
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from portmapd import __version__
from portmapd.channel import commands as c
from portmapd.channel.box import BoxReader
from portmapd.client import Flags, Group, RpcMapping, Service
from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    ClientClosed,
    DaemonUnreachable,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NoCluster,
    NotAccepted,
    NotListed,
    NotRegistered,
    PortmapdError,
    ReservedName,
    Terminated,
    UnsupportedVersion,
)
from tests.support.client_shells import SHELLS, Shell, in_child
from tests.support.clients import Mortal, told
from tests.support.embedded import may_block
from tests.support.impostor import impostor
from tests.support.namespace import eventually
from tests.support.registrant import PATIENCE
from tests.support.talk import Served, Talk

ME = (os.geteuid(), os.getpid())
OWNER = str(ME[0]) if ME[0] else "superuser"
EXE = os.path.realpath(sys.executable)

#: Threads that other tests left do nothing that a child could wait for.
MAY_FORK = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    """Give each kind of client."""
    made = SHELLS[request.param]()
    yield made
    made.close()


@pytest.fixture
def client(shell: Shell, channel: Served) -> Iterator[Any]:
    """Give a client of a daemon that stays."""
    with shell.client(channel.path) as made:
        yield made


@pytest.fixture
def other(shell: Shell, channel: Served) -> Iterator[Any]:
    """Give another client of that daemon."""
    with shell.client(channel.path) as made:
        yield made


def listed(shell: Shell, client: Any, **wanted: Any) -> list[tuple[str, int | str]]:
    """Names and ports of what this process has registered."""
    services = shell.wait(client.list(**{"pid": ME[1]} | wanted))
    return [(service.name, service.port) for service in services]


def mapped(shell: Shell, client: Any) -> list[tuple[int, int, str, str]]:
    """The RPC mappings, but for the port mapper's own."""
    return [tuple(m[:4]) for m in shell.wait(client.mappings()) if m.program != 100000]


def taken(shell: Shell, changes: Any, count: int) -> list[tuple[str, str]]:
    """The next changes that are not the port mapper's own."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        change = told(shell.next(changes))
        if change[1]:
            found.append(change)
    return found


# Operations


@may_block
def test_operations(shell: Shell, client: Any, other: Any) -> None:
    """Each operation does what the daemon then lists."""
    call = shell.call
    assert call(lambda: client.reg("a", 80)) is None
    call(lambda: client.reg("a", "/run/a", Flags.PUBLIC))
    assert shell.wait(other.list("a")) == [
        Service("a", *ME, 80, ""),
        Service("a", *ME, "/run/a", EXE),
    ]
    call(lambda: client.reg([("b", [81, 82], Flags.EXCLUSIVE), ("c", 83)]))
    assert listed(shell, other, name=["b", "c"]) == [("b", 81), ("b", 82), ("c", 83)]
    assert call(lambda: client.dereg("b", 81)) is None
    call(lambda: client.dereg([("a", 80), ("c", 83)]))
    assert listed(shell, other) == [("a", "/run/a"), ("b", 82)]
    assert call(lambda: other.pid2exe(ME[1])) == ""
    assert call(client.regpid2exe) is None
    assert call(lambda: other.pid2exe(ME[1])) == EXE
    assert call(client.deregpid2exe) is None
    assert call(lambda: other.pid2exe(ME[1])) == ""
    assert call(lambda: other.pid2exe(0)) == ""
    status = call(client.status)
    assert (status.release, status.services, status.behind) == (__version__, 3, None)
    assert status.mappings == len(call(client.mappings))
    assert call(lambda: client.set(400001, 1, "tcp", "127.0.0.1.8.1")) is None
    mapping = RpcMapping(400001, 1, "tcp", "127.0.0.1.8.1", OWNER)
    assert mapping in call(other.mappings)
    assert call(lambda: client.unset(400001, 1, "tcp", "127.0.0.1.8.1")) is None
    assert mapped(shell, other) == []


@may_block
def test_rpc(shell: Shell, client: Any, other: Any) -> None:
    """RPC mappings come and go with the service; those that were unset already are not an error."""
    with socket.create_server(("127.0.0.1", 0)) as skt:
        port = skt.getsockname()[1]
        shell.call(lambda: client.reg("a", [skt, port], rpc=(400001, 1)))
        assert listed(shell, other) == [("a", port)]
        address = f"127.0.0.1.{port >> 8}.{port & 255}"
        assert mapped(shell, other) == [(400001, 1, "tcp", address)]
        shell.call(lambda: client.dereg("a", skt))
    assert (listed(shell, other), mapped(shell, other)) == ([], [])


@may_block
def test_every_port_of_a_name(shell: Shell, client: Any, other: Any) -> None:
    """Without a port, every port of the name goes that this client registered, mappings too."""
    shell.wait(other.reg("a", 79))
    shell.wait(client.reg([("a", [80, "/run/a"]), ("b", 81)]))
    shell.wait(client.reg("a", 82, rpc=(400001, 1)))
    shell.wait(client.dereg("a"))
    assert listed(shell, other) == [("a", 79), ("b", 81)]
    assert mapped(shell, other) == []


@may_block
def test_udp_socket(shell: Shell, client: Any, other: Any) -> None:
    """A bound UDP socket is a port; one that is not bound is none."""
    with socket.socket(type=socket.SOCK_DGRAM) as skt:
        with pytest.raises(InvalidService, match="not bound"):
            shell.wait(client.reg("a", skt))
        skt.bind(("127.0.0.1", 0))
        port = skt.getsockname()[1]
        shell.wait(client.reg("a", skt, rpc=(400001, 1)))
        assert listed(shell, other) == [("a", port)]
        address = f"127.0.0.1.{port >> 8}.{port & 255}"
        assert mapped(shell, other) == [(400001, 1, "udp", address)]
        shell.wait(client.dereg("a"))
    assert (listed(shell, other), mapped(shell, other)) == ([], [])


@may_block
def test_all_or_nothing(shell: Shell, client: Any, other: Any) -> None:
    """If one service or mapping of a registration is refused, none of it is registered."""
    shell.wait(other.set(400001, 1, "tcp", "127.0.0.1.8.1"))
    shell.wait(other.reg("b", 80, Flags.EXCLUSIVE))
    for register in (
        lambda: client.reg("a", 80, rpc=(400001, 1)),
        lambda: client.reg("a", ["/run/a", 80], rpc=(400001, 1)),
        lambda: client.reg([("a", 80, 0), ("b", 81, 0)]),
    ):
        with pytest.raises(AlreadyRegistered):
            shell.call(register)
        assert listed(shell, client, name="a") == []
        assert len(mapped(shell, client)) == 1
    shell.call(lambda: client.reg("a", 80, rpc=(400001, 1, "udp")))


@may_block
def test_filters(shell: Shell, client: Any) -> None:
    """Each filter takes one value or several, users by uid or name; all of them must match."""
    name = pwd.getpwuid(ME[0]).pw_name
    shell.wait(client.reg([("a", 80, 0), ("b", 80, 0), ("c", 80, 0)]))
    (itself,) = shell.wait(client.list("portmapd.portmapd"))
    assert itself.pid != ME[1]
    wanted: list[tuple[dict[str, Any], str]] = [
        ({}, "abc"),
        ({"name": "a"}, "a"),
        ({"name": ("a", "c", "d")}, "ac"),
        ({"user": ME[0]}, "abc"),
        ({"user": name}, "abc"),
        ({"user": {name, 1234}, "name": {"b"}}, "b"),
        ({"user": 1234}, ""),
        ({"pid": ME[1]}, "abc"),
        ({"pid": [1, ME[1]], "user": [name], "name": ["c"]}, "c"),
        ({"pid": 1, "name": "a"}, ""),
    ]
    for filters, names in wanted:
        assert "".join(n for n, _ in listed(shell, client, **filters)) == names, filters


@pytest.mark.options("--max-services", "2000", "--max-mappings", "500")
@may_block
def test_pages(shell: Shell, client: Any) -> None:
    """A listing of any length comes whole, and in order."""
    names = [f"{number}".rjust(255, "n") for number in range(1_500)]
    for start in range(0, 1_500, 200):
        shell.wait(client.reg([(name, 80) for name in names[start : start + 200]]))
    assert [name for name, _ in listed(shell, client)] == names
    mappings = [(400000 + n, 1, "tcp", "127.0.0.1.8.1") for n in range(450)]
    for mapping in mappings:
        shell.wait(client.set(*mapping))
    assert mapped(shell, client) == mappings


# Refusals

Use = Callable[[Any], Any]
_TYPES: Any = ("nfs", 1, "tcp", "0.0.0.0.0.1")
_DESCRIPTOR = 1_000_000

#: Of each error: what is done, and what the message names.
REFUSED: dict[str, tuple[type[Exception], Use, str]] = {
    "name": (InvalidService, lambda c: c.reg("a b", 80), "name 'a b'"),
    "long name": (InvalidService, lambda c: c.reg("a" * 256, 80), "name"),
    "very long name": (BadArguments, lambda c: c.reg("a" * 70_000, 80), "too long"),
    "surrogate": (BadArguments, lambda c: c.reg("a", os.fsdecode(b"/\xff")), "argument"),
    "port": (InvalidService, lambda c: c.reg("a", 65_536), "port 65536"),
    "port 0": (InvalidService, lambda c: c.reg("a", 0), "port 0"),
    "relative path": (InvalidService, lambda c: c.reg("a", "run/a"), "port 'run/a'"),
    "no port": (InvalidService, lambda c: c.reg("a", []), "port"),
    "flags": (InvalidService, lambda c: c.reg("a", 80, 8), "flags 8"),
    "shared": (NoCluster, lambda c: c.reg("a", 80, 4), "start it with --cluster"),
    "shared path": (InvalidService, lambda c: c.reg("a", "/run/a", 4), "port '/run/a'"),
    "cluster listed": (NoCluster, lambda c: c.list(cluster=True), "start it with --cluster"),
    "cluster mapped": (NoCluster, lambda c: c.mappings(cluster=True), "start it with --cluster"),
    "cluster status": (NoCluster, lambda c: c.cluster(), "start it with --cluster"),
    "flags of a type": (InvalidService, lambda c: c.reg("a", 80, "public"), "flags"),
    "no names": (InvalidService, lambda c: c.reg([]), "name"),
    "reserved": (ReservedName, lambda c: c.reg("a.portmapd", 80), "'a.portmapd'"),
    "pid2exe": (InvalidService, lambda c: c.reg("pid2exe.portmapd", 80, 2), "pid2exe"),
    "the same": (AlreadyRegistered, lambda c: c.reg("held", 80), "held"),
    "exclusive": (AlreadyRegistered, lambda c: c.reg("held", 81, 1), f"pid {ME[1]}"),
    "announced": (AlreadyRegistered, lambda c: c.regpid2exe(), "pid2exe"),
    "limit": (LimitExceeded, lambda c: c.reg("a", list(range(1, 10))), "10"),
    "not registered": (NotRegistered, lambda c: c.dereg("held", 81), "held"),
    "no port of it": (NotRegistered, lambda c: c.dereg("other"), "name other: it is not"),
    "no name": (InvalidService, lambda c: c.dereg("a b"), "name 'a b'"),
    "empty name": (InvalidService, lambda c: c.dereg(""), "name"),
    "no such port": (InvalidService, lambda c: c.dereg("held", 0), "port 0"),
    "not set": (NotRegistered, lambda c: c.unset(9, 1, "tcp", "0.0.0.0.0.80"), "program 9"),
    "other address": (NotRegistered, lambda c: c.unset(8, 1, "tcp", "0.0.0.0.0.81"), "program 8"),
    "mapped": (AlreadyRegistered, lambda c: c.set(8, 1, "tcp", "0.0.0.0.0.81"), "program 8"),
    "netid": (InvalidMapping, lambda c: c.set(9, 1, "sctp", "0.0.0.0.0.80"), "sctp"),
    "address": (InvalidMapping, lambda c: c.set(9, 1, "tcp", "0.0.0.0.80"), "0.0.0.0.80"),
    "program": (InvalidMapping, lambda c: c.set(1 << 32, 1, "tcp", "0.0.0.0.0.80"), "program"),
    "our program": (InvalidMapping, lambda c: c.set(100000, 2, "tcp", "0.0.0.0.0.80"), "100000"),
    "rpc": (InvalidMapping, lambda c: c.reg("a", 80, rpc=(9,)), "rpc"),
    "user": (BadArguments, lambda c: c.list(user="no such user"), "no such user"),
    "name of a type": (BadArguments, lambda c: c.list(7), "name 7"),
    "pid of a type": (BadArguments, lambda c: c.list(pid="7"), "pid '7'"),
    "pid2exe of a type": (BadArguments, lambda c: c.pid2exe("7"), "pid '7'"),
    "too many": (BadArguments, lambda c: c.list(["a" * 200] * 400), "too long"),
    "argument of a type": (BadArguments, lambda c: c.set(*_TYPES), "type"),
    "no terminator": (BadArguments, lambda c: c.list(terminator=_DESCRIPTOR), "terminator"),
    "terminator": (BadArguments, lambda c: c.reg("a", 80, terminator=object()), "terminator"),
}


@may_block
def test_refusals(shell: Shell, client: Any) -> None:
    """An error is raised where an operation's errors come; everything registered stays so."""
    shell.wait(client.reg("held", 80))
    shell.wait(client.set(8, 1, "tcp", "0.0.0.0.0.80"))
    shell.wait(client.regpid2exe())
    before = shell.wait(client.list()), shell.wait(client.mappings())
    for what, (kind, use, names) in REFUSED.items():
        with pytest.raises(kind) as caught:
            shell.call(lambda use=use: use(client))  # type: ignore[misc]
        assert type(caught.value) is kind, what
        assert names in str(caught.value), what
        assert (shell.wait(client.list()), shell.wait(client.mappings())) == before, what


@may_block
def test_wrong_constructor_arguments(shell: Shell) -> None:
    """They are refused at once."""
    with pytest.raises(TypeError):
        shell.make(7)  # type: ignore[arg-type]


@may_block
def test_watch_refuses(shell: Shell, client: Any) -> None:
    """Names that are none are refused by the call, in every client."""
    for names in ([], [7], 7, "a b", ["a", "b\n"], "", "a" * 256, "\udcff"):
        with pytest.raises(BadArguments, match="name"):
            client.watch(names)


# Connecting


@contextmanager
def greeter(skt: socket.socket, text: bytes) -> Iterator[None]:
    """Greet each connection of a listening socket in the block."""

    def greet() -> None:
        with suppress(OSError):
            while True:
                with skt.accept()[0] as accepted:
                    accepted.sendall(text)

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        yield
    finally:
        skt.shutdown(socket.SHUT_RDWR)
        thread.join()


@may_block
def test_connect(shell: Shell, client: Any, tmp_path: Path) -> None:
    """The one registration that accepts is connected to, over TCP or a UNIX socket."""
    path = str(tmp_path / "s")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        shell.wait(client.reg("a", [tcp, "/nowhere"]))
        shell.wait(client.reg("b", [unix, "/nowhere"]))
        with greeter(tcp, b"tcp"), greeter(unix, b"unix"):
            for _ in range(3):
                assert shell.receive(shell.connect(client, "a")) == b"tcp"
                connection = shell.connect(client, "b", ME[0], method="connect")
                assert shell.receive(connection) == b"unix"
            if ME[0] == 0:
                connection = shell.connect(client, "b", method="connect_root")
                assert shell.receive(connection) == b"unix"


@may_block
def test_connect_to_nothing(shell: Shell, client: Any) -> None:
    """Nothing is registered, or nothing accepts: two errors, and both say why."""
    with pytest.raises(NotListed, match="no service a is registered"):
        shell.connect(client, "a")
    shell.wait(client.reg("a", ["/nowhere", "/nowhere/else"]))
    with pytest.raises(NotListed):
        shell.connect(client, "a", 54321, method="connect")
    with pytest.raises(NotAccepted, match=r"a, 2 in number, none accepts.*one: No such file"):
        shell.connect(client, "a")
    with pytest.raises(BadArguments, match="no such user"):
        shell.connect(client, "a", "no such user", method="connect")
    shell.wait(client.regpid2exe())
    with pytest.raises(NotAccepted, match="it has no address"):
        shell.connect(client, c.PID2EXE)
    assert listed(shell, client)[:2] == [("a", "/nowhere"), ("a", "/nowhere/else")]
    assert len(listed(shell, client)) == 3


# Terminators, time-outs, the end


@contextmanager
def pipe() -> Iterator[tuple[int, Callable[[], object]]]:
    """Give a terminator, and what makes it readable."""
    readable, writable = os.pipe()
    try:
        yield readable, lambda: os.write(writable, b"!")
    finally:
        os.close(readable)
        os.close(writable)


#: Every operation that takes a terminator, but for those that connect.
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "reg": lambda c, t: c.reg("b", 81, terminator=t),
    "dereg": lambda c, t: c.dereg("a", 80, terminator=t),
    "list": lambda c, t: c.list(terminator=t),
    "regpid2exe": lambda c, t: c.regpid2exe(terminator=t),
    "deregpid2exe": lambda c, t: c.deregpid2exe(terminator=t),
    "pid2exe": lambda c, t: c.pid2exe(1, terminator=t),
    "set": lambda c, t: c.set(400002, 1, "tcp", "0.0.0.0.0.81", terminator=t),
    "unset": lambda c, t: c.unset(400001, 1, "tcp", "0.0.0.0.0.80", terminator=t),
    "mappings": lambda c, t: c.mappings(terminator=t),
}


@pytest.mark.parametrize("what", OPERATIONS)
@may_block
def test_terminator(shell: Shell, daemon: Mortal, what: str) -> None:
    """When it becomes readable, the operation ends, and everything registered is gone."""
    with shell.client(daemon.path) as client, pipe() as (readable, fire):
        shell.wait(client.reg("a", 80, rpc=(400001, 1)))
        daemon.freeze()
        timer = threading.Timer(0.2, fire)
        timer.start()
        with pytest.raises(Terminated):
            shell.call(lambda: OPERATIONS[what](client, readable))
        timer.join()
        daemon.thaw()
        shell.until(lambda: listed(shell, client) == [], "everything is gone")
        assert mapped(shell, client) == []


@may_block
def test_terminator_before(shell: Shell, client: Any, other: Any) -> None:
    """One that is readable from the beginning ends it, too."""
    with pipe() as (readable, fire):
        fire()
        shell.wait(client.reg("a", 80))
        with pytest.raises(Terminated):
            shell.call(lambda: client.reg("b", 81, terminator=readable))
        shell.until(lambda: listed(shell, other) == [], "everything is gone")


@may_block
def test_quiet_terminator(shell: Shell, client: Any) -> None:
    """One that stays quiet changes nothing, and may be used again and again."""
    before = len(os.listdir("/proc/self/fd"))
    with pipe() as (readable, _):
        for port in range(1, 10):
            shell.call(lambda port=port: client.reg("a", port, terminator=readable))  # type: ignore[misc]
        assert len(listed(shell, client)) == 9
        assert len(os.listdir("/proc/self/fd")) <= before + 3


@pytest.mark.parametrize("what", OPERATIONS)
@may_block
def test_time_out(shell: Shell, daemon: Mortal, what: str) -> None:
    """An operation that runs out of time is done or not, and never half done."""
    with shell.client(daemon.path) as client, shell.client(daemon.path) as other:
        shell.wait(client.reg("a", 80, rpc=(400001, 1)))
        shell.wait(other.list())
        daemon.freeze()
        with pytest.raises(shell.timed_out):
            shell.limited(client, 0.2, lambda c: OPERATIONS[what](c, None))
        daemon.thaw()
        wanted = [("a", 80)] if shell.stays_registered else []
        mappings = [(400001, 1, "tcp", "0.0.0.0.0.80")] if shell.stays_registered else []
        shell.until(lambda: listed(shell, client) == wanted, "what was registered before")
        shell.until(lambda: mapped(shell, client) == mappings, "what was mapped before")
        shell.wait(client.reg("b", 82))
        shell.until(lambda: ("b", 82) in listed(shell, other), "the next registration")


@may_block
def test_closed(shell: Shell, channel: Served) -> None:
    """A client that is closed has nothing registered, and says so; closing it again is fine."""
    with shell.client(channel.path) as client, shell.client(channel.path) as other:
        shell.wait(client.reg("a", 80, rpc=(400001, 1)))
        changes = client.watch("a")
        assert taken(shell, changes, 1) == [("registered", "a")]
        shell.wait(client.close())
        shell.until(lambda: not listed(shell, other) and not mapped(shell, other), "it is gone")
        for operate in (client.list, client.regpid2exe, lambda: client.reg("a", 80)):
            with pytest.raises(ClientClosed):
                shell.call(operate)
        with pytest.raises(ClientClosed):
            client.watch()
        assert shell.next(changes) is None
        shell.wait(client.close())


# No daemon, another one, and a restart


@may_block
def test_no_daemon(shell: Shell, tmp_path: Path) -> None:
    """Where there is no daemon, the error says where, and what to do."""
    paths = [tmp_path / "nothing", tmp_path / "file", tmp_path / "dead"]
    paths[1].write_text("")
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(str(paths[2]))
    for path in paths:
        with shell.client(str(path)) as client:
            with pytest.raises(DaemonUnreachable, match="is portmapd running there") as caught:
                shell.call(lambda client=client: client.reg("a", 80))  # type: ignore[misc]
            assert f"no daemon answers at {path} (" in str(caught.value)


@may_block
def test_no_path(shell: Shell) -> None:
    """A path that no socket can have is refused as such."""
    for path in ("/" + "a" * 120, "/a\0b"):
        with (
            shell.client(path) as client,
            pytest.raises(DaemonUnreachable, match="at most 107 bytes"),
        ):
            shell.call(client.list)


def another_version(skt: socket.socket) -> None:
    """Answer as a daemon of version 2."""
    reader = BoxReader()
    while data := skt.recv(65_536):
        for box in reader.feed(data):
            refusal = UnsupportedVersion("version 1: this daemon speaks version 2")
            skt.sendall(c.encode_refusal(box[c.ASK], refusal))


@may_block
def test_another_version(shell: Shell, tmp_path: Path) -> None:
    """A daemon that speaks another version is known by its greeting."""
    with impostor(tmp_path / "s", another_version) as path, shell.client(path) as client:
        for operate in (client.list, lambda: client.reg("a", 80)):
            with pytest.raises(UnsupportedVersion, match="speaks version 2"):
                shell.call(operate)


@pytest.mark.parametrize("says", [b"220 mail.example.com ESMTP\r\n", b"\0\1a\0\0" * 1_000])
@may_block
def test_something_else(shell: Shell, tmp_path: Path, says: bytes) -> None:
    """What is not a portmapd at all is told so."""

    def behave(skt: socket.socket) -> None:
        skt.sendall(says)
        while skt.recv(65_536):
            pass

    with impostor(tmp_path / "s", behave) as path, shell.client(path) as client:
        with pytest.raises(DaemonUnreachable, match="is not a portmapd that this client") as caught:
            shell.call(client.list)
        assert path in str(caught.value)


@may_block
def test_restart(shell: Shell, daemon: Mortal) -> None:
    """After a restart everything is registered again; what others took is reported."""
    lost: list[tuple[Group, PortmapdError]] = []

    def tell(group: Group, why: PortmapdError) -> None:
        lost.append((group, why))

    with shell.client(daemon.path, tell) as client:
        shell.wait(client.reg([("a", 1, Flags.EXCLUSIVE), ("b", "/run/b", Flags.PUBLIC)]))
        shell.wait(client.reg("c", 3, rpc=(400001, 1)))
        shell.wait(client.set(400001, 2, "udp", "0.0.0.0.0.9"))
        shell.wait(client.reg([("taken", 4), ("with.it", 5)]))
        shell.wait(client.reg("gone", 6))
        shell.wait(client.dereg("gone", 6))
        before = listed(shell, client), mapped(shell, client)
        daemon.kill()
        with pytest.raises(DaemonUnreachable):
            shell.call(client.list)
        daemon.start()
        shell.until(lambda: (listed(shell, client), mapped(shell, client)) == before, "it is back")
        daemon.kill()
        daemon.start()
        with Talk(daemon.path) as thief:
            thief.register(("taken", "9", 1))
            shell.until(lambda: listed(shell, client) and lost, "the rest is back")
            names = {name for name, _ in listed(shell, client)}
            assert names == {"a", "b", "c", "taken"}
        ((group, why),) = lost
        assert group.services == (("taken", "4", 0), ("with.it", "5", 0))
        assert isinstance(why, AlreadyRegistered)


@may_block
def test_broken_while_it_waits(shell: Shell, daemon: Mortal) -> None:
    """The operation that waits fails and is not tried again; the rest is registered again."""
    with shell.client(daemon.path) as client:
        shell.wait(client.reg("a", 1))
        daemon.freeze()
        timer = threading.Timer(0.2, daemon.kill)
        timer.start()
        with pytest.raises(DaemonUnreachable, match="was lost"):
            shell.call(lambda: client.reg("b", 2))
        timer.join()
        daemon.start()
        shell.until(lambda: listed(shell, client) == [("a", 1)], "only what was there before")


# Forks


@MAY_FORK
@may_block
def test_fork(shell: Shell, daemon: Mortal) -> None:
    """A child's copy has nothing registered; the parent's registrations stay."""
    with shell.client(daemon.path) as client:
        shell.wait(client.reg("a", 1))
        before = listed(shell, client)

        def child() -> bool:
            error = shell.fails_in_child(lambda: client.reg("b", 2))
            if shell.usable_after_fork:
                services = client.list(["a", "b"])
                owners = {service.name: service.pid for service in services}
                return error is None and owners == {"a": ME[1], "b": os.getpid()}
            return type(error) is DaemonUnreachable and "forked" in str(error)

        assert in_child(child)
        assert listed(shell, client) == before
        assert in_child(lambda: shell.fails_in_child(client.close) is None)
        shell.wait(client.reg("c", 3))
        assert listed(shell, client) == [("a", 1), ("c", 3)]


# Watching


@may_block
def test_watch(shell: Shell, client: Any, other: Any) -> None:
    """It begins with what is registered; then every change comes, in order."""
    shell.wait(other.reg("a", 1))
    changes, named = client.watch(), client.watch(["b", "z"])
    assert taken(shell, changes, 1) == [("registered", "a")]
    shell.wait(client.list())
    shell.wait(other.reg([("b", 2), ("c", 3)]))
    shell.wait(other.set(400001, 1, "tcp", "0.0.0.0.0.9"))
    shell.wait(other.dereg("a", 1))
    shell.wait(other.unset(400001, 1, "tcp", "0.0.0.0.0.9"))
    assert taken(shell, changes, 5) == [
        ("registered", "b"),
        ("registered", "c"),
        ("mapped", "0.0.0.0.0.9"),
        ("deregistered", "a"),
        ("unmapped", "0.0.0.0.0.9"),
    ]
    assert taken(shell, named, 1) == [("registered", "b")]
    for one in (changes, named):
        one.close()
        assert shell.next(one) is None


@pytest.mark.options("--max-services", "20000")
@may_block
def test_watch_of_many_names(shell: Shell, client: Any, other: Any) -> None:
    """6,000 names are watched, though they do not fit one message."""
    names = [f"service-{number:04}.example.com" for number in range(6_000)]
    for start in range(0, 6_000, 1_000):
        shell.wait(other.reg([(name, 1) for name in names[start : start + 1_000]]))
    shell.wait(other.reg("not.watched", 1))
    changes = client.watch(names)
    assert Counter(taken(shell, changes, 6_000)) == Counter(("registered", n) for n in names)
    shell.wait(other.dereg([("not.watched", 1), (names[17], 1)]))
    assert taken(shell, changes, 1) == [("deregistered", names[17])]
    changes.close()


@may_block
def test_watch_over_a_restart(shell: Shell, daemon: Mortal) -> None:
    """What is different after a restart is told; nothing is missed, and nothing comes twice."""
    with shell.client(daemon.path) as client, Talk(daemon.path) as talk:
        talk.register(("b", "2", 0), ("c", "3", 0))
        changes = client.watch(["a", "b", "c"])
        assert taken(shell, changes, 2) == [("registered", "b"), ("registered", "c")]
        daemon.kill()
        daemon.start()
        with Talk(daemon.path) as again:
            again.register(("a", "1", 0))
            found = taken(shell, changes, 3)
            known = Counter(["b", "c"])
            for kind, name in found:
                known[name] += 1 if kind == "registered" else -1
            assert +known == Counter(["a"])
            again.register(("c", "3", 0))
            assert taken(shell, changes, 1) == [("registered", "c")]
        changes.close()


@pytest.mark.options("--max-services", "100000")
@may_block
def test_slow_watcher(shell: Shell, client: Any, channel: Served) -> None:
    """A watcher who is too slow for all changes gets those that make its knowledge right."""
    names = [f"n{number:0200}" for number in range(200)]
    known: Counter[str] = Counter()
    changes = client.watch()
    shell.wait(client.list())
    with channel.talk() as talk:
        for _ in range(20):
            talk.register(*((name, "1", 0) for name in names))
            talk.deregister(*((name, "1") for name in names))
        talk.register(("last", "1", 0))
        seen = 0
        while not known["last"]:
            kind, name = told(shell.next(changes))
            seen += 1
            if name:
                known[name] += 1 if kind == "registered" else -1
            assert known[name] >= 0
        assert +known == Counter(["last"])
        assert seen <= 20 * 2 * len(names) + 1
    changes.close()


@may_block
def test_errors_do_not_pile_up(shell: Shell, daemon: Mortal) -> None:
    """Errors are raised anew: each has a traceback of its own."""
    with shell.client(daemon.path) as client:
        daemon.kill()
        errors = []
        for _ in range(2):
            start = time.monotonic()
            with pytest.raises(DaemonUnreachable) as caught:
                shell.call(client.list)
            errors.append(caught.value)
            assert time.monotonic() - start < PATIENCE
        assert errors[0] is not errors[1]
        daemon.start()
        eventually(lambda: Path(daemon.path).exists(), "it serves")
