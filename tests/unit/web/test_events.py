"""Server-sent events."""

import json
from collections.abc import Iterator
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.web.events import (
    BATCH,
    MAX_LISTENERS,
    MAX_MISSED,
    MAX_PENDING,
    STALLED,
    Events,
    event,
)
from portmapd.web.query import Query, RequestRefused


class Peer:
    """Where events go. It stops reading after so many."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.is_dropped = False
        self.listener: Any = None
        self.reads = 1_000_000

    def write(self, data: bytes) -> None:
        for text in data.decode().split("\n\n")[:-1]:
            name, value = text.split("\n")
            self.events.append((name.removeprefix("event: "), json.loads(value[len("data: ") :])))
        self.reads -= 1
        if not self.reads:
            self.listener.pauseProducing()

    def drop(self) -> None:
        self.is_dropped = True


class EventsTests(SynchronousTestCase):
    """Listeners."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events = Events(self.snapshot, self.clock)

    def snapshot(self, is_local: bool) -> Iterator[bytes]:
        """Three pieces."""
        for number in range(3):
            yield event("rows", [[number, is_local]])

    def listen(self, is_local: bool = True) -> Peer:
        """A peer that listens."""
        peer = Peer()
        answer = self.events.answer(Query(is_local=is_local))
        assert answer.listen is not None
        peer.listener = answer.listen(peer)
        return peer

    def test_snapshot(self) -> None:
        """A new listener is told everything, later, in pieces."""
        peer = self.listen()
        self.assertEqual(peer.events, [])
        self.clock.advance(0)
        self.assertEqual(peer.events, [("rows", [[number, True]]) for number in range(3)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_changes(self) -> None:
        """Changes of a moment are one event; others are told those that are for them."""
        local, other = self.listen(), self.listen(is_local=False)
        self.clock.pump([0] * 4)
        self.events.changed([(["service", "s1"], True), (["service", "s2"], False)])
        self.events.changed([(["gone", "s1"], True)])
        self.clock.advance(BATCH)
        self.assertEqual(
            local.events[3:], [("rows", [["service", "s1"], ["service", "s2"], ["gone", "s1"]])]
        )
        self.assertEqual(other.events[3:], [("rows", [["service", "s1"], ["gone", "s1"]])])
        self.events.changed([(["service", "s3"], False)])
        self.clock.advance(BATCH)
        self.assertEqual(len(other.events), 4)

    def test_nobody(self) -> None:
        """While nobody listens, nothing is kept."""
        self.events.changed([(["gone", "s1"], True)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_change(self) -> None:
        """Of changes that no page shows, there is no event."""
        self.listen()
        self.clock.pump([0] * 4)
        self.events.changed([])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow_reader(self) -> None:
        """What a peer does not read waits, in order; its snapshot goes on when it reads again."""
        peer = self.listen()
        peer.reads = 1
        self.clock.pump([0] * 4)
        self.events.tell(event("sample", 1))
        self.events.tell(event("sample", 2))
        self.assertEqual(len(peer.events), 1)
        peer.reads = 1
        peer.listener.resumeProducing()
        self.assertEqual(peer.events[1:], [("sample", 1)])
        peer.reads = 1_000
        peer.listener.resumeProducing()
        self.clock.pump([0] * 4)
        self.assertEqual([name for name, _ in peer.events[2:]], ["sample", "rows", "rows"])

    def test_no_reader(self) -> None:
        """A peer that reads nothing is dropped: by how much waits, or for how long."""
        by_count, by_time = self.listen(), self.listen()
        for peer in (by_count, by_time):
            peer.listener.pauseProducing()
        for _ in range(MAX_MISSED):
            self.events.tell(event("sample", 1))
        self.assertFalse(by_count.is_dropped)
        by_time.listener.resumeProducing()
        by_time.listener.pauseProducing()
        self.events.tell(event("sample", 1))
        self.assertTrue(by_count.is_dropped)
        self.clock.advance(STALLED + 1)
        self.events.tell(event("sample", 1))
        self.assertTrue(by_time.is_dropped)
        self.assertEqual(len(self.events), 0)

    def test_too_many_changes(self) -> None:
        """With too many changes at once, everybody begins anew."""
        peer = self.listen()
        self.events.changed([(["gone", "s1"], True)] * (MAX_PENDING + 1))
        self.clock.advance(BATCH)
        self.assertTrue(peer.is_dropped)

    def test_too_many_listeners(self) -> None:
        """There is a limit to them, and room again when one ends."""
        peers = [self.listen() for _ in range(MAX_LISTENERS)]
        with self.assertRaisesRegex(RequestRefused, "too many listen") as caught:
            self.events.answer(Query())
        self.assertEqual(caught.exception.status, 503)
        peers[0].listener.stopProducing()
        self.events.answer(Query())

    def test_close(self) -> None:
        """At the end everybody is dropped, and nothing is left on the reactor."""
        peers = [self.listen(), self.listen()]
        self.events.changed([(["gone", "s1"], True)])
        self.events.close()
        self.assertTrue(all(peer.is_dropped for peer in peers))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_line(self) -> None:
        """Whatever a value has, it is one line of the event."""
        self.assertEqual(event("rows", ["a\nb\r\u2028é"]).count(b"\n"), 3)
