"""The local channel spoken by Twisted's own ``amp.AMP``, which knows nothing of portmapd."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.protocols import amp

from tests.support import stock_amp as stock
from tests.support.embedded import asynchronous
from tests.support.talk import Served

ME = {"user": os.geteuid(), "pid": os.getpid()}
TCP = {"program": 400001, "version": 1, "netid": "tcp", "address": "127.0.0.1.8.1"}
OWNER = {"owner": str(os.geteuid()) if os.geteuid() else "superuser"}


@asynccontextmanager
async def connected(path: str) -> AsyncIterator[stock.Client]:
    """Give a client for the block."""
    client = stock.Client()
    await connectProtocol(UNIXClientEndpoint(reactor, path), client)
    try:
        yield client
    finally:
        if client.transport is not None:
            client.transport.loseConnection()


async def until(client: stock.Client, events: int) -> list[dict[str, Any] | None]:
    """What the client was told, once it is so much."""
    while len(client.told) < events:
        await deferLater(reactor, 0.01)
    return client.told


@asynchronous
async def test_commands(channel: Served) -> None:
    """Each command gives what the document says."""
    async with connected(channel.path) as client, connected(channel.path) as watching:
        hello = await client.callRemote(stock.Hello, version=1)
        assert (hello["version"], hello["limit"]) == (1, 10)
        assert (hello["uid"], hello["pid"]) == (ME["user"], ME["pid"])
        await watching.callRemote(stock.Watch)
        new = [{"name": name, "port": "80", "flags": 0} for name in ("a", "b")]
        assert await client.callRemote(stock.Register, services=new) == {}
        rows = [{"name": name, "port": "80", "exe": "", **ME} for name in ("a", "b")]
        listed = await client.callRemote(stock.List, users=[ME["user"]], pids=[ME["pid"]])
        assert listed == {"services": rows, "more": None}
        old = [{"name": "a", "port": "80"}]
        assert await client.callRemote(stock.Deregister, services=old) == {}
        assert await client.callRemote(stock.SetMappings, mappings=[TCP]) == {}
        listed = await client.callRemote(stock.ListMappings)
        assert {**TCP, **OWNER} in listed["mappings"]
        assert await client.callRemote(stock.UnsetMappings, mappings=[TCP]) == {}
        assert await until(watching, 5) == [
            {"change": "registered", **rows[0]},
            {"change": "registered", **rows[1]},
            {"change": "deregistered", **rows[0]},
            {"change": "mapped", **TCP, **OWNER},
            {"change": "unmapped", **TCP, **OWNER},
        ]
        assert await watching.callRemote(stock.Unwatch) == {}


@asynchronous
async def test_errors(channel: Served) -> None:
    """Each error comes as itself, with its sentence; the connection stays."""
    refused: list[tuple[type[stock.Refused], type[amp.Command], dict[str, Any]]] = [
        (stock.UNSUPPORTED_VERSION, stock.Hello, {"version": 9}),
        (stock.INVALID_SERVICE, stock.Register, service(port="0")),
        (stock.RESERVED_NAME, stock.Register, service(name="a.portmapd")),
        (stock.ALREADY_REGISTERED, stock.Register, service()),
        (stock.NOT_REGISTERED, stock.Deregister, service(name="b")),
        (stock.INVALID_MAPPING, stock.SetMappings, {"mappings": [TCP | {"netid": "ip"}]}),
        (stock.NOT_REGISTERED, stock.UnsetMappings, {"mappings": [TCP]}),
        (stock.BAD_ARGUMENTS, stock.List, {"after": "x"}),
    ]
    async with connected(channel.path) as client:
        await client.callRemote(stock.Register, **service())
        for error, command, values in refused:
            with pytest.raises(error) as told:
                await client.callRemote(command, **values)
            assert len(str(told.value)) > 10
        with pytest.raises(stock.UNKNOWN_COMMAND, match="is none of"):
            await client.callRemote(Unknown)
        assert (await client.callRemote(stock.Hello, version=1))["version"] == 1


class Unknown(amp.Command):
    """A command that the daemon does not have."""

    errors: ClassVar[stock.Errors] = {stock.UNKNOWN_COMMAND: b"UNKNOWN_COMMAND"}


class StartTLS(Unknown):
    """Twisted's own command of that name, but for what it does to its sender."""


def service(name: str = "a", port: str = "80") -> dict[str, Any]:
    """The arguments of Register."""
    return {"services": [{"name": name, "port": port, "flags": 0}]}


@asynchronous
async def test_no_answer(channel: Served) -> None:
    """Commands that ask for no answer are done."""

    class Silent(stock.Register):
        commandName = b"Register"
        requiresAnswer = False

    async with connected(channel.path) as client:
        assert client.callRemote(Silent, **service()) is None
        listed = await client.callRemote(stock.List, names=["a"])
        assert len(listed["services"]) == 1


@asynchronous
async def test_no_encryption(channel: Served) -> None:
    """StartTLS is not a command; the connection stays as it is."""
    async with connected(channel.path) as client:
        with pytest.raises(stock.UNKNOWN_COMMAND, match="is none of"):
            await client.callRemote(StartTLS)
        assert (await client.callRemote(stock.Hello, version=1))["version"] == 1


@asynchronous
async def test_pipelined(channel: Served) -> None:
    """Commands may be on their way together."""
    async with connected(channel.path) as client:
        answers = gatherResults(
            [client.callRemote(stock.List, names=["portmapd.portmapd"]) for _ in range(500)]
        )
        assert [len(answer["services"]) for answer in await answers] == [1] * 500


@asynchronous
async def test_break(channel: Served) -> None:
    """A client that breaks the framing is disconnected, and its pending commands fail."""
    async with connected(channel.path) as client, connected(channel.path) as other:
        await client.callRemote(stock.Register, **service())
        client.transport.write(b"\xff\xff")
        waiting = client.callRemote(stock.Hello, version=1)
        with pytest.raises(ConnectionDone):
            await waiting
        listed = await other.callRemote(stock.List, names=["a"])
        assert listed["services"] == []
