"""The Twisted client outlives the daemon: killed, started again, missing, or something else."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent, capturedLogs

from portmapd.client.core.registrations import Group
from portmapd.client.twisted import Portmapper
from portmapd.client.values import Flags
from portmapd.errors import AlreadyRegistered, DaemonUnreachable, PortmapdError
from tests.support.clients import listed, mapped, mortal, pause, portmapper, until, until_listed
from tests.support.embedded import asynchronous
from tests.support.talk import Served, Talk

EVERYTHING: Any = reactor

#: How many clients outlive a daemon together.
CLIENTS = 100


class Losses:
    """Takes what could not be registered again."""

    def __init__(self) -> None:
        self.groups: list[tuple[Group, PortmapdError]] = []

    def __call__(self, group: Group, why: PortmapdError) -> None:
        self.groups.append((group, why))


async def _register(client: Portmapper, number: int) -> None:
    """Register a name alone, two in one group, and one with a mapping."""
    name = f"n{number}"
    await client.reg(name, 1_000 + number, Flags.EXCLUSIVE)
    await client.reg([(f"{name}.a", 80, 0), (f"{name}.b", 80, 0)])
    await client.reg(f"{name}.rpc", 2_000 + number, rpc=(400000 + number, 1))


async def _registered(client: Portmapper) -> tuple[Counter[Any], Counter[Any]]:
    """How often each name, and each program, is listed."""
    names = Counter(name for name, _ in await listed(client))
    return names, Counter(row[0] for row in await mapped(client))


@asynchronous
async def test_a_hundred_clients(tmp_path: Path, record_property: Callable[..., None]) -> None:
    """Killed and started again: everything is back, nothing twice, and losses are reported."""
    losses = Losses()
    with mortal(tmp_path, "--max-services", "1000", "--max-mappings", "1000") as daemon:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(portmapper(daemon.path, losses))
                for _ in range(CLIENTS)
            ]
            await gatherResults(
                [Deferred.fromCoroutine(_register(c, n)) for n, c in enumerate(clients)]
            )
            observer = await stack.enter_async_context(portmapper(daemon.path))
            before = await _registered(observer)
            assert (len(before[0]), len(before[1])) == (4 * CLIENTS, CLIENTS)
            daemon.kill()
            daemon.start()
            # The clients have not had their turn: these two are taken from them.
            with Talk(daemon.path) as other:
                other.register(("n0", "9", Flags.EXCLUSIVE))
                other.set((400001, 1, "tcp", "0.0.0.0.0.9"))
                begun = EVERYTHING.seconds()
                wanted = before[0] - Counter(["n1.rpc"]), before[1]
                await until(lambda: len(losses.groups) == 2, "the reports of what was lost")
                while await _registered(observer) != wanted:
                    assert EVERYTHING.seconds() < begun + 30, "everything is back"
                    await pause()
                record_property("seconds until all was back", EVERYTHING.seconds() - begun)
                lost = {group.services[0][0]: why for group, why in losses.groups}
                assert set(lost) == {"n0", "n1.rpc"}
                for why in lost.values():
                    assert isinstance(why, AlreadyRegistered)
                    assert "pid" in str(why)
            # What was lost is not tried again.
            await pause(0.5)
            names, programs = await _registered(observer)
            assert names == before[0] - Counter(["n0", "n1.rpc"])
            assert programs == before[1] - Counter([400001])


@asynchronous
async def test_operation_waits(tmp_path: Path) -> None:
    """An operation that waits when the daemon dies fails; what stood before is back."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:
            await client.reg("a", 80)
            daemon.freeze()
            waiting = [client.reg("b", 80), client.dereg("a", 80)]
            await pause(0.1)
            assert not any(one.called for one in waiting)
            daemon.kill()
            for one in waiting:
                with pytest.raises(DaemonUnreachable, match="was lost"):
                    await one
            with pytest.raises(DaemonUnreachable, match="is portmapd running there"):
                await client.list()
            daemon.start()
            assert await listed(client) == [("a", 80)]


@asynchronous
async def test_log_without_a_daemon(tmp_path: Path) -> None:
    """While there is no daemon, the log does not grow."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:
            await client.reg("a", 80)
            with capturedLogs() as events:
                daemon.kill()
                await pause(1)
            assert [event["log_format"] for event in events] == []
            daemon.start()
            await until_listed(client, ("a", 80))


@asynchronous
async def test_several_restarts(tmp_path: Path) -> None:
    """Each restart is outlived, with what was registered and deregistered in between."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client, portmapper(daemon.path) as other:
            for number in range(3):
                await client.reg(f"n{number}", 80)
                if number:
                    await client.dereg(f"n{number - 1}", 80)
                daemon.kill()
                daemon.start()
                await until_listed(other, (f"n{number}", 80))


@asynchronous
async def test_application_fails(tmp_path: Path, logged_errors: list[LogEvent]) -> None:
    """What an application's callbacks raise harms nothing."""

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path, fail) as client:
            result = client.reg("a", 80, Flags.EXCLUSIVE).addCallback(fail)
            with pytest.raises(ZeroDivisionError):
                await result
            await client.reg("b", 80)
            daemon.kill()
            daemon.start()
            with Talk(daemon.path) as other:
                other.register(("a", "80", Flags.EXCLUSIVE))
                await until(lambda: logged_errors, "the logged error")
                (event,) = logged_errors
                assert event["log_failure"].check(ZeroDivisionError)
                logged_errors.clear()
                await until_listed(client, ("a", 80), ("b", 80))


@asynchronous
async def test_close_without_a_daemon(tmp_path: Path) -> None:
    """A client that is closed while it waits for a daemon does not come back."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:
            await client.reg("a", 80)
            daemon.kill()
            await pause(0.2)
            await client.close()
            daemon.start()
            await pause(0.5)
            with Talk(daemon.path) as other:
                assert other.names() == []


@asynchronous
async def test_close_at_once(tmp_path: Path) -> None:
    """Closing is clean at any moment after a restart, and nothing is registered afterwards."""
    with mortal(tmp_path, "--max-services", "1000", "--max-mappings", "1000") as daemon:
        for turns in range(8):
            async with portmapper(daemon.path) as client:
                await gatherResults([client.reg(f"n{number}", 80) for number in range(50)])
                daemon.kill()
                daemon.start()
                waiting = client.list()
                for _ in range(turns):
                    await pause(0)
                await client.close()
                await waiting.addErrback(lambda failure: failure.trap(DaemonUnreachable))
            with Talk(daemon.path) as other:
                assert other.names() == []


class Other(Protocol):
    """Something else than portmapd: it says something, or nothing, or closes at once."""

    transport: Any
    factory: "Others"

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        if self.factory.says is None:
            self.transport.loseConnection()
        else:
            self.transport.write(self.factory.says)


class Others(Factory):
    """A server of something else."""

    noisy = False

    def __init__(self, says: bytes | None) -> None:
        self.says = says
        self.connections: list[Other] = []

    def buildProtocol(self, addr: Any) -> Any:
        made = Other()
        made.factory = self
        return made


@asynccontextmanager
async def serving(path: str, says: bytes | None) -> AsyncIterator[Others]:
    """Serve something else at *path* in the block."""
    factory = Others(says)
    port = EVERYTHING.listenUNIX(path, factory)
    try:
        yield factory
    finally:
        await port.stopListening()
        for connection in factory.connections:
            connection.transport.abortConnection()


GARBAGE: dict[str, tuple[bytes | None, str]] = {
    "text": (b"220 mail.example.com ESMTP\r\n", "is not a portmapd that this client understands"),
    "endless": (b"\0\1a\0\0" * 100_000, "is not a portmapd that this client understands"),
    "no answer": (b"\0\7_answer\0\0011\0\0" * 3, "is not a portmapd that this client understands"),
    "end": (None, "the connection .* was lost"),
}


@pytest.mark.parametrize("what", GARBAGE)
@asynchronous
async def test_something_else(tmp_path: Path, what: str) -> None:
    """What serves there is not a portmapd: a clear error, and no further connections."""
    path = str(tmp_path / "socket")
    says, why = GARBAGE[what]
    async with serving(path, says) as other, portmapper(path) as client:
        for operate in (client.list, lambda: client.reg("a", 80)):
            with pytest.raises(DaemonUnreachable, match=why) as caught:
                await operate()
            assert path in str(caught.value)
        await pause(0.3)
        assert len(other.connections) == 2


@asynchronous
async def test_something_else_takes_over(tmp_path: Path) -> None:
    """A client whose daemon is replaced by something else asks it again, but not often."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:
            await client.reg("a", 80)
            daemon.kill()
            Path(daemon.path).unlink()
            async with serving(daemon.path, b"220 mail.example.com ESMTP\r\n") as other:
                await until(lambda: len(other.connections) >= 2, "two attempts")
                await pause(1)
                assert len(other.connections) <= 8
            daemon.start()
            async with portmapper(daemon.path) as observer:
                await until_listed(observer, ("a", 80))


@pytest.mark.options("--max-services", "1000")
@asynchronous
async def test_memory_of_operations(channel: Served) -> None:
    """Nothing is kept of operations that are over."""
    async with portmapper(channel.path) as client:
        await gatherResults([client.list("a") for _ in range(500)])
        connection = await client._connection.open()
        assert len(connection) == 0
        assert len(client._operations) == 0
