"""The local channel in an application: alone, beside others, in a port mapper."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import deferLater

from portmapd.errors import ConfigurationError
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.service import PortmapperService
from tests.integration.test_channel_stock import connected, service
from tests.support import stock_amp as stock
from tests.support.embedded import asynchronous, configured, serving

ITSELF = "portmapd.portmapd"


@asynccontextmanager
async def channel(
    path: Path, registry: Registry | None = None, limit: int = 10
) -> AsyncIterator[PortmapperService]:
    """Serve the channel in the block."""
    made = service_at(path, registry, limit)
    made.startService()
    try:
        yield made
    finally:
        await made.stopService()


def service_at(path: Path, registry: Registry | None = None, limit: int = 10) -> PortmapperService:
    """A service with nothing but a channel."""
    config = configured(interfaces=(), local_socket=str(path), max_services=limit)
    return PortmapperService(config, reactor, registry)


def names(registry: Registry) -> list[str]:
    """The names of the services."""
    return [each.name for each in registry.services()]


@asynchronous
async def test_alone(tmp_path: Path) -> None:
    """It needs neither UDP nor TCP; its registry tells of every change."""
    changes: list[ChangeRecord] = []
    async with (
        channel(tmp_path / "made" / "s") as alone,
        connected(str(tmp_path / "made" / "s")) as client,
    ):
        alone.registry.follow(changes.extend, *ChangeKind)
        assert (await client.callRemote(stock.Hello, version=1))["limit"] == 10
        await client.callRemote(stock.Register, **service())
        assert names(alone.registry) == [ITSELF, "a"]
        assert [each.kind for each in changes] == [ChangeKind.REGISTERED]
        alone.registry.map(mapping(400001, 1, "tcp", "127.0.0.1.8.1"))
        listed = await client.callRemote(stock.ListMappings)
        assert [row["program"] for row in listed["mappings"]] == [400001]
    assert not (tmp_path / "made" / "s").exists()


@asynchronous
async def test_two(tmp_path: Path) -> None:
    """Two of them have nothing in common, unless it is their registry."""
    shared = Registry()
    async with (
        channel(tmp_path / "one", registry=shared, limit=1),
        channel(tmp_path / "two", registry=shared) as two,
        channel(tmp_path / "three") as three,
        connected(str(tmp_path / "one")) as client,
    ):
        new = [{"name": name, "port": "80", "flags": 0} for name in "ab"]
        with pytest.raises(stock.LIMIT_EXCEEDED):
            await client.callRemote(stock.Register, services=new)
        await client.callRemote(stock.Register, **service())
        assert names(two.registry) == [ITSELF, ITSELF, "a"]
        assert names(three.registry) == [ITSELF]
    assert names(shared) == []


@asynchronous
async def test_stop(tmp_path: Path) -> None:
    """When its stopping is done, every connection is closed, and nothing of it is left."""
    before = len(os.listdir("/proc/self/fd"))
    made = service_at(tmp_path / "s")
    made.privilegedStartService()
    made.startService()
    async with connected(str(tmp_path / "s")) as client:
        await client.callRemote(stock.Register, **service())
        await client.callRemote(stock.Watch)
        stopped = made.stopService()
        assert names(made.registry) == []
        await stopped
        assert made.stopService().called
        # The other end is closed; the client's learns of it in its own turn.
        with pytest.raises((ConnectionDone, ConnectionLost)):
            await client.callRemote(stock.Hello, version=1)
    await deferLater(reactor, 0)
    assert len(os.listdir("/proc/self/fd")) <= before


@asynchronous
async def test_start_again(tmp_path: Path) -> None:
    """It can be started again, as another instance."""
    made = service_at(tmp_path / "s")
    instances = []
    for _ in range(2):
        made.startService()
        async with connected(str(tmp_path / "s")) as client:
            instances.append((await client.callRemote(stock.Hello, version=1))["instance"])
            listed = await client.callRemote(stock.List)
            assert [row["name"] for row in listed["services"]] == [ITSELF]
        await made.stopService()
    assert instances[0] != instances[1]


@asynchronous
async def test_taken(tmp_path: Path) -> None:
    """If the socket cannot be had, starting says so and leaves nothing; later it can be tried."""
    path = tmp_path / "s"
    made = service_at(path)
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(str(path))
        skt.listen()
        with pytest.raises(ConfigurationError, match="another process serves there"):
            made.startService()
        assert names(made.registry) == []
    made.startService()
    async with connected(str(tmp_path / "s")) as client:
        assert (await client.callRemote(stock.Hello, version=1))["version"] == 1
    await made.stopService()


@asynchronous
async def test_not_ours_any_more(tmp_path: Path) -> None:
    """A socket that is another's by now is left where it is."""
    async with channel(tmp_path / "s"):
        (tmp_path / "s").unlink()
        (tmp_path / "s").write_text("another's")
    assert (tmp_path / "s").read_text() == "another's"


@asynchronous
async def test_with_a_port_mapper(tmp_path: Path) -> None:
    """Within a port mapper it has that one's registry."""
    path = str(tmp_path / "s")
    async with serving(local_socket=path, max_services=2) as service, connected(path) as client:
        assert (await client.callRemote(stock.Hello, version=1))["limit"] == 2
        listed = await client.callRemote(stock.ListMappings)
        assert {row["program"] for row in listed["mappings"]} == {100000}
        row = {"program": 400001, "version": 1, "netid": "tcp", "address": "127.0.0.1.8.1"}
        await client.callRemote(stock.SetMappings, mappings=[row])
        assert service.registry.mappings.get(400001, 1, "tcp") is not None
