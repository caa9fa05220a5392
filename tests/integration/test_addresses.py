"""Which address answers, and which address is answered, where a host has several."""

import socket
from contextlib import AsyncExitStack

import pytest
from twisted.internet.defer import gatherResults

from portmapd.errors import DaemonUnreachable
from portmapd.oncrpc.program import CallResult
from portmapd.registry.mapping import mapping
from tests.support.embedded import asking, asynchronous, needs_ipv6, serving
from tests.support.peers import echo, peering

both = pytest.mark.parametrize("transport", ["udp", "tcp"])


wildcards = pytest.mark.parametrize(
    ("wildcard", "hosts"),
    [
        ("0.0.0.0", ("127.0.0.1", "127.0.0.5", "127.255.0.7")),
        pytest.param("::", ("::1",), marks=needs_ipv6),
    ],
    ids=["IPv4", "IPv6"],
)


def uaddr(host: str, port: int) -> str:
    """The universal address of that port."""
    return f"{host}.{port >> 8}.{port & 255}"


@both
@wildcards
@asynchronous
async def test_wildcard(wildcard: str, hosts: tuple[str, ...], transport: str) -> None:
    """On a wildcard socket, the address that was asked answers, and is what GETADDR says.

    The clients' sockets are connected: they receive nothing from another address.
    """
    async with serving(interfaces=(wildcard,)) as service:
        netid = f"{transport}6" if wildcard == "::" else transport
        service.registry.map(mapping(200100, 1, netid, f"{wildcard}.8.1"))
        for host in hosts:
            async with asking(service.port, host, transport) as client:
                # The second answer comes from the cache.
                for _ in range(2):
                    assert await client.getaddr(100000, 4) == uaddr(host, service.port)
                    assert await client.getaddr(200100, 1) == uaddr(host, 2049)


@asynchronous
async def test_many_addresses() -> None:
    """Callers of many addresses at once are each answered from, and with, their own."""
    hosts = [f"127.0.1.{n}" for n in range(1, 33)]
    async with serving(interfaces=("0.0.0.0",)) as service, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(asking(service.port, host)) for host in hosts]
        calls = [client.getaddr(100000, 4) for _ in range(20) for client in clients]
        answers = await gatherResults(calls)
        assert answers == [uaddr(host, service.port) for host in hosts] * 20


@wildcards
@asynchronous
async def test_forwarded_call(wildcard: str, hosts: tuple[str, ...]) -> None:
    """The answer to a forwarded call leaves from the address that was asked, too."""
    async with serving(interfaces=(wildcard,)) as service, peering("udp", echo) as peer:
        service.registry.map(mapping(200100, 1, "udp", uaddr("0.0.0.0", peer.port)))
        for host in hosts:
            async with asking(service.port, host) as client:
                assert await client.callit(200100, 1, 1, b"text") == CallResult(peer.port, b"text")


@both
@asynchronous
async def test_one_address(transport: str) -> None:
    """A service on one address is not on another."""
    async with serving(interfaces=("127.0.0.5",), loopback=False) as service:
        async with asking(service.port, "127.0.0.5", transport) as client:
            assert await client.getaddr(100000, 4) == uaddr("127.0.0.5", service.port)
        async with asking(service.port, "127.0.0.1", transport) as client:
            with pytest.raises(DaemonUnreachable):
                await client.null()


@needs_ipv6
@asynchronous
async def test_one_port_for_all() -> None:
    """Both wildcards are served on one port, each for its own family."""
    async with serving(interfaces=("0.0.0.0", "::")) as service:
        for host in ("127.0.0.1", "::1"):
            async with asking(service.port, host) as client:
                assert await client.getaddr(100000, 4) == uaddr(host, service.port)


@needs_ipv6
@asynchronous
async def test_other_family() -> None:
    """A mapping of one family is not given to callers of the other."""
    async with serving() as service:
        service.registry.map(mapping(200100, 1, "udp6", "::.8.1"))
        async with asking(service.port) as client:
            assert await client.getaddr(200100, 1) == ""
            assert await client.getport(200100, 1, socket.IPPROTO_UDP) == 0
        async with asking(service.port, "::1") as client:
            assert await client.getaddr(200100, 1) == "::1.8.1"
