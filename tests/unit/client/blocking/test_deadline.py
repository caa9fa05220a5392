"""How long operations wait, and what ends them early."""

import gc
import os
import select
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.blocking.deadline import CloseEvent, Deadline
from portmapd.errors import BadArguments, CallTimedOut, ClientClosed, Terminated


class Clock:
    """A clock that stands still but for the test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class DeadlineTests(SynchronousTestCase):
    """One operation's time."""

    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        self.clock = Clock()

    def deadline(self, timeout: float | None = 0.05, **options: Any) -> Deadline:
        """A deadline on the clock of the test."""
        return Deadline(timeout, clock=self.clock, **options)

    def wait(self, deadline: Deadline) -> None:
        """Wait until our socket is readable."""
        deadline.wait(self.ours.fileno(), select.POLLIN)

    def test_ready(self) -> None:
        """It waits until the descriptor is ready."""
        self.theirs.send(b"x")
        self.wait(self.deadline())
        self.wait(self.deadline(None))

    def test_time(self) -> None:
        """The time runs from the beginning, and its end says how long it was."""
        deadline = self.deadline(2)
        self.clock.now += 1.5
        self.assertEqual(deadline.left, 0.5)
        self.clock.now += 0.5
        self.theirs.send(b"x")
        for wait in (lambda: self.wait(deadline), lambda: deadline.pause(0)):
            with self.assertRaises(CallTimedOut) as caught:
                wait()
            self.assertIn("in 2 s", str(caught.exception))

    def test_time_passes(self) -> None:
        """Nothing is ready in time."""
        self.assertRaises(CallTimedOut, self.wait, self.deadline())

    def test_no_limit(self) -> None:
        """Without a limit there is always time."""
        deadline = self.deadline(None)
        self.clock.now += 1e9
        self.assertEqual(deadline.left, float("inf"))
        deadline.pause(0)

    def test_wrong_time(self) -> None:
        """A time that is not positive is refused."""
        for timeout in (0, -1, float("nan")):
            self.assertRaises(ValueError, self.deadline, timeout)

    def test_within(self) -> None:
        """A part has so much time, but no more than is left, and always some."""
        deadline = self.deadline(10)
        self.assertAlmostEqual(deadline.within(3).left, 3)
        self.clock.now += 8
        self.assertAlmostEqual(deadline.within(3).left, 2)
        self.clock.now += 8
        self.assertGreater(deadline.within(3).left, 0)
        self.assertEqual(self.deadline(None).within(float("inf")).left, float("inf"))

    def test_terminator(self) -> None:
        """It ends every wait, also of a part, and comes before what is ready."""
        self.theirs.send(b"x")
        readable, writable = os.pipe()
        self.addCleanup(os.close, readable)
        os.close(writable)
        deadline = self.deadline(terminator=readable)
        self.assertRaises(Terminated, self.wait, deadline)
        self.assertRaises(Terminated, deadline.within(1).pause, 0)

    def test_no_terminator(self) -> None:
        """What is not an open descriptor is refused at once."""
        closed = socket.socket()
        closed.close()
        for terminator in (-1, closed, object(), 1_000_000):
            self.assertRaises(BadArguments, self.deadline, terminator=terminator)

    def test_close_event(self) -> None:
        """Closing the client ends every wait."""
        event = CloseEvent("/run/test.sock")
        deadline = self.deadline(close_event=event)
        deadline.pause(0)
        event.set()
        self.theirs.send(b"x")
        for wait in (lambda: self.wait(deadline), lambda: deadline.pause(0)):
            with self.assertRaises(ClientClosed) as caught:
                wait()
            self.assertIn("/run/test.sock", str(caught.exception))


class CloseEventTests(SynchronousTestCase):
    """The end of a client."""

    def test_set(self) -> None:
        """It is readable once it is set; setting it again does nothing."""
        event = CloseEvent("/s")
        event.check()
        self.assertFalse(event.is_set)
        self.assertEqual(select.select([event], [], [], 0)[0], [])
        for _ in range(3):
            event.set()
        self.assertTrue(event.is_set)
        self.assertEqual(select.select([event], [], [], 0)[0], [event])
        self.assertRaises(ClientClosed, event.check)

    def test_descriptor(self) -> None:
        """Its descriptor is open as long as it is used, and closed then."""
        event = CloseEvent("/s")
        descriptor = event.fileno()
        event.set()
        os.fstat(descriptor)
        del event
        gc.collect()
        self.assertRaises(OSError, os.fstat, descriptor)
