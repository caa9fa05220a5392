"""What tests with real sockets share: a reactor left clean, and network namespaces.

A test fails that leaves something behind on the reactor: a reader or a writer, a delayed call, a
logged error. One that expects a logged error asks for ``logged_errors`` and takes it out.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.support.clients import Mortal, mortal
from tests.support.namespace import Namespace, found, why_no_namespace
from tests.support.talk import Served, served

#: What a test closed has so many turns of so many seconds to be gone from the reactor.
TURNS, TURN = 50, 0.02


@pytest.fixture
def logged_errors() -> Iterator[list[LogEvent]]:
    """Every error logged during the test; those still in the list at its end fail it."""
    errors: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level") in {LogLevel.error, LogLevel.critical}:
            errors.append(event)

    globalLogPublisher.addObserver(observe)
    yield errors
    globalLogPublisher.removeObserver(observe)


@pytest.fixture(autouse=True)
def clean_reactor(logged_errors: list[LogEvent]) -> Iterator[None]:
    """Fail a test which leaves readers, writers, delayed calls or logged errors behind."""
    # The reactor's own reader is there once it runs.
    blockon(deferLater(reactor, 0))
    before = _on_reactor()
    yield
    blockon(Deferred.fromCoroutine(_settle(before)))
    # A failure that nobody handled is logged when its Deferred is collected.
    gc.collect()
    left = [repr(selectable) for selectable in _on_reactor() - before]
    left += [formatEvent(event) or repr(event) for event in logged_errors]
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """Give the test a network of its own, with its own port 111 and its own /run.

    ``@pytest.mark.programs("nmap", ...)`` names what the test runs there: it is skipped where one
    of them is missing. With ``@pytest.mark.broadcast`` there is an interface that broadcasts.
    """
    _skip_without_programs(request.node)
    if reason := why_no_namespace():
        pytest.skip(reason)
    with Namespace(broadcast=request.node.get_closest_marker("broadcast") is not None) as made:
        yield made


#: Addresses of the test's network on the wire, and of the other host on it.
OURS, OURS6 = "10.98.0.1", "2001:db8:1::1"
THEIRS, THEIRS6 = "10.98.0.2", "2001:db8:1::2"


@pytest.fixture
def elsewhere(namespace: Namespace) -> Iterator[Namespace]:
    """Give the test another host, on a wire: interface w0 of its network, and w1 of the other."""
    with Namespace() as made:
        namespace.wire(made)
        for host, interface, addresses in (
            (namespace, "w0", (OURS, OURS6)),
            (made, "w1", (THEIRS, THEIRS6)),
        ):
            for address, length in zip(addresses, (24, 64), strict=True):
                host.run("ip", "addr", "add", f"{address}/{length}", "dev", interface)
        yield made


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Give the test a daemon with a local channel.

    ``@pytest.mark.options("--max-services", "3")`` names its options.
    """
    options = request.node.get_closest_marker("options")
    with served(*(options.args if options else ())) as running:
        yield running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Mortal]:
    """Give a daemon that may be killed."""
    with mortal(tmp_path) as running:
        yield running


def _skip_without_programs(node: pytest.Item) -> None:
    wanted = {name for mark in node.iter_markers("programs") for name in mark.args}
    if missing := sorted(name for name in wanted if not found(name)):
        pytest.skip(f"not on this machine: {', '.join(missing)}")


def _on_reactor() -> set[object]:
    return {*reactor.getReaders(), *reactor.getWriters(), *reactor.getDelayedCalls()}


async def _settle(before: set[object]) -> None:
    for _ in range(TURNS):
        if _on_reactor() <= before:
            return
        await deferLater(reactor, TURN)
