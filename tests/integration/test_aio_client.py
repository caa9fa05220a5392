"""The asyncio client where the others have nothing to compare: tasks, cancellation, streams."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from portmapd.client.aio import AsyncChanges, Flags, Group, Portmapper
from portmapd.errors import (
    AlreadyRegistered,
    ClientClosed,
    DaemonUnreachable,
    NotAccepted,
    PortmapdError,
    Terminated,
)
from tests.support.clients import Mortal, told
from tests.support.registrant import PATIENCE
from tests.support.talk import Served, Talk

P = ParamSpec("P")

ME = os.getpid()
#: What is waited for is looked at so often, with so many seconds between.
TURNS, TURN = 1_000, 0.02


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop, which it must leave clean."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(PATIENCE):
                await test(*arguments, **named)
            # What the client began has a turn to end.
            await asyncio.sleep(0.01)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(limited(), debug=True)

    return run


async def names(client: Portmapper) -> list[str]:
    """The names that this process has registered."""
    return [service.name for service in await client.list(pid=ME)]


async def until_registered(client: Portmapper, *wanted: str) -> None:
    """Wait until these names and no others are registered."""
    found: list[str] | None = None
    for _ in range(TURNS):
        if (found := await names(client)) == list(wanted):
            return
        await asyncio.sleep(TURN)
    raise AssertionError(f"{found} are registered")


async def until(true: Callable[[], object], what: str) -> None:
    """Wait until *true* is."""
    for _ in range(TURNS):
        if true():
            return
        await asyncio.sleep(TURN)
    raise AssertionError(what)


async def started(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Begin work, and let it wait for its answer."""
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in tasks)
    return tasks


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel *task*, and assert that it ends so."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Cancellation


@in_loop
async def test_cancelled_query(daemon: Mortal) -> None:
    """It is forgotten; the connection, other operations and registrations are as before."""
    async with Portmapper(daemon.path) as client:
        await client.reg("a", 1)
        before = await client._connection.open()
        daemon.freeze()
        query, other, mapping = await started(client.list(), client.reg("b", 2), client.mappings())
        await cancelled(query)
        await cancelled(mapping)
        daemon.thaw()
        await other
        assert await names(client) == ["a", "b"]
        assert await client._connection.open() is before
        assert len(before) == 0


@pytest.mark.parametrize("what", ["reg", "set", "dereg", "unset", "regpid2exe"])
@in_loop
async def test_cancelled_change(daemon: Mortal, what: str) -> None:
    """It is never left half done: what was registered before is, and nothing else."""
    changes: dict[str, Callable[[Portmapper], Coroutine[Any, Any, None]]] = {
        "reg": lambda client: client.reg("b", 2, rpc=(400002, 1)),
        "set": lambda client: client.set(400003, 1, "tcp", "0.0.0.0.0.3"),
        "dereg": lambda client: client.dereg("a", 1),
        "unset": lambda client: client.unset(400001, 1, "tcp", "0.0.0.0.0.1"),
        "regpid2exe": lambda client: client.regpid2exe(),
    }
    async with Portmapper(daemon.path) as client, Portmapper(daemon.path) as other:
        await client.reg("a", 1, rpc=(400001, 1))
        await client.reg("z", 26, Flags.EXCLUSIVE)
        daemon.freeze()
        (task,) = await started(changes[what](client))
        await cancelled(task)
        daemon.thaw()
        # Without another operation of this client.
        await until_registered(other, "a", "z")
        mappings = [m.program for m in await other.mappings() if m.program != 100000]
        assert mappings == [400001]
        await changes[what](client)


@in_loop
async def test_cancelled_between_two_steps(daemon: Mortal) -> None:
    """A registration that is cancelled before its mapping is set leaves neither."""
    async with Portmapper(daemon.path) as client, Portmapper(daemon.path) as other:
        await client.reg("a", 1)
        await other.list()
        for turns in range(12):
            task = asyncio.create_task(client.reg("b", 2, rpc=(400002, 1)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await client.dereg("b", 2)
            await until_registered(other, "a")
            assert [m for m in await other.mappings() if m.program == 400002] == []
            assert await names(client) == ["a"]


@in_loop
async def test_others_wait(daemon: Mortal) -> None:
    """Operations that wait on the connection that is closed are told why."""
    async with Portmapper(daemon.path) as client:
        await client.reg("a", 1)
        daemon.freeze()
        change, query = await started(client.reg("b", 2), client.list())
        await cancelled(change)
        with pytest.raises(DaemonUnreachable, match="another operation was cancelled"):
            await query
        daemon.thaw()
        await until_registered(client, "a")


@in_loop
async def test_cancelled_while_it_connects(tmp_path: Path, daemon: Mortal) -> None:
    """One operation gives up; the others get their connection."""
    async with Portmapper(daemon.path) as client:
        daemon.freeze()
        first, second = await started(client.reg("a", 1), client.reg("b", 2))
        await cancelled(first)
        daemon.thaw()
        await second
        assert await names(client) == ["b"]


@in_loop
async def test_timeout(daemon: Mortal) -> None:
    """A limit of time is a cancellation, also around several operations."""
    async with Portmapper(daemon.path) as client:
        await client.reg("a", 1)
        daemon.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.list()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.gather(client.list(), client.reg("b", 2), client.reg("c", 3))
        daemon.thaw()
        await until_registered(client, "a")


@in_loop
async def test_terminator_and_cancellation(daemon: Mortal) -> None:
    """A task that is terminated is not cancelled; one that is cancelled is not terminated."""
    readable, writable = os.pipe()
    async with Portmapper(daemon.path) as client:
        await client.reg("a", 1)
        daemon.freeze()
        (task,) = await started(client.list(terminator=readable))
        os.write(writable, b"!")
        with pytest.raises(Terminated):
            await task
        assert task.cancelling() == 0
        os.read(readable, 1)
        (task,) = await started(client.list(terminator=readable))
        await cancelled(task)
        daemon.thaw()
        await until_registered(client)
    os.close(readable)
    os.close(writable)


@in_loop
async def test_descriptor_0(daemon: Mortal) -> None:
    """Descriptor 0 may be a terminator."""
    readable, writable = os.pipe()
    before = os.dup(0)
    os.dup2(readable, 0)
    try:
        async with Portmapper(daemon.path) as client:
            os.write(writable, b"!")
            daemon.freeze()
            with pytest.raises(Terminated):
                await client.list(terminator=0)
            daemon.thaw()
    finally:
        os.dup2(before, 0)
        for descriptor in (before, readable, writable):
            os.close(descriptor)


# By itself


def _logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the client logged; the event loop logs, too."""
    return [record for record in caplog.records if record.name == "portmapd"]


@in_loop
async def test_restores_by_itself(daemon: Mortal, caplog: pytest.LogCaptureFixture) -> None:
    """While anything is registered it connects again, and logs what was lost."""
    async with Portmapper(daemon.path) as client, Portmapper(daemon.path) as other:
        await client.reg("a", 1)
        await client.reg("b", 2)
        daemon.kill()
        daemon.start()
        with Talk(daemon.path) as thief:
            thief.register(("b", "3", 1))
            await until_registered(other, "b", "a")
            await until(lambda: _logged(caplog), "it is logged")
    (record,) = _logged(caplog)
    assert record.levelno == logging.WARNING


@in_loop
async def test_lost(daemon: Mortal) -> None:
    """The callback may use the client; what it raises is logged and harms nothing."""
    told_of: list[Group] = []

    def lost(group: Group, why: PortmapdError) -> None:
        assert isinstance(why, AlreadyRegistered)
        told_of.append(group)
        tasks.append(asyncio.create_task(client.reg("other", 3)))
        raise ZeroDivisionError

    tasks: list[asyncio.Task[None]] = []
    async with Portmapper(daemon.path, lost) as client:
        await client.reg("a", 1, Flags.EXCLUSIVE)
        await client.reg("b", 2)
        daemon.kill()
        daemon.start()
        with Talk(daemon.path) as thief:
            thief.register(("a", "1", 1))
            await until(lambda: tasks, "it is told")
            await tasks[0]
            assert sorted(await names(client)) == ["a", "b", "other"]
    assert told_of == [Group((("a", "1", 1),))]


@in_loop
async def test_full_queue_of_the_daemon(daemon: Mortal) -> None:
    """An operation waits for a place in the daemon's queue."""
    async with Portmapper(daemon.path) as client:
        daemon.freeze()
        filling: list[socket.socket] = []
        while True:
            skt = socket.socket(socket.AF_UNIX)
            skt.setblocking(False)
            filling.append(skt)
            if skt.connect_ex(daemon.path):
                break
        (query,) = await started(client.list(pid=ME))
        for skt in filling:
            skt.close()
        daemon.thaw()
        assert await query == []


# Many tasks, and the end


@pytest.mark.options("--max-services", "1000")
@in_loop
async def test_many_tasks(channel: Served) -> None:
    """Tasks share a client: each gets the answer to its own question, and nothing is kept."""
    async with Portmapper(channel.path) as client:

        async def ask(name: str) -> None:
            for port in range(1, 6):
                await client.reg(name, port)
                assert [service.port for service in await client.list(name)] == [port]
                await client.dereg(name, port)

        await asyncio.gather(*(ask(f"name{number}") for number in range(50)))
        assert await names(client) == []
        assert len(await client._connection.open()) == 0
        assert client._under_way == {}


@in_loop
async def test_close_while_it_waits(daemon: Mortal) -> None:
    """Operations that wait are told, connecting ones too; nothing stays registered."""
    async with Portmapper(daemon.path) as client:
        await client.reg("a", 1)
        changes = client.watch("a")
        assert told(await anext(changes)) == ("registered", "a")
        daemon.freeze()
        waiting = await started(client.list(), client.reg("b", 2))
        following = asyncio.create_task(_all(changes))
        await asyncio.sleep(0)
        await client.close()
        for task in waiting:
            with pytest.raises(ClientClosed):
                await task
        assert await following == []
        daemon.thaw()
    async with Portmapper(daemon.path) as other:
        await until_registered(other)


async def _all(changes: AsyncChanges) -> list[tuple[str, str]]:
    return [told(change) async for change in changes]


@in_loop
async def test_close_without_a_daemon(daemon: Mortal) -> None:
    """A client that is closed while it waits for a daemon does not come back."""
    async with Portmapper(daemon.path) as client:
        await client.reg("a", 1)
        daemon.kill()
        await asyncio.sleep(0.2)
    daemon.start()
    async with Portmapper(daemon.path) as other:
        await asyncio.sleep(0.3)
        assert await names(other) == []


# Streams


@in_loop
async def test_streams(channel: Served, tmp_path: Path) -> None:
    """A connection to a service is what asyncio gives for one."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    path = str(tmp_path / "s")
    servers = [
        await asyncio.start_server(echo, "127.0.0.1", 0),
        await asyncio.start_unix_server(echo, path),
    ]
    async with Portmapper(channel.path) as client, servers[0], servers[1]:
        await client.reg("tcp", servers[0].sockets[0].getsockname()[1])
        await client.reg("unix", path)
        for name in ("tcp", "unix"):
            reader, writer = await client.connect_any(name)
            writer.write(b"hello\n")
            assert await reader.read() == b"HELLO\n"
            writer.close()
            await writer.wait_closed()


@in_loop
async def test_connect_to_a_full_service(channel: Served, tmp_path: Path) -> None:
    """Cancelling one that waits for a service leaves nothing open, and everything registered."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waits:
        full.bind(path)
        full.listen(0)
        waits.connect(path)
        async with Portmapper(channel.path) as client:
            await client.reg("a", path)
            before = len(os.listdir("/proc/self/fd"))
            (task,) = await started(client.connect_any("a"))
            await cancelled(task)
            assert len(os.listdir("/proc/self/fd")) == before
            assert await names(client) == ["a"]
            await client.reg("b", "/nowhere")
            with pytest.raises(NotAccepted):
                await client.connect_any("b")


def test_no_loop() -> None:
    """Without an event loop there is no client."""
    with pytest.raises(RuntimeError):
        Portmapper("/nowhere")
