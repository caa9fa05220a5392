"""The blocking client: each of its operations, with a running daemon."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from portmapd.client.blocking import Flags, Portmapper, RpcMapping, Service
from portmapd.errors import (
    DaemonUnreachable,
    NotAccepted,
    NotRegistered,
)
from tests.support.exchange import PATIENCE
from tests.support.namespace import eventually
from tests.support.talk import Served, served

ME, UID = os.getpid(), os.geteuid()
EXE = os.path.realpath("/proc/self/exe")
OWNER = str(UID) if UID else "superuser"
NAME = "printer.example.com"
PROGRAM = 400_001


@pytest.fixture(scope="module")
def daemon() -> Iterator[Served]:
    """Give all tests of this module one daemon."""
    with served("--max-services", "700") as running:
        yield running


@pytest.fixture
def portmapper(daemon: Served) -> Iterator[Portmapper]:
    """Give a client, once what the test before held is gone."""
    with Portmapper(daemon.path) as client:
        eventually(lambda: not mine(client) and not mapped(client), "nothing is registered")
        yield client


@pytest.fixture
def other(daemon: Served) -> Iterator[Portmapper]:
    """Give another client, with a connection of its own."""
    with Portmapper(daemon.path) as client:
        yield client


def mine(portmapper: Portmapper) -> list[tuple[str, int | str]]:
    """Names and ports of what this process has registered."""
    return [(service.name, service.port) for service in portmapper.list(pid=ME)]


def mapped(portmapper: Portmapper) -> list[RpcMapping]:
    """The mappings of the tests' program."""
    return [mapping for mapping in portmapper.mappings() if mapping.program == PROGRAM]


def test_reg(portmapper: Portmapper, other: Portmapper) -> None:
    """What is registered is listed, with its executable if it is public, and gone once closed."""
    portmapper.reg(NAME, 9100)
    portmapper.reg(NAME, "/run/printer.sock", Flags.PUBLIC)
    assert other.list(NAME) == [
        Service(NAME, UID, ME, 9100, ""),
        Service(NAME, UID, ME, "/run/printer.sock", EXE),
    ]
    portmapper.close()
    eventually(lambda: other.list(NAME) == [], "it is gone", PATIENCE)


def test_sockets(portmapper: Portmapper, tmp_path: Path) -> None:
    """Listening sockets, several at once, and several names at once."""
    path = str(tmp_path / "s")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        port = tcp.getsockname()[1]
        portmapper.reg(NAME, [tcp, unix, port])
        assert mine(portmapper) == [(NAME, port), (NAME, path)]
        portmapper.reg([("a", tcp, Flags.EXCLUSIVE), ("b", [5, 6], 0)])
        assert mine(portmapper)[2:] == [("a", port), ("b", 5), ("b", 6)]


def test_dereg(portmapper: Portmapper) -> None:
    """One registration is undone, and the others stay."""
    portmapper.reg(NAME, [1, 2, 3])
    portmapper.dereg(NAME, [1, 3])
    assert mine(portmapper) == [(NAME, 2)]
    portmapper.dereg([(NAME, 2)])
    assert mine(portmapper) == []
    with pytest.raises(NotRegistered):
        portmapper.dereg(NAME, 2)


def test_rpc(portmapper: Portmapper, other: Portmapper) -> None:
    """With rpc=, a service's port becomes an RPC mapping, and goes with it."""
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        portmapper.reg(NAME, tcp, rpc=(PROGRAM, 1))
        address = f"127.0.0.1.{port >> 8}.{port & 255}"
        assert mapped(other) == [RpcMapping(PROGRAM, 1, "tcp", address, OWNER)]
        portmapper.dereg(NAME, tcp)
    assert mapped(other) == []


def test_set(portmapper: Portmapper, other: Portmapper) -> None:
    """RPC mappings of any netid, for the connection's life or until they are unset."""
    tcp = (PROGRAM, 2, "tcp", "0.0.0.0.8.1")
    udp = (PROGRAM, 2, "udp", "127.0.0.1.8.1")
    portmapper.set(*tcp)
    portmapper.set(*udp)
    assert mapped(other) == [RpcMapping(*tcp, OWNER), RpcMapping(*udp, OWNER)]
    portmapper.unset(*udp)
    assert mapped(other) == [RpcMapping(*tcp, OWNER)]
    portmapper.close()
    eventually(lambda: mapped(other) == [], "it is gone", PATIENCE)


def test_connect(portmapper: Portmapper, tmp_path: Path) -> None:
    """It connects to the one registration that accepts, among those that do not."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as gone:
        unix.bind(path)
        unix.listen()
        portmapper.reg(NAME, [gone, "/nowhere", unix, *range(1, 6)])
        gone.close()
        for connect in (portmapper.connect_any, portmapper.connect_root):
            if connect == portmapper.connect_root and UID:
                continue
            with connect(NAME) as client, unix.accept()[0] as server:
                assert client.gettimeout() is None
                client.sendall(b"hello")
                assert server.recv(100) == b"hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connect_tcp(portmapper: Portmapper, host: str) -> None:
    """A port is tried over IPv4 and IPv6."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        portmapper.reg(NAME, server)
        with portmapper.connect(NAME, UID) as client:
            assert client.getpeername()[:2] == (host, server.getsockname()[1])


def test_connect_full(daemon: Served, tmp_path: Path) -> None:
    """A service that hangs leaves time for one that accepts."""
    path = str(tmp_path / "s")
    with (
        Portmapper(daemon.path, timeout=2) as portmapper,
        socket.socket(socket.AF_UNIX) as full,
        socket.socket(socket.AF_UNIX) as waits,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        full.bind(path)
        full.listen(0)
        waits.connect(path)
        portmapper.reg(NAME, [full, server])
        for _ in range(4):
            portmapper.connect_any(NAME).close()
        portmapper.dereg(NAME, server)
        with pytest.raises(NotAccepted, match=r"1 in number.* not done in 2 s"):
            portmapper.connect_any(NAME)
        assert mine(portmapper) == [(NAME, path)]


def test_threads(portmapper: Portmapper) -> None:
    """Threads may share a client: each gets the answers to its own questions."""
    wrong: list[object] = []

    def ask(name: str) -> None:
        for port in range(1, 51):
            portmapper.reg(name, port)
            found = [service.port for service in portmapper.list(name)]
            if found != [port]:
                wrong.append((name, port, found))
            portmapper.dereg(name, port)

    threads = [threading.Thread(target=ask, args=(f"name{number}",)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a path, a user's own daemon is asked if there is one; root asks the system's."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = tmp_path / "portmapd.sock"
    own.touch()
    with Portmapper() as portmapper, pytest.raises(DaemonUnreachable) as caught:
        portmapper.list()
    assert (str(own) if UID else "/run/portmapd/portmapd.sock") in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_no_time(timeout: float) -> None:
    """A timeout is more than nothing."""
    with pytest.raises(ValueError, match="timeout"):
        Portmapper("/nowhere", timeout)
