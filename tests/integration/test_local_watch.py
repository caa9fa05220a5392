"""Watching with the Twisted client: what happens on a real daemon, over overflows and restarts."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from portmapd.client.core.watching import AsyncChanges
from portmapd.errors import ClientClosed
from tests.support.clients import changes, mortal, pause, portmapper, told, until
from tests.support.embedded import asynchronous
from tests.support.talk import Served

CAME, WENT = "registered", "deregistered"


async def collect(watching: AsyncChanges, into: "Counter[str]") -> None:
    """Take changes until the end; nothing may go that did not come."""
    async for change in watching:
        kind, name = told(change)
        if name:
            into[name] += 1 if kind in {CAME, "mapped"} else -1
            assert into[name] >= 0, change


@asynchronous
async def test_before_and_after(channel: Served) -> None:
    """It begins with what is registered, and goes on with what happens, in order."""
    async with portmapper(channel.path) as client, portmapper(channel.path) as other:
        await other.reg("a", 80, rpc=(400001, 1))
        watching = client.watch()
        assert sorted(await changes(watching, 2)) == [("mapped", "0.0.0.0.0.80"), (CAME, "a")]
        await other.reg([("b", 80, 0), ("c", 80, 0)])
        await other.dereg("a", 80)
        await other.close()
        assert await changes(watching, 6) == [
            (CAME, "b"),
            (CAME, "c"),
            (WENT, "a"),
            ("unmapped", "0.0.0.0.0.80"),
            (WENT, "b"),
            (WENT, "c"),
        ]


@asynchronous
async def test_several(channel: Served) -> None:
    """Several watchings of one client have their own names; what it does itself is told, too."""
    async with portmapper(channel.path) as client:
        first, second, everything = client.watch("a"), client.watch(["b", "c"]), client.watch()
        await client.reg([(name, 80, 0) for name in "abc"])
        assert await changes(first, 1) == [(CAME, "a")]
        assert await changes(second, 2) == [(CAME, "b"), (CAME, "c")]
        assert len(await changes(everything, 3)) == 3
        late = client.watch("c")
        assert await changes(late, 1) == [(CAME, "c")]
        await client.dereg([(name, 80) for name in "abc"])
        assert await changes(first, 1) == [(WENT, "a")]
        assert await changes(second, 2) == [(WENT, "b"), (WENT, "c")]
        assert await changes(late, 1) == [(WENT, "c")]
        assert len(await changes(everything, 3)) == 3


@pytest.mark.options("--max-services", "5000")
@asynchronous
async def test_overflow(channel: Served) -> None:
    """A process that does not read for a long while is told the difference in the end."""
    async with portmapper(channel.path) as client:
        known: Counter[str] = Counter()
        collecting = Deferred.fromCoroutine(collect(client.watch(), known))
        await client.reg("ready", 80)
        await until(lambda: known["ready"], "the first change")
        with channel.talk() as talk:
            names = [f"n{number:04}" for number in range(3_000)]
            # Nothing of ours is read here: the daemon's queue for us is full soon.
            for start in range(0, len(names), 500):
                part = names[start : start + 500]
                for _ in range(3):
                    talk.register(*((name, "80", 0) for name in part))
                    talk.deregister(*((name, "80") for name in part))
                talk.register(*((name, "80", 0) for name in part))
            await client.reg("last", 80)
            await until(lambda: known["last"], "the last change")
            wanted = Counter(["ready", "last", *names])
            await until(lambda: +known == wanted, "what is registered")
        await until(lambda: +known == Counter(["ready", "last"]), "their end")
    await collecting


@asynchronous
async def test_no_reader(channel: Served) -> None:
    """What a consumer does not take is bounded by what is registered, and adds up."""
    async with portmapper(channel.path) as client, portmapper(channel.path) as other:
        watching = client.watch("a")
        for _ in range(8_000):
            other.reg("a", 80)
            last = other.dereg("a", 80)
        await last
        await other.reg("a", 81)
        await until(lambda: watching.state.changes, "changes")
        await client.list()
        assert len(watching.state.changes) <= 10_000
        known: Counter[str] = Counter()
        watching.close()
        await collect(watching, known)
        assert +known == Counter("a")


@asynchronous
async def test_restart(tmp_path: Path) -> None:
    """Over the daemon's restart, watchings go on with what is different."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client, portmapper(daemon.path) as other:
            await client.reg("ours", 80)
            watching, named = client.watch(), client.watch(["theirs", "new"])
            assert await changes(watching, 1) == [(CAME, "ours")]
            await other.reg("theirs", 80)
            assert await changes(watching, 1) == [(CAME, "theirs")]
            daemon.kill()
            await other.close()
            daemon.start()
            async with portmapper(daemon.path) as third:
                await third.reg("new", 80)
                seen: list[Any] = []
                while (CAME, "new") not in seen or (WENT, "theirs") not in seen:
                    seen += await changes(watching, 1)
                assert (CAME, "ours") not in seen or (WENT, "ours") in seen
                kinds = [kind for kind, name in await changes(named, 3) if name == "new"]
                assert kinds == [CAME]


@asynchronous
async def test_before_the_daemon(tmp_path: Path) -> None:
    """A watching that begins before the daemon does waits for it."""
    with mortal(tmp_path) as daemon:
        daemon.kill()
        async with portmapper(daemon.path) as client, portmapper(daemon.path) as other:
            watching = client.watch("a")
            await pause(0.2)
            daemon.start()
            await other.reg("a", 80)
            assert await changes(watching, 1) == [(CAME, "a")]


@asynchronous
async def test_application_fails(channel: Served) -> None:
    """A consumer that fails harms neither the connection nor other consumers."""

    async def consume(watching: AsyncChanges) -> None:
        async for _ in watching:
            raise ZeroDivisionError

    async with portmapper(channel.path) as client:
        failing = Deferred.fromCoroutine(consume(client.watch("a")))
        other = client.watch("a")
        await client.reg("a", 80)
        with pytest.raises(ZeroDivisionError):
            await failing
        await client.reg("a", 81)
        assert await changes(other, 2) == [(CAME, "a")] * 2


@asynchronous
async def test_close(channel: Served) -> None:
    """Iterations end with their watching, or with the client."""
    async with portmapper(channel.path) as client:
        first, second = client.watch("a"), client.watch("b")
        await client.reg("a", 80)
        ends = [Deferred.fromCoroutine(collect(one, Counter())) for one in (first, second)]
        first.close()
        await ends[0]
        assert not ends[1].called
        await client.close()
        await ends[1]
        with pytest.raises(ClientClosed):
            client.watch()
