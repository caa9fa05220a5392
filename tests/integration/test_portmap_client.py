"""PortmapClient and the real service, over every transport."""

import os
import socket
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from portmapd.client import PortmapClient
from portmapd.errors import DaemonUnreachable, ProgramMismatch, SystemFailure
from portmapd.oncrpc.program import CallResult, Pmap, Rpcb
from portmapd.registry.mapping import Mapping, mapping
from tests.support.embedded import asking, asynchronous, needs_ipv6, serving
from tests.support.exchange import free_port
from tests.support.host import daemon
from tests.support.peers import echo, peering, silent

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP

#: How the port mapper is reached on each netid.
NETIDS = {
    "udp": ("127.0.0.1", "udp"),
    "udp6": ("::1", "udp"),
    "tcp": ("127.0.0.1", "tcp"),
    "tcp6": ("::1", "tcp"),
}

each_netid = pytest.mark.parametrize(
    "netid",
    ["udp", "tcp", *(pytest.param(name, marks=needs_ipv6) for name in ("udp6", "tcp6"))],
)


def at(program: int, version: int, port: int) -> Mapping:
    """A mapping of that port over UDP."""
    return mapping(program, version, "udp", f"0.0.0.0.{port >> 8}.{port & 255}")


@each_netid
@asynchronous
async def test_every_method(netid: str) -> None:
    """Each method does what it says, over each transport."""
    host, transport = NETIDS[netid]
    async with serving() as service, asking(service.port, host, transport) as client:
        for version in (2, 3, 4):
            await client.null(version)
        assert await client.set(200100, 1, UDP, 4000)
        assert not await client.set(200100, 1, UDP, 70000)
        assert await client.getport(200100, 1, UDP) == 4000
        assert await client.getport(200100, 1, TCP) == 0
        assert Pmap(200100, 1, 17, 4000) in await client.dump()
        addresses = {(m.program, m.netid): m.address for m in await client.dump_addresses()}
        assert addresses[200100, "udp"] == "0.0.0.0.15.160"
        own = f"{host}.{service.port >> 8}.{service.port & 255}"
        assert await client.getaddr(100000, 4) == own
        assert await client.getaddr(200200, 1) == ""
        assert await client.unset(200100, 1)
        assert await client.getport(200100, 1, UDP) == 0


@asynchronous
async def test_rpc_socket(tmp_path: Path) -> None:
    """The rpcbind socket is a transport like the others."""
    path = str(tmp_path / "rpc.sock")
    async with serving(rpc_socket=path), asking(0, path, "local") as client:
        await client.null(4)
        assert await client.set(200100, 1, UDP, 4000)
        assert await client.getport(200100, 1, UDP) == 4000
        rows = {(m.program, m.netid): m for m in await client.dump_addresses()}
        assert rows[200100, "udp"].owner == (str(os.getuid()) if os.getuid() else "superuser")
        assert await client.getaddr(100000, 4) == path
        assert await client.unset(200100, 1)


@each_netid
@asynchronous
async def test_callit(netid: str) -> None:
    """A forwarded call brings the port of the service and its results."""
    async with serving() as service, peering("udp", echo) as peer:
        service.registry.map(at(200100, 1, peer.port))
        host, transport = NETIDS[netid]
        async with asking(service.port, host, transport) as client:
            said = await client.callit(200100, 1, 9, b"arguments...")
            assert said == CallResult(peer.port, b"arguments...")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@asynchronous
async def test_many_at_once(transport: str) -> None:
    """A thousand calls under way at once each get their own answer."""
    ports = range(1, 1001)
    async with serving() as service:
        service.registry.map(*(at(200000 + port, 1, port) for port in ports))
        async with asking(service.port, transport=transport) as client:
            replies = [client.getport(200000 + port, 1, UDP) for port in ports]
            assert await gatherResults(replies) == list(ports)


@asynchronous
async def test_long_answer() -> None:
    """A DUMP that is far longer than a datagram comes whole over TCP; over UDP it is refused."""
    async with serving() as service:
        service.registry.map(*(at(300000, version, 2049) for version in range(10_000)))
        async with asking(service.port, transport="tcp") as client:
            assert len(await client.dump()) == 10_006
            rows = await client.dump_addresses()
            assert Rpcb(300000, 9_999, "udp", "0.0.0.0.8.1", "superuser") in rows
        async with asking(service.port) as client:
            with pytest.raises(SystemFailure):
                await client.dump()


@each_netid
@asynchronous
async def test_daemon(netid: str, tmp_path: Path) -> None:
    """A daemon of its own process answers as the service does."""
    host, transport = NETIDS[netid]
    with daemon(tmp_path) as running:
        async with asking(running.port, host, transport) as client:
            assert await client.set(200100, 1, UDP, 4000)
            assert await client.getport(200100, 1, UDP) == 4000
            assert len(await client.dump()) == 7
            assert await client.unset(200100, 1)


@asynchronous
async def test_refused() -> None:
    """A refusal arrives as what it is, with what it says."""
    async with serving() as service, asking(service.port) as client:
        with pytest.raises(ProgramMismatch) as caught:
            await client.null(5)
        assert (caught.value.low, caught.value.high) == (2, 4)


@each_netid
@asynchronous
async def test_nobody_there(netid: str) -> None:
    """A port that nobody serves is an error at once; the client works when somebody does again."""
    host, transport = NETIDS[netid]
    port = free_port()
    async with asking(port, host, transport) as client:
        for _ in range(2):
            with pytest.raises(DaemonUnreachable, match="refused"):
                await client.null()
        async with serving(port=port):
            await client.null()
        for answer in [client.null(), client.null()]:
            with pytest.raises(DaemonUnreachable):
                await answer


@asynchronous
async def test_no_socket(tmp_path: Path) -> None:
    """A socket that does not exist is an error that names it."""
    path = str(tmp_path / "none")
    async with asking(0, path, "local") as client:
        with pytest.raises(DaemonUnreachable, match=f"{path} cannot be reached: .*No such file"):
            await client.null()


@asynchronous
async def test_connection_lost() -> None:
    """Calls under way fail when the server closes the stream; the next call connects again."""
    async with serving(port=free_port()) as service, peering("udp", silent) as peer:
        service.registry.map(at(200100, 1, peer.port))
        async with asking(service.port, transport="tcp") as client:
            answers = [client.callit(200100, 1, n) for n in range(2)]
            await peer.called(2)
            await service.stopService()
            for answer in answers:
                with pytest.raises(DaemonUnreachable, match="closed the connection"):
                    await answer
            async with serving(port=service.port):
                await client.null()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@asynchronous
async def test_close(transport: str) -> None:
    """``close`` ends what is under way; a later call opens a socket again."""
    async with serving() as service, asking(service.port, transport=transport) as client:
        await client.null()
        silent = client.callit(200100, 1, 0)
        closed = client.close()
        with pytest.raises(DaemonUnreachable, match="the client was closed"):
            await silent
        await closed
        await client.null()


@asynchronous
async def test_close_while_connecting() -> None:
    """``close`` right after a call leaves neither the call nor the connection."""
    async with serving() as service:
        client = PortmapClient(reactor, port=service.port, transport="tcp")
        answer = client.null()
        await client.close()
        with pytest.raises(DaemonUnreachable):
            await answer
