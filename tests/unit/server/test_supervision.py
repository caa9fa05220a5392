"""The daemon under a service manager: when it says what, and what a heartbeat shows."""

import os

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.supervision import STATUS_PERIOD, Heartbeat, Supervision
from tests.support.stepped_reactor import Turns


class SupervisionTests(SynchronousTestCase):
    """What a manager hears."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.said: list[tuple[str, ...]] = []
        self.state = "serving port 111; 5 mappings"
        self.manager = True
        self.environ = {"WATCHDOG_USEC": "3000000"}

    def send(self, *lines: str) -> bool:
        """Be the manager, if there is one."""
        self.said.append(lines)
        return self.manager

    def started(self) -> Supervision:
        """A supervision that has started."""
        made = Supervision(
            self.turns.reactor,
            self.turns.epoll_group,
            lambda: self.state,
            self.send,
            self.environ,
        )
        made.startService()
        return made

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.turns.reactor.advance(seconds)
        self.turns.run()

    def test_ready(self) -> None:
        """It is ready in the first turn of the loop, and not before."""
        supervision = self.started()
        self.assertEqual(self.said, [])
        self.turns.run()
        ready = ("READY=1", f"MAINPID={os.getpid()}", f"STATUS={self.state}")
        self.assertEqual(self.said, [ready, ("WATCHDOG=1",)])
        supervision.stopService()
        self.assertEqual(self.said[-1], ("STOPPING=1",))
        self.assertEqual(self.turns.reactor.getDelayedCalls(), [])
        self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_stopped_before(self) -> None:
        """A daemon that ends before its first turn was never ready."""
        self.started().stopService()
        self.turns.run()
        self.assertEqual(self.said, [("STOPPING=1",)])

    def test_status(self) -> None:
        """The status line is sent when it is another one, and only then."""
        self.environ = {}
        supervision = self.started()
        self.turns.run()
        self.advance(STATUS_PERIOD)
        self.state = "serving port 111; 6 mappings"
        for _ in range(2):
            self.advance(STATUS_PERIOD)
        self.assertEqual(self.said[1:], [(f"STATUS={self.state}",)])
        supervision.stopService()

    def test_no_manager(self) -> None:
        """Without a manager, nothing is asked for again."""
        self.environ = {}
        self.manager = False
        supervision = self.started()
        self.turns.run()
        self.assertEqual(self.turns.reactor.getDelayedCalls(), [])
        supervision.stopService()

    def test_watchdog(self) -> None:
        """A watchdog hears of it three times a period."""
        supervision = self.started()
        self.turns.run()
        for _ in range(3):
            self.advance(1.0)
        self.assertEqual(self.said.count(("WATCHDOG=1",)), 4)
        supervision.stopService()


class HeartbeatTests(SynchronousTestCase):
    """A beat shows that descriptors are served."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.beats = 0

    def beat(self) -> None:
        """Count."""
        self.beats += 1

    def test_starved(self) -> None:
        """Where calls are timed but no descriptor is served, there is no beat."""
        heartbeat = Heartbeat(self.turns.reactor, self.turns.epoll_group, 1.0, self.beat)
        heartbeat.start()
        for _ in range(5):
            self.turns.reactor.advance(1.0)
        self.assertEqual(self.beats, 0)
        self.turns.run()
        self.assertEqual(self.beats, 1)
        heartbeat.stop()

    def test_without_descriptors(self) -> None:
        """A reactor that watches no descriptors beats in timed calls."""
        heartbeat = Heartbeat(self.turns.reactor, None, 1.0, self.beat)
        heartbeat.start()
        self.turns.reactor.advance(1.0)
        self.assertEqual(self.beats, 2)
        heartbeat.stop()
        self.turns.reactor.advance(5.0)
        self.assertEqual(self.beats, 2)
