"""Connecting to the daemon and to services: candidates, shares of the time, waits."""

import errno
import itertools
import math
import os
import struct
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.blocking.connection import run
from portmapd.client.core.connecting import (
    FIRST_WAIT,
    LONGEST_WAIT,
    QUEUE_WAIT,
    TIMEOUT,
    Target,
    dial,
    dial_any,
    dial_daemon,
    waits,
)
from portmapd.client.values import Service
from portmapd.errors import CallTimedOut, DaemonUnreachable, NotAccepted, NotListed
from portmapd.waiting import JITTER

FULL = BlockingIOError(errno.EAGAIN, "try again")


class Stream:
    """A connection that was made."""

    def __init__(self, own: Any = "own", peer: Any = "peer", uid: int = 0) -> None:
        self._own = own
        self._peer = peer
        self._uid = uid
        self.is_closed = False

    def getsockname(self) -> Any:
        """Its own address."""
        return self._own

    def getpeername(self) -> Any:
        """Its peer's."""
        return self._peer

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """The credentials of its peer."""
        return struct.pack("=iII", 7, self._uid, self._uid)

    def close(self) -> None:
        """Close it."""
        self.is_closed = True


class World:
    """Where connections are made: a dialer whose clock goes as it waits.

    :param outcomes: what comes of each target, in turn; the last one stays.
    :ivar dialled: the targets, and the seconds that each was given.
    """

    def __init__(self, outcomes: dict[Target, list[Any]], left: float = math.inf) -> None:
        self._outcomes = outcomes
        self._end = left
        self._now = 0.0
        self.dialled: list[tuple[Target, float]] = []

    @property
    def left(self) -> float:
        """The time that is left."""
        return self._end - self._now

    def time(self) -> float:
        """The time."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    async def dial(self, target: Target, seconds: float) -> Stream:
        """Give what comes of it."""
        self.dialled.append((target, seconds))
        outcomes = self._outcomes.get(target, [ConnectionRefusedError(111, "Connection refused")])
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        if isinstance(outcome, CallTimedOut):
            self._now += seconds
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Stream)
        return outcome


def service(port: int | str) -> Service:
    """A service on a port."""
    return Service("a", 104, 7, port, "")


class DialTests(SynchronousTestCase):
    """One target."""

    def test_connected(self) -> None:
        """A connection is given as it was made."""
        stream = Stream()
        self.assertIs(run(dial(World({"/s": [stream]}), "/s", 5)), stream)

    def test_full_queue(self) -> None:
        """A place in the queue of a UNIX socket is waited for, within the time."""
        stream = Stream()
        world = World({"/s": [FULL] * 10 + [stream]})
        self.assertIs(run(dial(world, "/s", 5)), stream)
        self.assertAlmostEqual(world.time(), 10 * QUEUE_WAIT)
        self.assertAlmostEqual(world.dialled[-1][1], 5 - 10 * QUEUE_WAIT)

    def test_queue_stays_full(self) -> None:
        """The error says so."""
        world = World({"/s": [FULL]})
        with self.assertRaises(OSError) as caught:
            run(dial(world, "/s", 2))
        self.assertIn("not done in 2 s: its queue of connections is full", str(caught.exception))
        self.assertAlmostEqual(world.time(), 2, 1)

    def test_to_itself(self) -> None:
        """A TCP socket that is connected to itself is closed, and is not a connection."""
        itself = Stream(("127.0.0.1", 80), ("127.0.0.1", 80))
        world = World({("127.0.0.1", 80): [itself]})
        with self.assertRaises(ConnectionRefusedError):
            run(dial(world, ("127.0.0.1", 80), 5))
        self.assertTrue(itself.is_closed)

    def test_nameless_unix_socket(self) -> None:
        """The names of UNIX sockets say nothing of that."""
        stream = Stream("", "")
        self.assertIs(run(dial(World({"/s": [stream]}), "/s", 5)), stream)


class DaemonTests(SynchronousTestCase):
    """The daemon's socket."""

    def test_unreachable(self) -> None:
        """The error names the path and the reason."""
        with self.assertRaises(DaemonUnreachable) as caught:
            run(dial_daemon(World({}), "/s", 5))
        self.assertIn("at /s (Connection refused); is portmapd", str(caught.exception))
        self.assertIsInstance(caught.exception.__cause__, ConnectionRefusedError)

    def test_no_path(self) -> None:
        """A path that no socket can have is not tried."""
        for path in ("/" + "a" * 107, "/" + "ä" * 54, "/\0"):
            world = World({})
            with self.assertRaises(DaemonUnreachable):
                run(dial_daemon(world, path, 5))
            self.assertEqual(world.dialled, [])

    def test_any_bytes(self) -> None:
        """Paths may have bytes that are not text."""
        stream = Stream()
        self.assertIs(run(dial_daemon(World({"/\udcff": [stream]}), "/\udcff", 5)), stream)

    def test_daemon_of_another_user(self) -> None:
        """At a path of ours, only our daemon or root's is used; elsewhere, anybody's."""
        self.patch(os, "environ", {"XDG_RUNTIME_DIR": "/run/u"})
        own, other = "/run/u/portmapd.sock", "/run/v/portmapd.sock"
        me = os.geteuid()
        for path, uid in ((own, me), (own, 0), (other, me + 77)):
            stream = Stream(uid=uid)
            self.assertIs(run(dial_daemon(World({path: [stream]}), path, 5)), stream)
        stream = Stream(uid=me + 77)
        with self.assertRaisesRegex(DaemonUnreachable, f"is another user's, of uid {me + 77}"):
            run(dial_daemon(World({own: [stream]}), own, 5))
        self.assertTrue(stream.is_closed)


class AnyTests(SynchronousTestCase):
    """One of several services."""

    def test_candidates(self) -> None:
        """Numbers are tried on IPv4, then IPv6; paths as they are; announcements not at all."""
        world = World({})
        services = [service(80), service("/s"), service("*")]
        with self.assertRaises(NotAccepted) as caught:
            run(dial_any(world, "a", services))
        targets = [target for target, _ in world.dialled]
        self.assertEqual(len(targets), 3)
        self.assertEqual(targets.index(("::1", 80)), targets.index(("127.0.0.1", 80)) + 1)
        self.assertIn("/s", targets)
        self.assertIn("a, 3 in number, none accepts", str(caught.exception))
        self.assertIn("the last one: Connection refused", str(caught.exception))

    def test_random_order(self) -> None:
        """No service is preferred."""
        first = set()
        for _ in range(100):
            world = World({})
            with self.assertRaises(NotAccepted):
                run(dial_any(world, "a", [service("/s"), service("/t")]))
            first.add(world.dialled[0][0])
        self.assertEqual(first, {"/s", "/t"})

    def test_shares(self) -> None:
        """One that hangs leaves time for the others."""
        stream, late = Stream(), CallTimedOut("late")
        for _ in range(10):
            world = World({"/hangs": [late], "/s": [stream]}, left=8)
            services = [service("/hangs"), service("/s")]
            self.assertIs(run(dial_any(world, "a", services)), stream)
            self.assertEqual(world.dialled[0][1], 4)
        world = World({"/hangs": [late]}, left=8)
        with self.assertRaises(NotAccepted) as caught:
            run(dial_any(world, "a", [service("/hangs")]))
        self.assertIn("late", str(caught.exception))

    def test_longest_attempt(self) -> None:
        """However much time there is, an attempt has so much at most."""
        world = World({"/s": [Stream()]})
        run(dial_any(world, "a", [service("/s")]))
        self.assertEqual(world.dialled, [("/s", TIMEOUT)])

    def test_nothing(self) -> None:
        """None is registered, or none has an address: two errors."""
        with self.assertRaises(NotListed):
            run(dial_any(World({}), "a", []))
        with self.assertRaises(NotAccepted) as caught:
            run(dial_any(World({}), "a", [service("*")]))
        self.assertIn("it has no address", str(caught.exception))


class WaitTests(SynchronousTestCase):
    """The waits before attempts to connect again."""

    def test_doubling(self) -> None:
        """They double, up to the longest, with some jitter."""
        wait = FIRST_WAIT
        for found in itertools.islice(waits(), 20):
            self.assertGreaterEqual(found, wait * (1 - JITTER / 2))
            self.assertLessEqual(found, wait * (1 + JITTER / 2))
            wait = min(2 * wait, LONGEST_WAIT)
