"""Malformed messages and refusals in the log: who sent what, and not too often."""

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.log_events import EVENTS
from portmapd.server.rate_limited_log import (
    MAX_CHANGES,
    MAX_LINES,
    MAX_WARNINGS,
    PERIOD,
    RateLimitedLog,
)
from tests.support.rpc_samples import call, local, remote
from tests.support.rpc_server import Serving


def lines(events: Sequence[LogEvent]) -> list[str]:
    """What the log says."""
    return [formatEvent(event) for event in events]


class RateLimitedLogTests(SynchronousTestCase):
    """The log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rate_limited_log = RateLimitedLog(self.clock)

    def test_line(self) -> None:
        """A line says who sent it, over what, and what is wrong."""
        with capturedLogs() as events:
            self.rate_limited_log.malformed(remote(port=999), "it is short")
            self.rate_limited_log.malformed(local(104), "it is long")
        self.assertEqual(
            lines(events),
            [
                "malformed message from 192.0.2.7 port 999 over udp: it is short",
                "malformed message from uid 104 over local: it is long",
            ],
        )

    def test_refused(self) -> None:
        """So it does of who was refused what; each kind of line has a bound of its own."""
        with capturedLogs() as events:
            for _ in range(MAX_LINES + 5):
                self.rate_limited_log.malformed(remote(), "it is short")
            self.clock.advance(1)
            for _ in range(MAX_LINES + 3):
                self.rate_limited_log.refused(local(104), "SET of everything")
            self.clock.advance(PERIOD)
            self.rate_limited_log.refused(local(104), "more")
        said = lines(events)
        line = "refused for uid 104 over local: SET of everything"
        self.assertEqual(
            said[MAX_LINES:],
            [line] * MAX_LINES + ["5 more malformed messages", "3 more refused requests", said[-1]],
        )

    def test_bounded(self) -> None:
        """A period has at most so many lines."""
        with capturedLogs() as events:
            for _ in range(10 * MAX_LINES):
                self.rate_limited_log.malformed(remote(), "it is short")
                self.clock.advance(PERIOD / (10 * MAX_LINES + 1))
        self.assertEqual(len(events), MAX_LINES)

    def test_in_a_second(self) -> None:
        """All warnings together have ten lines in a second; what is left out is counted."""
        with capturedLogs() as events:
            for _ in range(1_000):
                self.rate_limited_log.malformed(remote(), "it is short")
                self.rate_limited_log.refused(remote(), "SET of everything")
                self.rate_limited_log.sent_away(remote(), "too many streams")
            self.assertEqual(len(events), MAX_WARNINGS)
            self.clock.advance(PERIOD)
        counts = [event["count"] for event in events[MAX_WARNINGS:]]
        self.assertEqual(len(counts), 3)
        self.assertEqual(sum(counts), 3_000 - MAX_WARNINGS)

    def test_in_all(self) -> None:
        """All kinds together have ten lines a second, with the counts, however long it goes on."""
        with capturedLogs() as events:
            for _ in range(180):
                for event in EVENTS.values():
                    fields = dict.fromkeys(event.fields, "x")
                    for _ in range(MAX_CHANGES):
                        self.rate_limited_log.log(event, **fields)
                self.clock.advance(1)
        self.assertLessEqual(len(events), 180 * 10 / 2)

    def test_next_period(self) -> None:
        """The next period begins with how many were left out."""
        with capturedLogs() as events:
            for _ in range(MAX_LINES + 3):
                self.rate_limited_log.malformed(remote(), "first")
            self.clock.advance(PERIOD)
            self.rate_limited_log.malformed(remote(), "second")
        said = lines(events)
        self.assertEqual(len(said), MAX_LINES + 2)
        self.assertEqual(said[MAX_LINES], "3 more malformed messages")
        self.assertIn("second", said[-1])

    def test_nothing_left_out(self) -> None:
        """Nothing is said if none were left out."""
        with capturedLogs() as events:
            for _ in range(3):
                self.rate_limited_log.malformed(remote(), "it is short")
                self.clock.advance(PERIOD)
        self.assertEqual(len(events), 3)

    def test_peer_is_no_format(self) -> None:
        """What a peer sent is not a format for the log."""
        with capturedLogs() as events:
            self.rate_limited_log.malformed(remote(), "{caller.__class__} %s")
        self.assertTrue(lines(events)[0].endswith(": {caller.__class__} %s"))

    def test_what_is_logged(self) -> None:
        """Malformed messages are logged, others are not."""
        serving = Serving()
        with capturedLogs() as events:
            for message in (call(2, 0), call(2, 99), call(9, 9), call(2, 0, program=7)):
                serving.call_server.serve(message, remote(), lambda reply: None)
            self.assertEqual(len(events), 0)
            for message in (b"", b"junk", call(2, 3), call(2, 0)[:20]):
                serving.call_server.serve(message, remote(), lambda reply: None)
        self.assertEqual(len(events), 4)
