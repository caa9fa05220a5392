"""Watching with the blocking client."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from portmapd.client.blocking import Changes, Portmapper, Service
from portmapd.errors import BadArguments, DaemonUnreachable, Terminated
from tests.support.clients import ITSELF, Mortal, mortal, told
from tests.support.exchange import PATIENCE
from tests.support.talk import Talk

ME, UID = os.getpid(), os.geteuid()
PROGRAM = 400_001

#: Registered and deregistered so often, these make more events than wait for a slow reader.
NAMES = [f"n{number:0200}" for number in range(200)]
ROUNDS = 20

#: Threads that other tests left do nothing that a child could wait for.
MAY_FORK = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Mortal]:
    """Give a daemon that may be killed."""
    with mortal(tmp_path, "--max-services", "100000") as running:
        yield running


@pytest.fixture
def portmapper(daemon: Mortal) -> Iterator[Portmapper]:
    """Give a client."""
    with Portmapper(daemon.path) as client:
        yield client


def taken(changes: Changes, count: int) -> list[tuple[str, str]]:
    """The next changes that are not the port mapper's own."""
    return list(islice((said for change in changes if (said := told(change))[1]), count))


def test_watch(portmapper: Portmapper) -> None:
    """It begins with what is registered; then every change comes, in order."""
    portmapper.reg("a", 1)
    with portmapper.watch() as changes:
        assert taken(changes, 1) == [("registered", "a")]
        portmapper.reg([("b", 2), ("c", 3)], rpc=None)
        portmapper.set(PROGRAM, 1, "tcp", "0.0.0.0.0.9")
        portmapper.dereg("a", 1)
        portmapper.unset(PROGRAM, 1, "tcp", "0.0.0.0.0.9")
        assert taken(changes, 5) == [
            ("registered", "b"),
            ("registered", "c"),
            ("mapped", "0.0.0.0.0.9"),
            ("deregistered", "a"),
            ("unmapped", "0.0.0.0.0.9"),
        ]


def test_names(portmapper: Portmapper) -> None:
    """With names, only their services come; one name may stand alone."""
    portmapper.reg([("a", 1), ("b", 2), ("c", 3)])
    with portmapper.watch("b") as one, portmapper.watch(["a", "b"]) as two:
        assert taken(one, 1) == [("registered", "b")]
        assert sorted(taken(two, 2)) == [("registered", "a"), ("registered", "b")]
        portmapper.set(PROGRAM, 1, "tcp", "0.0.0.0.0.9")
        portmapper.dereg([("c", 3), ("b", 2), ("a", 1)])
        assert taken(one, 1) == [("deregistered", "b")]
        assert taken(two, 2) == [("deregistered", "b"), ("deregistered", "a")]
    with pytest.raises(BadArguments):
        portmapper.watch([])


def test_values(portmapper: Portmapper) -> None:
    """A change has the service as a listing has it."""
    portmapper.reg("a", "/run/a")
    with portmapper.watch("a") as changes:
        change = next(changes)
        assert change.subject == Service("a", UID, ME, "/run/a", "")
        assert portmapper.list("a") == [change.subject]


def test_slow_reader(daemon: Mortal, portmapper: Portmapper) -> None:
    """A reader who is too slow for all the changes gets those that make its set right."""
    known: Counter[str] = Counter()
    with portmapper.watch() as changes, Talk(daemon.path) as talk:
        for _ in range(ROUNDS):
            talk.register(*((name, "1", 0) for name in NAMES))
            talk.deregister(*((name, "1") for name in NAMES))
        talk.register(("last", "1", 0))
        seen = 0
        for change in changes:
            seen += 1
            kind, name = told(change)
            if name:
                known[name] += 1 if kind == "registered" else -1
            assert known[name] >= 0
            if name == "last":
                break
        assert +known == Counter(["last"])
        assert 0 < seen < ROUNDS * 2 * len(NAMES)


def test_changes_while_listed(daemon: Mortal, portmapper: Portmapper) -> None:
    """While many pages are listed, others come and go: it adds up all the same."""
    stop = threading.Event()

    def churn() -> None:
        with Talk(daemon.path) as talk:
            number = 0
            while not stop.is_set():
                talk.register((f"x{number % 7}", "1", 0), (f"y{number % 5}", "2", 0))
                talk.deregister((f"x{number % 7}", "1"))
                talk.deregister((f"y{number % 5}", "2"))
                number += 1
            talk.register(("last", "1", 0))
            stop.clear()
            stop.wait(PATIENCE)

    for start in range(0, 2000, 200):
        portmapper.reg([(f"n{number:0200}", 1) for number in range(start, start + 200)])
    churning = threading.Thread(target=churn)
    churning.start()
    known: Counter[str] = Counter()
    with portmapper.watch() as changes:
        stop.set()
        for change in changes:
            kind, name = told(change)
            if name:
                known[name] += 1 if kind == "registered" else -1
            assert known[name] in {0, 1}
            if name == "last":
                break
    listed = {service.name for service in portmapper.list() if service.name != ITSELF}
    assert set(+known) == listed
    stop.set()
    churning.join()


def test_restart(daemon: Mortal, portmapper: Portmapper) -> None:
    """Over a restart of the daemon, what is gone and what has come is told as the difference."""
    portmapper.reg("a", 1)
    with Talk(daemon.path) as talk, portmapper.watch(["a", "b", "c"]) as changes:
        talk.register(("b", "2", 0))
        assert taken(changes, 2) == [("registered", "a"), ("registered", "b")]
        daemon.kill()
        restart = threading.Timer(0.3, daemon.start)
        restart.start()
        assert sorted(taken(changes, 2)) == [("deregistered", "a"), ("deregistered", "b")]
        restart.join()
        portmapper.reg("c", 3)
        assert sorted(taken(changes, 2)) == [("registered", "a"), ("registered", "c")]


def test_daemon_stays_away(daemon: Mortal) -> None:
    """Longer than the timeout is an error; the watching may go on after it."""
    with Portmapper(daemon.path, timeout=0.5) as portmapper:
        portmapper.reg("a", 1)
        with portmapper.watch("a") as changes:
            assert taken(changes, 1) == [("registered", "a")]
            daemon.kill()
            with pytest.raises(DaemonUnreachable, match="no daemon"):
                next(changes)
            with pytest.raises(DaemonUnreachable, match="no daemon"):
                portmapper.watch("a")
            daemon.start()
            assert taken(changes, 1) == [("deregistered", "a")]


def test_terminator(daemon: Mortal, portmapper: Portmapper) -> None:
    """It ends the watching, and everything that was registered through the client is gone."""
    readable, writable = os.pipe()
    portmapper.reg("a", 1)
    with Portmapper(daemon.path) as other, other.watch("a") as watching:
        assert taken(watching, 1) == [("registered", "a")]
        changes = portmapper.watch("a", terminator=readable)
        assert taken(changes, 1) == [("registered", "a")]
        threading.Timer(0.2, os.write, (writable, b"!")).start()
        with pytest.raises(Terminated):
            next(changes)
        assert list(changes) == []
        assert taken(watching, 1) == [("deregistered", "a")]
    os.close(readable)
    os.close(writable)


def test_close(portmapper: Portmapper) -> None:
    """A watching that is closed, by another thread too, ends after what came already."""
    portmapper.reg([("a", 1), ("b", 2)])
    changes = portmapper.watch(["a", "b"])
    changes.close()
    assert [told(change)[1] for change in changes] == ["a", "b"]
    watching = portmapper.watch("nobody")
    threading.Timer(0.2, watching.close).start()
    assert list(watching) == []


@MAY_FORK
def test_fork(portmapper: Portmapper) -> None:
    """A forked child watches by a connection of its own; the parent misses nothing."""
    portmapper.reg("a", 1)
    with portmapper.watch("a") as changes:
        child = os.fork()
        if not child:
            status = 1
            try:
                status = 0 if taken(changes, 1) == [("registered", "a")] else 1
                changes.close()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        portmapper.dereg("a", 1)
        start = time.monotonic()
        assert taken(changes, 2) == [("registered", "a"), ("deregistered", "a")]
        assert time.monotonic() - start < PATIENCE
