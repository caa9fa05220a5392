"""PortmapServer on Twisted's own transports: what it refuses, and its end."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import (
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
)
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent
from zope.interface import implementer

from portmapd.errors import CallTimedOut, ConfigurationError
from portmapd.oncrpc.message import decode_reply
from portmapd.portmapper.access import Policy
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.server.portmap_server import PortmapServer
from portmapd.service import PortmapperService
from tests.integration.test_service import closed_since, descriptors
from tests.support import stock_amp as stock
from tests.support.embedded import asking, asynchronous, configured, needs_ipv6, serving
from tests.support.exchange import connect, connect_local, exchange, question

HOST = "127.0.0.1"
UDP: Any = IReactorUDP(reactor)


@asynccontextmanager
async def made(registry: Registry | None = None, **options: Any) -> AsyncIterator[PortmapServer]:
    """Give a server for the block."""
    server = PortmapServer(registry or Registry(), Policy(), reactor, **options)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def listening(endpoint: Any, factory: Any) -> AsyncIterator[Any]:
    """Listen in the block."""
    port = await endpoint.listen(factory)
    try:
        yield port
    finally:
        await port.stopListening()


REFUSED = {
    "wildcard": ("", None, "this UDP port is bound to 0.0.0.0, .*listen on each address by itself"),
    "told": ("", HOST, "bound to 0.0.0.0, and not to 127.0.0.1 .*interface='127.0.0.1'"),
    "other": ("127.0.0.5", HOST, "bound to 127.0.0.5, and not to 127.0.0.1"),
    "other family": ("::1", HOST, "bound to ::1, and not to 127.0.0.1"),
    "wildcard of IPv6": ("::", None, "this UDP port is bound to ::, .*PortmapperService"),
}


@needs_ipv6
@pytest.mark.parametrize("case", REFUSED)
@asynchronous
async def test_refused_udp_port(case: str) -> None:
    """A UDP port whose callers would be answered wrongly is refused at listen, and closed."""
    interface, address, why = REFUSED[case]
    before = descriptors()
    async with made() as server:
        with pytest.raises(ConfigurationError, match=why):
            UDP.listenUDP(0, server.datagramProtocol(address), interface)
    assert await closed_since(before)


@asynchronous
async def test_refused_address() -> None:
    """An address that is none is refused at once."""
    async with made() as server:
        with pytest.raises(ConfigurationError, match="'localhost' is no IPv4 or IPv6 address"):
            server.datagramProtocol("localhost")


@needs_ipv6
@asynchronous
async def test_udp_ports() -> None:
    """Ports that are bound to one address are served, whether the protocol is told it or not."""
    async with made() as server:
        for host, address in ((HOST, HOST), ("127.0.0.5", None), ("::1", "0:0::1"), ("::1", None)):
            port = UDP.listenUDP(0, server.datagramProtocol(address), host)
            async with asking(port.getHost().port, host) as client:
                await client.null()
            await port.stopListening()


@asynchronous
async def test_channel_over_tcp(logged_errors: list[LogEvent]) -> None:
    """TCP does not tell who connects: the channel refuses it, and the log says so once."""

    def is_refused() -> bool:
        try:
            with connect(socket.SOCK_STREAM, HOST, port.getHost().port) as skt:
                return skt.recv(1) == b""
        except ConnectionResetError:
            return True

    async with made() as server:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface=HOST)
        async with listening(endpoint, server.channelFactory()) as port:
            for _ in range(3):
                assert await deferToThread(is_refused)
    (event,) = logged_errors
    logged_errors.clear()
    said = formatEvent(event)
    assert "a connection is refused: only a UNIX socket tells" in said
    assert "UNIXServerEndpoint" in said


@implementer(IReactorTime, IReactorUDP, IReactorTCP, IReactorUNIX)
class WithoutDescriptors:
    """The reactor, as one that watches no descriptors of others."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@asynchronous
async def test_reactor_without_descriptors(tmp_path: Path) -> None:
    """Such a reactor serves program 100000; the channel is refused there when it is made."""
    plain = cast("IReactorTime", WithoutDescriptors())
    server = PortmapServer(Registry(), Policy(), plain)
    with pytest.raises(ConfigurationError, match="a reactor that provides IReactorFDSet"):
        server.channelFactory()
    await server.close()
    path = str(tmp_path / "rpc")
    service = PortmapperService(configured(rpc_socket=path), plain)
    service.startService()
    for transport, host in (("udp", HOST), ("tcp", HOST), ("local", path)):
        async with asking(service.port, host, transport) as client:
            assert await client.getport(100000, 2, socket.IPPROTO_UDP) == service.port
    await service.stopService()
    for options, why in (
        ({"local_socket": str(tmp_path / "s")}, "IReactorFDSet"),
        ({"interfaces": ("0.0.0.0",)}, "listen on each address by itself"),
    ):
        service = PortmapperService(configured(**options), plain)
        before = descriptors()
        with pytest.raises(ConfigurationError, match=why):
            service.startService()
        assert await closed_since(before)


@asynchronous
async def test_stale_socket_on_plain_transports(tmp_path: Path) -> None:
    """There, too, a stale socket is replaced, a live one is not, and everyone may connect."""
    plain = cast("IReactorTime", WithoutDescriptors())
    path = tmp_path / "rpc"
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(str(path))
    config = configured(interfaces=(), rpc_socket=str(path))
    service, other = (PortmapperService(config, plain) for _ in range(2))
    service.startService()
    assert path.stat().st_mode & 0o777 == 0o666
    with pytest.raises(ConfigurationError, match="another process serves there"):
        other.startService()
    async with asking(0, str(path), "local") as client:
        await client.null()
    await service.stopService()
    assert not path.exists()


@asynchronous
async def test_close(tmp_path: Path) -> None:
    """After its end every connection is closed, nothing is served, and the registry is let go."""
    before = descriptors()
    registry = Registry()
    server = PortmapServer(registry, Policy(), reactor)
    path, rpc_path = str(tmp_path / "s"), str(tmp_path / "r")
    udp = UDP.listenUDP(0, server.datagramProtocol(), HOST, 65_535)
    ports = [
        udp,
        await UNIXServerEndpoint(reactor, path).listen(server.channelFactory()),
        await UNIXServerEndpoint(reactor, rpc_path).listen(server.streamFactory()),
    ]
    client = await connectProtocol(UNIXClientEndpoint(reactor, path), stock.Client())
    service = {"name": "a", "port": "80", "flags": 0}
    await client.callRemote(stock.Register, services=[service])
    await client.callRemote(stock.Watch)
    with connect_local(rpc_path) as stream, connect_local(path) as late:
        assert decode_reply(await deferToThread(exchange, stream, question(2, 0))) == b""
        await server.close()
        assert list(registry.services()) == []
        assert await deferToThread(is_closed, stream)
        assert await deferToThread(is_closed, late)
    with connect_local(rpc_path) as stream:
        assert await deferToThread(is_closed, stream)
    async with asking(udp.getHost().port, timeout=0.3) as asked:
        with pytest.raises(CallTimedOut):
            await asked.null()
    assert not any(registry._followers.values())
    for port in ports:
        await port.stopListening()
    assert await closed_since(before)


def is_closed(skt: socket.socket) -> bool:
    """Does the other end close the stream?"""
    try:
        return skt.recv(1) == b""
    except ConnectionResetError:
        return True


@asynchronous
async def test_stop_listening(tmp_path: Path) -> None:
    """When a port is closed, so are its connections; other ports of the server go on."""
    registry = Registry()
    async with made(registry) as server:
        paths = [str(tmp_path / name) for name in "ab"]
        ports = [
            await UNIXServerEndpoint(reactor, path).listen(server.channelFactory())
            for path in paths
        ]
        clients = [
            await connectProtocol(UNIXClientEndpoint(reactor, path), stock.Client())
            for path in paths
        ]
        for client, name in zip(clients, "ab", strict=True):
            service = {"name": name, "port": "80", "flags": 0}
            await client.callRemote(stock.Register, services=[service])
        await ports[0].stopListening()
        assert [service.name for service in registry.services()] == ["b"]
        listed = await clients[1].callRemote(stock.List)
        assert [row["name"] for row in listed["services"]] == ["b"]
        clients[1].transport.loseConnection()
        await ports[1].stopListening()


@asynchronous
async def test_limit_is_of_the_process(tmp_path: Path) -> None:
    """A process has one limit on all channel sockets of a server."""
    async with made(max_services=2) as server:
        paths = [str(tmp_path / name) for name in "ab"]
        ports = [
            await UNIXServerEndpoint(reactor, path).listen(server.channelFactory())
            for path in paths
        ]
        clients = [
            await connectProtocol(UNIXClientEndpoint(reactor, path), stock.Client())
            for path in paths
        ]
        for client in clients:
            assert (await client.callRemote(stock.Hello, version=1))["limit"] == 2
            service = {"name": "a", "port": "80", "flags": 0}
            await client.callRemote(stock.Register, services=[service])
        service = {"name": "b", "port": "80", "flags": 0}
        with pytest.raises(stock.LIMIT_EXCEEDED):
            await clients[0].callRemote(stock.Register, services=[service])
        for client in clients:
            client.transport.loseConnection()
        for port in ports:
            await port.stopListening()


@asynchronous
async def test_filled_registry() -> None:
    """Mappings that were registered before are served, and removed when their services die."""
    registry = Registry()
    with socket.socket(type=socket.SOCK_DGRAM) as skt:
        skt.bind((HOST, 0))
        number = skt.getsockname()[1]
        address = f"{HOST}.{number >> 8}.{number & 255}"
        registry.map(mapping(200100, 1, "udp", address), mapping(200101, 1, "udp", "0.0.0.0.0.9"))
        server = PortmapServer(registry, Policy(), reactor, liveness=0.05)
        port = UDP.listenUDP(0, server.datagramProtocol(), HOST)
        async with asking(port.getHost().port) as client:
            assert await client.getport(200100, 1, socket.IPPROTO_UDP) == number
            skt.close()
            while await client.getport(200100, 1, socket.IPPROTO_UDP):
                continue
            assert await client.getport(200101, 1, socket.IPPROTO_UDP) == 9
    registry.unmap(*registry.mappings)
    await port.stopListening()
    await server.close()


@asynchronous
async def test_registry_of_another() -> None:
    """Two port mappers on one registry are refused: which of them is program 100000?"""
    async with serving() as service:
        other = PortmapperService(configured(), reactor, service.registry)
        before = descriptors()
        with pytest.raises(ConfigurationError, match="one registry can have one port mapper"):
            other.startService()
        assert await closed_since(before)
        async with asking(service.port) as client:
            assert await client.getport(100000, 2, socket.IPPROTO_UDP) == service.port
