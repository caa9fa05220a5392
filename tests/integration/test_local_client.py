"""The Twisted client of the local channel, and a real daemon: each method, and each error."""

import os
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

from portmapd.client.twisted import Portmapper
from portmapd.errors import (
    ExecutableUnknown,
)
from tests.support.clients import listed, mapped, portmapper
from tests.support.embedded import asynchronous
from tests.support.talk import Served

ME = (os.geteuid(), os.getpid())
OWNER = str(ME[0]) if ME[0] else "superuser"
EXE = os.path.realpath(sys.executable)
EVERYTHING: Any = reactor


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
async def test_close(channel: Served) -> None:
    """What was registered is gone when the client is closed."""
    async with portmapper(channel.path) as client, portmapper(channel.path) as other:
        await client.reg("a", 80, rpc=(400001, 1))
        await client.close()
        assert await listed(other) == []
        assert await mapped(other) == []
