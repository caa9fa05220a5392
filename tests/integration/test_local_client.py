"""The Twisted client of the local channel, and a real daemon: each method, and each error."""

import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.utils import getProcessOutput

from portmapd.client.local import Portmapper
from portmapd.client.values import Flags, RpcMapping, Service
from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    DaemonUnreachable,
    ExecutableUnknown,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NotRegistered,
    ReservedName,
)
from tests.support.clients import listed, mapped, portmapper
from tests.support.embedded import asynchronous
from tests.support.talk import Served

ME = (os.geteuid(), os.getpid())
OWNER = str(ME[0]) if ME[0] else "superuser"
EXE = os.path.realpath(sys.executable)
EVERYTHING: Any = reactor


@asynchronous
async def test_every_method(channel: Served) -> None:
    """Each method does what the daemon then lists."""
    async with portmapper(channel.path) as client, portmapper(channel.path) as other:
        await client.reg("a", 80)
        await client.reg("a", "/run/a", Flags.PUBLIC)
        assert await other.list("a") == [
            Service("a", *ME, 80, ""),
            Service("a", *ME, "/run/a", EXE),
        ]
        await client.reg([("b", [81, 82], Flags.EXCLUSIVE), ("c", 83, 0)])
        assert await listed(other, name=["b", "c"]) == [("b", 81), ("b", 82), ("c", 83)]
        await client.dereg("b", 81)
        await client.dereg([("a", 80), ("c", 83)])
        assert await listed(other) == [("a", "/run/a"), ("b", 82)]
        assert await other.pid2exe(ME[1]) == ""
        await client.regpid2exe()
        assert await other.pid2exe(ME[1]) == EXE
        await client.deregpid2exe()
        assert await other.pid2exe(ME[1]) == ""
        assert await other.pid2exe(0) == ""
        await client.set(400001, 1, "tcp", "127.0.0.1.8.1")
        wanted = RpcMapping(400001, 1, "tcp", "127.0.0.1.8.1", OWNER)
        assert wanted in await other.mappings()
        await client.unset(400001, 1, "tcp", "127.0.0.1.8.1")
        assert await mapped(other) == []


Use = Callable[[Portmapper], Any]
_TYPES: Any = ("nfs", 1, "tcp", "0.0.0.0.0.1")

#: Of each error of the protocol: what is done, and what the message names.
REFUSED: dict[str, tuple[type[Exception], Use, str]] = {
    "name": (InvalidService, lambda c: c.reg("a b", 80), "name 'a b'"),
    "long name": (InvalidService, lambda c: c.reg("a" * 256, 80), "name"),
    "port": (InvalidService, lambda c: c.reg("a", 65_536), "port 65536"),
    "relative path": (InvalidService, lambda c: c.reg("a", "run/a"), "port 'run/a'"),
    "no port": (InvalidService, lambda c: c.reg("a", []), "port"),
    "flags": (InvalidService, lambda c: c.reg("a", 80, 4), "flags 4"),
    "reserved": (ReservedName, lambda c: c.reg("a.portmapd", 80), "'a.portmapd'"),
    "pid2exe": (InvalidService, lambda c: c.reg("pid2exe.portmapd", 80, 2), "pid2exe"),
    "the same": (AlreadyRegistered, lambda c: c.reg("held", 80), "held"),
    "exclusive": (AlreadyRegistered, lambda c: c.reg("held", 81, 1), f"pid {ME[1]}"),
    "announced": (AlreadyRegistered, lambda c: c.regpid2exe(), "pid2exe"),
    "limit": (LimitExceeded, lambda c: c.reg("a", list(range(1, 10))), "10"),
    "not there": (NotRegistered, lambda c: c.dereg("held", 81), "held"),
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
    "too many": (BadArguments, lambda c: c.list(["a" * 200] * 400), "too long"),
    "argument of a type": (BadArguments, lambda c: c.set(*_TYPES), "type"),
}


@asynchronous
async def test_refused(channel: Served) -> None:
    """What a rule refuses is raised with its error; everything that stood stands."""
    async with portmapper(channel.path) as client:
        await client.reg("held", 80)
        await client.set(8, 1, "tcp", "0.0.0.0.0.80")
        await client.regpid2exe()
        before = await client.list(), await client.mappings()
        for what, (kind, use, names) in REFUSED.items():
            with pytest.raises(kind) as caught:
                await use(client)
            assert type(caught.value) is kind, what
            assert names in str(caught.value), what
            assert (await client.list(), await client.mappings()) == before, what


@asynchronous
async def test_executable_unknown(channel: Served, tmp_path: Path) -> None:
    """A process whose executable is gone cannot announce it, nor make it public."""
    copy = tmp_path / "copy"
    copy.write_bytes(Path(EXE).read_bytes())
    copy.chmod(0o755)
    output = await _run(str(copy), "-c", _ANNOUNCE, channel.path)
    assert output.split() == [ExecutableUnknown.__name__] * 2


_ANNOUNCE = """
import os, sys
from twisted.internet.task import react
from twisted.internet.defer import Deferred
from portmapd.client import Portmapper
from portmapd.errors import PortmapdError

async def main(reactor):
    os.unlink(os.readlink("/proc/self/exe"))
    client = Portmapper(reactor, sys.argv[1])
    for announce in (client.regpid2exe, lambda: client.reg("a", 80, 2)):
        try:
            await announce()
        except PortmapdError as error:
            print(type(error).__name__)
    await client.close()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


async def _run(*command: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHOME": sys.base_prefix}
    output: bytes = await getProcessOutput(command[0], command[1:], env, errortoo=True)
    return output.decode()


@contextmanager
def _tcp(host: str) -> Iterator[tuple[Any, int | str]]:
    skt = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    with skt:
        yield skt, skt.getsockname()[1]


@contextmanager
def _udp() -> Iterator[tuple[Any, int | str]]:
    with socket.socket(type=socket.SOCK_DGRAM) as skt:
        skt.bind(("127.0.0.1", 0))
        yield skt, skt.getsockname()[1]


@contextmanager
def _unix(path: str) -> Iterator[tuple[Any, int | str]]:
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(path)
        skt.listen()
        yield skt, path


#: Listening sockets: what they are, and the mapping of each, with its port.
SOCKETS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "TCP": (lambda path: _tcp("127.0.0.1"), "tcp", "127.0.0.1.{}.{}"),
    "TCP on all": (lambda path: _tcp("0.0.0.0"), "tcp", "0.0.0.0.{}.{}"),
    "TCP6": (lambda path: _tcp("::1"), "tcp6", "::1.{}.{}"),
    "UDP": (lambda path: _udp(), "udp", "127.0.0.1.{}.{}"),
    "UNIX": (_unix, "local", ""),
}

#: Twisted's listening ports, likewise.
PORTS: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "TCP": (
        lambda path: EVERYTHING.listenTCP(0, Factory(), interface="127.0.0.1"),
        "tcp",
        "127.0.0.1.{}.{}",
    ),
    "TCP6": (
        lambda path: EVERYTHING.listenTCP(0, Factory(), interface="::1"),
        "tcp6",
        "::1.{}.{}",
    ),
    "UDP": (lambda path: EVERYTHING.listenUDP(0, DatagramProtocol()), "udp", "0.0.0.0.{}.{}"),
    "UNIX": (lambda path: EVERYTHING.listenUNIX(path, Factory()), "local", ""),
}


def _address(form: str, port: int | str) -> str:
    return form.format(port >> 8, port & 255) if isinstance(port, int) else port


async def _registers(client: Portmapper, given: Any, port: Any, netid: str, form: str) -> None:
    """Assert that *given* is registered as *port*, and mapped, and undone alike."""
    await client.reg("a", given, rpc=(400001, 1))
    assert await listed(client) == [("a", port)]
    assert await mapped(client) == [(400001, 1, netid, _address(form, port))]
    await client.dereg("a", given)
    assert await listed(client) == []
    assert await mapped(client) == []


@pytest.mark.parametrize("what", SOCKETS)
@asynchronous
async def test_sockets(channel: Served, tmp_path: Path, what: str) -> None:
    """A listening socket is registered by its port, and its mapping is of its own netid."""
    make, netid, form = SOCKETS[what]
    async with portmapper(channel.path) as client:
        with make(str(tmp_path / "socket")) as (skt, port):
            await _registers(client, skt, port, netid, form)


@pytest.mark.parametrize("what", PORTS)
@asynchronous
async def test_listening_ports(channel: Served, tmp_path: Path, what: str) -> None:
    """So is a listening port of Twisted."""
    make, netid, form = PORTS[what]
    listening = make(str(tmp_path / "socket"))
    try:
        host = listening.getHost()
        port = host.port if hasattr(host, "port") else os.fsdecode(host.name)
        async with portmapper(channel.path) as client:
            await _registers(client, listening, port, netid, form)
    finally:
        await listening.stopListening()


@asynchronous
async def test_list_of_ports(channel: Served) -> None:
    """A list of all forms is one registration; the same port twice counts once."""
    with _tcp("127.0.0.1") as (skt, port), _udp() as (other, number):
        async with portmapper(channel.path) as client:
            await client.reg("a", [skt, port, "/run/a", other, number], rpc=(400001, 1))
            assert await listed(client) == [("a", port), ("a", "/run/a"), ("a", number)]
            assert [row[2] for row in await mapped(client)] == ["local", "tcp", "udp"]
            await client.dereg("a", skt)
            assert [row[2] for row in await mapped(client)] == ["local", "udp"]


@asynchronous
async def test_all_or_nothing(channel: Served) -> None:
    """If one service or mapping of a registration is refused, none of it stands."""
    async with portmapper(channel.path) as client, portmapper(channel.path) as other:
        await other.set(400001, 1, "tcp", "127.0.0.1.8.1")
        await other.reg("b", 80, Flags.EXCLUSIVE)
        for register in (
            lambda: client.reg("a", 80, rpc=(400001, 1)),
            lambda: client.reg("a", ["/run/a", 80], rpc=(400001, 1)),
            lambda: client.reg([("a", 80, 0), ("b", 81, 0)]),
        ):
            with pytest.raises(AlreadyRegistered):
                await register()
            assert await listed(client, name="a") == []
            assert len(await mapped(client)) == 1
        await client.reg("a", 80, rpc=(400001, 1, "udp"))


@asynchronous
async def test_filters(channel: Served) -> None:
    """Each filter takes one value or several, users by uid or name; all of them must match."""
    name = pwd.getpwuid(ME[0]).pw_name
    async with portmapper(channel.path) as client:
        await client.reg([("a", 80, 0), ("b", 80, 0), ("c", 80, 0)])
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
            assert "".join(n for n, _ in await listed(client, **filters)) == names, filters


@pytest.mark.options("--max-services", "2000", "--max-mappings", "500")
@asynchronous
async def test_pages(channel: Served) -> None:
    """A listing of any length comes whole."""
    names = [f"n{number}" for number in range(1_500)]
    async with portmapper(channel.path) as client:
        await client.reg([(name, 80, 0) for name in names])
        assert [name for name, _ in await listed(client)] == names
        mappings = [(400000 + n, 1, "tcp", "127.0.0.1.8.1") for n in range(450)]
        for mapping in mappings:
            await client.set(*mapping)
        assert await mapped(client) == mappings


@asynchronous
async def test_close(channel: Served) -> None:
    """What was registered is gone when the client is closed."""
    async with portmapper(channel.path) as client, portmapper(channel.path) as other:
        await client.reg("a", 80, rpc=(400001, 1))
        await client.close()
        assert await listed(other) == []
        assert await mapped(other) == []


@asynchronous
async def test_no_daemon(tmp_path: Path) -> None:
    """Where there is no daemon, the error says where, and what to do."""
    paths = [tmp_path / "nothing", tmp_path / "file", tmp_path / "dead"]
    paths[1].write_text("")
    with _unix(str(paths[2])):
        pass
    for path in paths:
        async with portmapper(str(path)) as client:
            with pytest.raises(DaemonUnreachable, match="is portmapd running there") as caught:
                await client.reg("a", 80)
            assert str(path) in str(caught.value)


@asynchronous
async def test_no_path() -> None:
    """A path that no socket can have is refused as such."""
    for path in ("/" + "a" * 120, "/a\0b"):
        async with portmapper(path) as client:
            with pytest.raises(DaemonUnreachable, match="at most 107 bytes"):
                await client.list()
