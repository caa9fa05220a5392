"""Connecting to named services: over TCP and UNIX sockets, until one accepts."""

import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, NoProtocol
from twisted.internet.protocol import Factory, Protocol

from portmapd.client.twisted import Portmapper
from portmapd.errors import BadArguments, ClientClosed, NotAccepted, NotListed
from tests.support.clients import listed, mortal, pause, portmapper, until
from tests.support.daemon import portmapd
from tests.support.embedded import asynchronous, needs_ipv6
from tests.support.namespace import Namespace
from tests.support.talk import Served

EVERYTHING: Any = reactor


class Greeting(Protocol):
    """Says which service it is of."""

    transport: Any
    factory: "Greeter"

    def connectionMade(self) -> None:
        self.transport.write(self.factory.name)
        self.transport.loseConnection()


class Greeter(Factory):
    """A service that greets."""

    noisy = False

    def __init__(self, name: bytes) -> None:
        self.name = name

    def buildProtocol(self, addr: Any) -> Any:
        made = Greeting()
        made.factory = self
        return made


class Hearing(Protocol):
    """A client that hears a greeting."""

    heard = b""
    is_over = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.is_over = True
        reason.trap(ConnectionDone)


class Hearers(Factory):
    """Makes clients."""

    noisy = False
    protocol = Hearing


async def heard(protocol: Any) -> bytes:
    """What a connected client hears, until it is closed."""
    await until(lambda: protocol.is_over, "the greeting")
    said: bytes = protocol.heard
    return said


@asynccontextmanager
async def greeting(client: Portmapper, name: str, *endpoints: Any) -> AsyncIterator[None]:
    """Run a service at these paths and on these hosts, in the block.

    Each of them says where it is.
    """
    ports = []
    try:
        for where in endpoints:
            greeter = Greeter(where.encode())
            if where.startswith("/"):
                ports.append(EVERYTHING.listenUNIX(where, greeter))
            else:
                ports.append(EVERYTHING.listenTCP(0, greeter, interface=where))
        await client.reg(name, ports)
        yield
    finally:
        for port in ports:
            await port.stopListening()


def dead_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as skt:
        port: int = skt.getsockname()[1]
        return port


@needs_ipv6
@asynchronous
async def test_connect(channel: Served, tmp_path: Path) -> None:
    """Services on TCP, IPv6 alone, and UNIX sockets are all found, in random order."""
    path = str(tmp_path / "socket")
    async with portmapper(channel.path) as client, greeting(client, "a", "127.0.0.1", "::1", path):
        said = [await heard(await client.connect_any("a", Hearers())) for _ in range(40)]
    assert set(said) == {b"127.0.0.1", b"::1", path.encode()}


@asynchronous
async def test_the_one_that_accepts(channel: Served, tmp_path: Path) -> None:
    """Those that do not accept are passed over: dead ports, and sockets that are gone."""
    path = str(tmp_path / "socket")
    async with portmapper(channel.path) as client:
        await client.reg("a", [dead_port(), dead_port(), str(tmp_path / "gone")])
        async with greeting(client, "a", path):
            for _ in range(10):
                protocol = await client.connect("a", os.geteuid(), Hearers())
                assert await heard(protocol) == path.encode()


@asynchronous
async def test_users(channel: Served, tmp_path: Path) -> None:
    """Services of the user that is asked for are connected to, and no other's."""
    path = str(tmp_path / "socket")
    async with portmapper(channel.path) as client, greeting(client, "a", path):
        for user in (None, os.geteuid()):
            assert await heard(await client.connect("a", user, Hearers()))
        with pytest.raises(NotListed):
            await client.connect("a", 54321, Hearers())
        with pytest.raises(BadArguments, match="no such user"):
            await client.connect("a", "no such user", Hearers())
        if os.geteuid() == 0:
            assert await heard(await client.connect_root("a", Hearers()))
        else:
            with pytest.raises(NotListed):
                await client.connect_root("a", Hearers())


@asynchronous
async def test_not_listed(channel: Served) -> None:
    """That there is no service, and that none accepts, are different errors, and say why."""
    async with portmapper(channel.path) as client:
        with pytest.raises(NotListed, match="no service a is registered"):
            await client.connect_any("a", Hearers())
        await client.reg("a", [dead_port(), "/nowhere"])
        with pytest.raises(NotAccepted, match=r"services a.*2 in number.*none accepts"):
            await client.connect_any("a", Hearers())
        await client.regpid2exe()
        with pytest.raises(NotAccepted, match="it has no address"):
            await client.connect_any("pid2exe.portmapd", Hearers())
        assert len(await listed(client)) == 3


class Failing(Protocol):
    """Fails when it is connected."""

    def connectionMade(self) -> None:
        raise ZeroDivisionError


def _fail() -> Protocol:
    raise ZeroDivisionError


def _none() -> Any:
    return None


@pytest.mark.parametrize(
    ("make", "error"),
    [(_fail, ZeroDivisionError), (Failing, ZeroDivisionError), (_none, NoProtocol)],
)
@asynchronous
async def test_application_fails(
    channel: Served, tmp_path: Path, make: Any, error: type[Exception]
) -> None:
    """What the application's code raises is not taken for a service that does not accept."""
    factory = Factory.forProtocol(make)
    factory.noisy = False
    # A protocol that is None has no factory.
    factory.buildProtocol = lambda addr: make()  # type: ignore[method-assign]
    path = str(tmp_path / "socket")
    async with portmapper(channel.path) as client, greeting(client, "a", path):
        with pytest.raises(error):
            await client.connect_any("a", factory)
        assert len(await listed(client)) == 1


class Counting(Hearers):
    """Counts how often it starts and stops."""

    def __init__(self) -> None:
        self.counts = [0, 0]

    def startFactory(self) -> None:
        self.counts[0] += 1

    def stopFactory(self) -> None:
        self.counts[1] += 1


@contextmanager
def filled(path: str) -> Iterator[int]:
    """Fill the queue of the UNIX socket *path* for the block.

    It gives the number of connections in it.
    """
    with ExitStack() as stack:
        count = 0
        while True:
            skt = stack.enter_context(socket.socket(socket.AF_UNIX))
            skt.setblocking(False)
            if skt.connect_ex(path):
                break
            count += 1
        yield count


@asynchronous
async def test_full_queue(channel: Served, tmp_path: Path) -> None:
    """A place in the queue of a UNIX socket is waited for; its factory starts but once."""
    path, factory = str(tmp_path / "socket"), Counting()
    async with portmapper(channel.path) as client:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen(0)
            await client.reg("a", listening)
            with filled(path) as count:
                connecting = client.connect_any("a", factory)
                await pause(0.3)
                assert not connecting.called
            for _ in range(count):
                listening.accept()[0].close()
            protocol: Any = await connecting
            assert factory.counts == [1, 0]
            with listening.accept()[0] as accepted:
                accepted.send(b"hello")
            assert await heard(protocol) == b"hello"
            assert factory.counts == [1, 1]


@asynchronous
async def test_full_queue_of_the_daemon(tmp_path: Path) -> None:
    """An operation waits for a place in the daemon's queue."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:
            daemon.freeze()
            with filled(daemon.path):
                waiting = client.list("a")
                await pause(0.3)
                assert not waiting.called
            daemon.thaw()
            assert await waiting == []


_TO_ITSELF = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from portmapd.client import Portmapper
from portmapd.errors import NotAccepted

async def main(reactor):
    built = []
    factory = Factory.forProtocol(lambda: built.append(1) or Protocol())
    said = set()
    client = Portmapper(reactor, sys.argv[1])
    await client.reg("a", 40004)
    for _ in range(20):
        try:
            await client.connect_any("a", factory)
        except NotAccepted as error:
            said.add(str(error))
    await client.close()
    print(len(built), reactor.getReaders() + reactor.getWriters())
    print(*said, sep="\\n")

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


def test_to_itself(namespace: Namespace, tmp_path: Path) -> None:
    """A connection of a socket to itself, on a port where nobody listens, is none."""
    # The kernel chooses one of these for the client's end.
    ports = "/proc/sys/net/ipv4/ip_local_port_range"
    namespace.run("sh", "-c", f"echo 40004 40005 >{ports}")
    with portmapd(namespace, tmp_path, "--local-socket", "/run/local.sock"):
        said = namespace.run(sys.executable, "-c", _TO_ITSELF, "/run/local.sock")
    assert "nothing listens there" in said
    assert said.startswith("0 "), said


@asynccontextmanager
async def hanging(client: Portmapper) -> AsyncIterator[socket.socket]:
    """Register a service that does not accept on 127.0.0.1; give its socket on ::1, which would."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        other = stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
        other.setblocking(False)
        await client.reg("a", port)
        yield other


def is_unused(skt: socket.socket) -> bool:
    """Whether nobody has connected to a listening socket."""
    try:
        skt.accept()[0].close()
    except BlockingIOError:
        return True
    return False


@needs_ipv6
@asynchronous
async def test_cancel(channel: Served) -> None:
    """One that is cancelled goes on to no other address; everything registered is gone."""
    async with portmapper(channel.path) as client, hanging(client) as other:
        result = client.connect_any("a", Hearers())
        await pause(0.2)
        assert not result.called
        result.cancel()
        with pytest.raises(CancelledError):
            await result
        await pause(0.2)
        assert is_unused(other)
        assert await listed(client) == []


@needs_ipv6
@asynchronous
async def test_close(channel: Served) -> None:
    """One that is under way when the client is closed ends with it."""
    async with portmapper(channel.path) as client, hanging(client) as other:
        result = client.connect_any("a", Hearers())
        await pause(0.2)
        await client.close()
        with pytest.raises(ClientClosed):
            await result
        await pause(0.2)
        assert is_unused(other)
