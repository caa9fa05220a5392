"""The clients for Twisted, asyncio and plain sockets, driven alike by a test that blocks."""

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_twisted import blockon
from twisted.internet import defer, reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from portmapd.client import aio, blocking, twisted
from portmapd.errors import CallTimedOut, DaemonUnreachable
from tests.support.registrant import PATIENCE


class Shell(ABC):
    """One kind of client.

    :cvar timed_out: what a limit of time raises.
    :cvar stays_registered: does what was registered stay when an operation ran out of time?
    :cvar usable_after_fork: may a forked child use its copy?
    """

    timed_out: type[BaseException]
    stays_registered = True
    usable_after_fork = False

    @abstractmethod
    def make(self, path: str | None, lost: Any = None, **options: Any) -> Any:
        """Make a client."""

    @abstractmethod
    def wait(self, result: Any) -> Any:
        """Wait for what a method of it returned."""

    @abstractmethod
    def limited(self, client: Any, seconds: float, operate: Callable[[Any], Any]) -> Any:
        """Do an operation, with a limit of time."""

    def call(self, operate: Callable[[], Any]) -> Any:
        """Do an operation: its errors come with its result, never before."""
        return self.wait(operate())

    def next(self, changes: Any) -> Any:
        """Wait for the next change; None: there will be none."""
        return self.wait(_next(changes))

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Let the client do what it does by itself."""

    def connect(self, client: Any, *arguments: Any, method: str = "connect_any") -> Any:
        """Connect to a service."""
        return self.wait(getattr(client, method)(*arguments))

    @abstractmethod
    def receive(self, connection: Any) -> bytes:
        """Receive everything on a connection to a service."""

    def fails_in_child(self, operate: Callable[[], Any]) -> BaseException | None:
        """Return how an operation fails at once, in a forked child."""
        try:
            operate().send(None)
        except StopIteration:
            return None
        except Exception as error:
            return error
        return None

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait until *true* is, over whatever happens to the connection."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if true():
                    return
            except DaemonUnreachable:
                pass
            assert time.monotonic() < end, f"not in {PATIENCE:g} s: {what}"
            self.sleep(0.02)

    @contextmanager
    def client(self, path: str | None, lost: Any = None, **options: Any) -> Iterator[Any]:
        """Give the block a client."""
        made = self.make(path, lost, **options)
        try:
            yield made
        finally:
            self.wait(made.close())

    def close(self) -> None:  # noqa: B027
        """No client is used any more."""


class BlockingShell(Shell):
    """The client on plain sockets."""

    timed_out = CallTimedOut
    usable_after_fork = True

    def make(self, path: str | None, lost: Any = None, **options: Any) -> blocking.Portmapper:
        return blocking.Portmapper(path, lost=lost, **options)

    def wait(self, result: Any) -> Any:
        return result

    def limited(self, client: Any, seconds: float, operate: Callable[[Any], Any]) -> Any:
        client._shared.timeout, before = seconds, client._shared.timeout
        try:
            return operate(client)
        finally:
            client._shared.timeout = before

    def next(self, changes: Any) -> Any:
        return next(changes, None)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def receive(self, connection: Any) -> bytes:
        with connection:
            data: bytes = connection.makefile("rb").read()
            return data

    def fails_in_child(self, operate: Callable[[], Any]) -> BaseException | None:
        try:
            operate()
        except Exception as error:
            return error
        return None


class Receiver(Protocol):
    """Receives everything."""

    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(self.data)


class TwistedShell(Shell):
    """The client on a reactor."""

    timed_out = defer.TimeoutError
    stays_registered = False

    def make(self, path: str | None, lost: Any = None, **options: Any) -> twisted.Portmapper:
        return twisted.Portmapper(reactor, path, lost, **options)

    def wait(self, result: Any) -> Any:
        return blockon(result.addTimeout(PATIENCE, reactor))

    def next(self, changes: Any) -> Any:
        return self.wait(Deferred.fromCoroutine(_next(changes)))

    def call(self, operate: Callable[[], Any]) -> Any:
        made = operate()
        assert isinstance(made, Deferred)
        return self.wait(made)

    def limited(self, client: Any, seconds: float, operate: Callable[[Any], Any]) -> Any:
        return blockon(operate(client).addTimeout(seconds, reactor))

    def sleep(self, seconds: float) -> None:
        blockon(deferLater(reactor, seconds))

    def connect(self, client: Any, *arguments: Any, method: str = "connect_any") -> Any:
        factory = Factory.forProtocol(Receiver)
        factory.noisy = False
        return self.wait(getattr(client, method)(*arguments, factory))

    def receive(self, connection: Any) -> bytes:
        data: bytes = self.wait(connection.done)
        return data

    def fails_in_child(self, operate: Callable[[], Any]) -> BaseException | None:
        failures: list[BaseException] = []
        operate().addErrback(lambda failure: failures.append(failure.value))
        return failures[0] if failures else None


class AsyncioShell(Shell):
    """The client on an event loop."""

    timed_out = TimeoutError

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def make(self, path: str | None, lost: Any = None, **options: Any) -> aio.Portmapper:
        async def made() -> aio.Portmapper:
            return aio.Portmapper(path, lost, **options)

        return self._loop.run_until_complete(made())

    def wait(self, result: Any) -> Any:
        async def waited() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await result

        return self._loop.run_until_complete(waited())

    def call(self, operate: Callable[[], Any]) -> Any:
        made = operate()
        assert asyncio.iscoroutine(made)
        return self.wait(made)

    def limited(self, client: Any, seconds: float, operate: Callable[[Any], Any]) -> Any:
        async def within() -> Any:
            async with asyncio.timeout(seconds):
                return await operate(client)

        return self._loop.run_until_complete(within())

    def sleep(self, seconds: float) -> None:
        self._loop.run_until_complete(asyncio.sleep(seconds))

    def receive(self, connection: Any) -> bytes:
        async def received() -> Any:
            reader, writer = connection
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            return data

        data: bytes = self._loop.run_until_complete(received())
        return data

    def close(self) -> None:
        left = asyncio.all_tasks(self._loop)
        self._loop.close()
        assert not left, f"left behind: {left}"


async def _next(changes: Any) -> Any:
    try:
        return await anext(changes)
    except StopAsyncIteration:
        return None


SHELLS: dict[str, type[Shell]] = {
    "blocking": BlockingShell,
    "twisted": TwistedShell,
    "asyncio": AsyncioShell,
}


def in_child(do: Callable[[], object]) -> bool:
    """Return whether *do* gives something true in a forked child."""
    child = os.fork()
    if not child:
        # Nothing of the test's process may be undone by it.
        status = 1
        try:
            status = 0 if do() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0
