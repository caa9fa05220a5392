"""Ending operations of the Twisted client: terminators, cancelling, and forked processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer, reactor
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory

from portmapd.client.twisted import Portmapper
from portmapd.errors import BadArguments, DaemonUnreachable, Terminated
from tests.support.clients import Mortal, listed, mapped, mortal, portmapper
from tests.support.embedded import asynchronous
from tests.support.exchange import PATIENCE
from tests.support.talk import Served, Talk

EVERYTHING: Any = reactor


@contextmanager
def _pipe(way: str) -> Iterator[tuple[Any, Callable[[], object]]]:
    reading, writing = os.pipe()
    try:
        if way == "write":
            yield reading, lambda: os.write(writing, b"x")
        else:
            yield reading, lambda: os.dup2(reading, writing)
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def _socket(way: str) -> Iterator[tuple[Any, Callable[[], object]]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, (lambda: theirs.send(b"x")) if way == "write" else theirs.close


#: Terminators, and how each becomes readable.
TERMINATORS: dict[str, Callable[[], Any]] = {
    "a pipe that is written to": lambda: _pipe("write"),
    "a pipe that is closed": lambda: _pipe("close"),
    "a socket that is written to": lambda: _socket("write"),
    "a socket that is closed": lambda: _socket("close"),
}

#: Every operation.
OPERATIONS: dict[str, Callable[[Portmapper, Any], Any]] = {
    "reg": lambda c, t: c.reg("b", 81, terminator=t),
    "dereg": lambda c, t: c.dereg("a", 80, terminator=t),
    "list": lambda c, t: c.list(terminator=t),
    "connect": lambda c, t: c.connect("a", 0, Factory(), terminator=t),
    "connect_root": lambda c, t: c.connect_root("a", Factory(), terminator=t),
    "connect_any": lambda c, t: c.connect_any("a", Factory(), terminator=t),
    "regpid2exe": lambda c, t: c.regpid2exe(terminator=t),
    "deregpid2exe": lambda c, t: c.deregpid2exe(terminator=t),
    "pid2exe": lambda c, t: c.pid2exe(1, terminator=t),
    "set": lambda c, t: c.set(400002, 1, "tcp", "0.0.0.0.0.81", terminator=t),
    "unset": lambda c, t: c.unset(400001, 1, "tcp", "0.0.0.0.0.80", terminator=t),
    "mappings": lambda c, t: c.mappings(terminator=t),
}


async def ended(daemon: Mortal, client: Portmapper, end: Callable[[], Any], kind: Any) -> None:
    """Assert that *end* ends an operation that waits so, and everything registered with it."""
    await client.reg("a", 80, rpc=(400001, 1))
    daemon.freeze()
    with pytest.raises(kind):
        await end()
    daemon.thaw()
    assert await listed(client) == []
    assert await mapped(client) == []


@asynchronous
async def test_terminators(tmp_path: Path) -> None:
    """When a terminator of whichever kind becomes readable, everything is gone."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:
            for make in TERMINATORS.values():
                with make() as (terminator, fire):
                    EVERYTHING.callLater(0.2, fire)
                    await ended(
                        daemon, client, partial(client.list, terminator=terminator), Terminated
                    )


@asynchronous
async def test_every_operation(tmp_path: Path) -> None:
    """Every operation takes a terminator, which may be readable from the beginning."""
    ours, theirs = socket.socketpair()
    with ours, theirs, mortal(tmp_path) as daemon:
        theirs.send(b"x")
        async with portmapper(daemon.path) as client:
            for operate in OPERATIONS.values():
                for terminator in (ours, ours.fileno()):
                    await ended(daemon, client, partial(operate, client, terminator), Terminated)


@asynchronous
async def test_cancel(tmp_path: Path) -> None:
    """Cancelling does the same, also by a time limit."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:

            def cancel() -> Any:
                result = client.reg("b", 81)
                result.cancel()
                return result

            await ended(daemon, client, cancel, CancelledError)
            await ended(
                daemon,
                client,
                lambda: client.list().addTimeout(0.05, EVERYTHING),
                defer.TimeoutError,
            )


@asynchronous
async def test_not_readable(channel: Served) -> None:
    """A terminator that stays quiet changes nothing, and may be used again and again."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        async with portmapper(channel.path) as client:
            await client.reg("a", 80, terminator=ours)
            for _ in range(20):
                assert await client.list("a", terminator=ours)
            assert len(os.listdir("/proc/self/fd")) <= before + 1


@asynchronous
async def test_no_terminator(channel: Served) -> None:
    """What has no open descriptor is refused; nothing is done, and everything stands."""
    closed = socket.socket()
    closed.close()
    async with portmapper(channel.path) as client:
        await client.reg("a", 80)
        for terminator in (closed, 1_000_000, object()):
            with pytest.raises(BadArguments, match="terminator"):
                await client.reg("b", 80, terminator=terminator)  # type: ignore[call-overload]
        assert await listed(client) == [("a", 80)]


@asynchronous
async def test_others_wait(tmp_path: Path) -> None:
    """Operations that wait on the same connection are told why it ended; later ones work."""
    with mortal(tmp_path) as daemon:
        async with portmapper(daemon.path) as client:
            await client.reg("a", 80)
            daemon.freeze()
            first, second = client.list(), client.reg("b", 80)
            first.addErrback(lambda failure: failure.trap(CancelledError))
            first.cancel()
            third = client.reg("c", 80)
            with pytest.raises(DaemonUnreachable, match="another operation was cancelled"):
                await second
            daemon.thaw()
            await third
            assert await listed(client) == [("c", 80)]


_FORKING = """
import os, sys
from twisted.internet.task import deferLater, react
from twisted.internet.defer import Deferred
from portmapd.client import Portmapper
from portmapd.errors import DaemonUnreachable

async def main(reactor):
    client = Portmapper(reactor, sys.argv[1])
    await client.reg("a", 80)
    watching = client.watch("b")
    child = os.fork()
    if not child:
        told = []
        client.list().addErrback(lambda failure: told.append(failure.value))
        closed = client.close()
        fine = isinstance(told[0], DaemonUnreachable) and "forked" in str(told[0])
        os._exit(0 if fine and closed.called else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    await client.reg("b", 80)
    print((await watching.__anext__()).kind)
    print(sorted(service.name for service in await client.list(["a", "b"])))
    await client.close()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


def test_fork(channel: Served) -> None:
    """A forked child cannot use its parent's connection, and does it no harm."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKING, channel.path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.splitlines() == ["0", "registered", "['a', 'b']"], done.stderr


def test_reactor_ends(channel: Served) -> None:
    """A program that ends in the midst of an operation leaves nothing registered."""
    script = """
import os, sys
from twisted.internet import reactor
from portmapd.client import Portmapper

client = Portmapper(None, sys.argv[1])
reading, _ = os.pipe()

def registered(_):
    client.list(terminator=reading).addErrback(lambda failure: print(failure.type.__name__))
    reactor.stop()

client.reg("a", 80).addCallback(registered)
reactor.run()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, channel.path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Talk(channel.path) as other:
        assert other.names() == []
