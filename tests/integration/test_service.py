"""PortmapperService inside an application: it starts, stops and fails whole."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from portmapd.errors import ConfigurationError, DaemonUnreachable
from portmapd.registry.mapping import mapping
from portmapd.service import PortmapperService
from tests.support.embedded import asking, asynchronous, configured, needs_ipv6, serving
from tests.support.exchange import free_port
from tests.support.peers import echo, peering

UDP = socket.IPPROTO_UDP


def descriptors() -> set[str]:
    """The sockets that this process has open."""
    links = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            links.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return {link for link in links if link.startswith(("socket:", "anon_inode:"))}


async def closed_since(before: set[str]) -> bool:
    """Whether, after some turns of the reactor, nothing is open that was not open before."""
    for _ in range(100):
        if descriptors() <= before:
            return True
        await deferLater(reactor, 0.02)
    return False


@asynchronous
async def test_stop_leaves_nothing(tmp_path: Path) -> None:
    """When it has stopped, no socket, no file and no registration of its own are left."""
    async with asking(9) as settled:
        await settled.close()
    before = descriptors()
    paths = {name: str(tmp_path / name / "socket") for name in ("rpc_socket", "local_socket")}
    (tmp_path / "rpc_socket").mkdir()
    service = PortmapperService(configured(**paths), reactor)
    service.privilegedStartService()
    service.startService()
    async with peering("udp", echo) as peer, asking(service.port, transport="tcp") as client:
        service.registry.map(
            mapping(200100, 1, "udp", f"127.0.0.1.{peer.port >> 8}.{peer.port & 255}")
        )
        await client.callit(200100, 1, 1)
        await service.stopService()
    assert await closed_since(before)
    assert [m.program for m in service.registry.mappings] == [200100]
    assert list(service.registry.services()) == []
    assert [os.listdir(os.path.dirname(path)) for path in paths.values()] == [[], []]


@asynchronous
async def test_start_alone() -> None:
    """``startService`` binds the sockets where ``privilegedStartService`` was not called."""
    service = PortmapperService(configured(), reactor)
    service.startService()
    async with asking(service.port) as client:
        await client.null()
    await service.stopService()


@asynchronous
async def test_privileged_start_comes_first() -> None:
    """What ``privilegedStartService`` bound, ``startService`` keeps."""
    service = PortmapperService(configured(), reactor)
    service.privilegedStartService()
    port = service.port
    async with asking(port) as client:
        await client.null()
        service.startService()
        await client.null()
        assert service.port == port
        assert len(await client.dump()) == 6
    await service.stopService()


@asynchronous
async def test_start_again() -> None:
    """A service that was stopped can be started, and keeps what others registered."""
    service = PortmapperService(configured(), reactor)
    service.registry.map(mapping(200100, 1, "udp", "0.0.0.0.8.1"))
    for _ in range(2):
        service.startService()
        async with asking(service.port) as client:
            assert await client.getport(200100, 1, UDP) == 2049
            assert await client.getport(100000, 2, UDP) == service.port
        await service.stopService()


@asynchronous
async def test_two_at_once() -> None:
    """Two services in one process have ports and registrations of their own."""
    async with serving() as one, serving() as other:
        assert one.port != other.port
        async with asking(one.port) as client, asking(other.port) as elsewhere:
            await client.set(200100, 1, UDP, 2049)
            assert await client.getport(200100, 1, UDP) == 2049
            assert await elsewhere.getport(200100, 1, UDP) == 0
            assert await elsewhere.getport(100000, 2, UDP) == other.port


@asynchronous
async def test_registry() -> None:
    """What the application puts into the registry is answered, and what callers put there seen."""
    async with serving() as service, asking(service.port) as client:
        direct = mapping(200100, 1, "tcp", "0.0.0.0.8.1")
        service.registry.map(direct)
        assert await client.getport(200100, 1, socket.IPPROTO_TCP) == 2049
        service.registry.unmap(direct)
        assert await client.getport(200100, 1, socket.IPPROTO_TCP) == 0
        await client.set(200100, 2, UDP, 2050)
        found = service.registry.mappings.get(200100, 2, "udp")
        assert found is not None
        assert (found.port, found.owner) == (2050, "unknown")


@contextmanager
def taken(kind: socket.SocketKind, host: str) -> Iterator[int]:
    """Have a port of *host* taken in the block."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as skt:
        port = free_port()
        skt.bind((host, port))
        if kind is socket.SOCK_STREAM:
            skt.listen()
        yield port


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@asynchronous
async def test_taken_port(kind: socket.SocketKind, host: str, tmp_path: Path) -> None:
    """Where one port is taken, none is served; the error says by whom, and what to do."""
    with taken(kind, host) as port:
        before = descriptors()
        path = tmp_path / "rpc"
        service = PortmapperService(configured(port=port, rpc_socket=str(path)), reactor)
        said = (
            rf"port {port} of {host} is taken by this process \(pid {os.getpid()}\): stop that, "
            "or choose another port with --port"
        )
        with pytest.raises(ConfigurationError, match=said):
            service.startService()
        assert await closed_since(before)
        assert list(service.registry.mappings) == []
        assert not path.exists()


@asynchronous
async def test_last_socket_fails(tmp_path: Path) -> None:
    """Where the last socket of all cannot be had, the first ones are not left open."""
    (tmp_path / "rpc").write_text("no socket")
    before = descriptors()
    port = free_port()
    for options in ({"rpc_socket": "rpc"}, {"local_socket": "rpc/below"}):
        paths = {name: str(tmp_path / path) for name, path in options.items()}
        service = PortmapperService(configured(port=port, **paths), reactor)
        option = next(iter(paths)).replace("_", "-")
        with pytest.raises(ConfigurationError, match=f"{re.escape(str(tmp_path))}.*--{option}"):
            service.startService()
        assert await closed_since(before)
        async with asking(port) as client:
            with pytest.raises(DaemonUnreachable):
                await client.null()


@asynchronous
async def test_start_after_failure() -> None:
    """A service that could not start starts once the port is free."""
    with taken(socket.SOCK_DGRAM, "127.0.0.1") as port:
        service = PortmapperService(configured(port=port), reactor)
        with pytest.raises(ConfigurationError):
            service.startService()
    await deferLater(reactor, 0)
    service.startService()
    async with asking(port) as client:
        await client.null()
    await service.stopService()


@asynchronous
async def test_state(tmp_path: Path) -> None:
    """An application that names a state file has mappings outlive it; others have none."""
    path = tmp_path / "state" / "mappings"
    kept = mapping(200_100, 1, "udp", "127.0.0.1.0.9")
    async with serving(state=str(path)) as service:
        service.registry.map(kept)
    async with serving(state=str(path)) as service:
        assert service.registry.mappings.get(*kept.key) == kept
    assert sorted(file.name for file in path.parent.iterdir()) == ["mappings", "mappings.lock"]
    assert configured().state is None
