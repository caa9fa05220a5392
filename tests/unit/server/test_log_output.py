"""Events that are not portmapd's own are bounded where they are written."""

from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.log_events import SERVING
from portmapd.server.log_output import MAX_OTHERS, BoundedObserver


class BoundedObserverTests(SynchronousTestCase):
    """What the log is given."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[LogEvent] = []
        observer = BoundedObserver(self.written.append, self.clock.seconds)
        self.log = Logger("twisted.internet.tcp.Port", observer=observer)

    def test_refused_connections(self) -> None:
        """A flood has a few lines in a second, and then the count of what was left out."""
        for _ in range(10_000):
            self.log.info("EMFILE encountered; releasing reserved file descriptor.")
        self.assertEqual(len(self.written), MAX_OTHERS)
        self.clock.advance(1)
        self.log.info("Re-reserving EMFILE recovery file descriptor.")
        omitted, last = self.written[MAX_OTHERS:]
        self.assertEqual(formatEvent(omitted), f"{10_000 - MAX_OTHERS} more other events")
        self.assertEqual((omitted["event"], omitted["kind"]), ("omitted", "other"))
        self.assertIn("Re-reserving", formatEvent(last))

    def test_failures(self) -> None:
        """So has a failure that every request has, such as a lack of memory."""
        for _ in range(100):
            try:
                raise MemoryError
            except MemoryError:
                self.log.failure("a command failed")
        self.assertEqual(len(self.written), MAX_OTHERS)

    def test_own(self) -> None:
        """Events of portmapd are not left out: they are bounded already."""
        for _ in range(3 * MAX_OTHERS):
            self.log.info("other")
            self.log.info(SERVING.text, event=SERVING.name, what="UDP")
        own = [event for event in self.written if "event" in event]
        self.assertEqual(len(own), 3 * MAX_OTHERS)
