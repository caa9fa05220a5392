"""A port mapper inside the test's own process, and its clients."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Literal, ParamSpec, cast

import pytest
import pytest_twisted
from greenlet import greenlet
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from portmapd.client import PortmapClient
from portmapd.config import Config
from portmapd.service import PortmapperService
from tests.support.exchange import has_ipv6

P = ParamSpec("P")

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6")


def asynchronous(test: Callable[P, Coroutine[Deferred[Any], Any, None]]) -> Callable[P, None]:
    """Run a test that awaits Deferreds."""
    return cast("Callable[P, None]", pytest_twisted.ensureDeferred(test))


def may_block(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test that calls ``blockon``; the reactor runs meanwhile."""

    @wraps(test)
    async def run(*arguments: P.args, **named: P.kwargs) -> None:
        done: Deferred[None] = Deferred()

        def body() -> None:
            outcome: Failure | None = None
            try:
                test(*arguments, **named)
            except BaseException:
                outcome = Failure()
            # Not here: whatever waits for it would go on in this greenlet.
            anything: Any = reactor
            anything.callLater(0, done.callback, outcome)

        greenlet(body).switch()
        await done

    return asynchronous(run)


def configured(**options: Any) -> Config:
    """A configuration on any free port of loopback, without UNIX sockets, but for *options*."""
    return Config(**{"port": 0, "rpc_socket": None, "local_socket": None} | options)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[PortmapperService]:
    """Serve in the block; see :func:`configured`."""
    service = PortmapperService(configured(**options), reactor)
    service.startService()
    try:
        yield service
    finally:
        await service.stopService()


@asynccontextmanager
async def asking(
    port: int, host: str = "127.0.0.1", transport: str = "udp", **options: Any
) -> AsyncIterator[PortmapClient]:
    """Give a client for the block."""
    kind = cast('Literal["udp", "tcp", "local"]', transport)
    client = PortmapClient(reactor, host, port, kind, **options)
    try:
        yield client
    finally:
        await client.close()
