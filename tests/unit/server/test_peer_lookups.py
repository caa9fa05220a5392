"""Connections whose process nobody has looked at."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.peer_lookups import BATCH, PATIENCE, PeerLookups


class UnknownPeer:
    """A connection.

    :ivar looks: how often its process was looked at.
    """

    def __init__(self) -> None:
        self.looks = 0

    def look(self) -> None:
        """Look."""
        self.looks += 1


class Broken(UnknownPeer):
    """A connection of which something is broken."""

    def look(self) -> None:
        """Look, and fail."""
        super().look()
        raise RuntimeError("broken")


class NewcomersTests(SynchronousTestCase):
    """Who is looked at, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.peer_lookups = PeerLookups(self.clock)

    def come(self, count: int = 1) -> list[UnknownPeer]:
        """So many connections are made."""
        made = [UnknownPeer() for _ in range(count)]
        for newcomer in made:
            self.peer_lookups.add(newcomer)
        return made

    def test_after_a_while(self) -> None:
        """Whoever is still there is looked at, once; the next ones later."""
        first = self.come()
        self.clock.advance(PATIENCE * 0.9)
        self.assertEqual(first[0].looks, 0)
        self.clock.advance(PATIENCE * 0.1)
        second = self.come()
        self.assertEqual((first[0].looks, second[0].looks, len(self.peer_lookups)), (1, 0, 1))
        self.clock.advance(PATIENCE)
        self.assertEqual((first[0].looks, second[0].looks, len(self.peer_lookups)), (1, 1, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """Who is gone by then is not; to go twice does nothing."""
        gone, there = self.come(2)
        self.peer_lookups.discard(gone)
        self.peer_lookups.discard(gone)
        self.clock.advance(PATIENCE)
        self.assertEqual((gone.looks, there.looks), (0, 1))

    def test_many(self) -> None:
        """Of very many, a batch is looked at in one turn, so that others have theirs."""
        made = self.come(3 * BATCH + 1)
        seen: list[int] = []
        self.clock.callLater(PATIENCE, lambda: seen.append(sum(each.looks for each in made)))
        self.clock.advance(PATIENCE)
        self.assertEqual(seen, [BATCH])
        self.assertEqual({each.looks for each in made}, {1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """All of them can be made to look now."""
        made = self.come(3 * BATCH + 1)
        self.peer_lookups.clear()
        self.assertEqual({each.looks for each in made}, {1})
        self.assertEqual(len(self.peer_lookups), 0)

    def test_failure(self) -> None:
        """A failure is in the log, and keeps nobody else from being looked at."""
        broken = Broken()
        self.peer_lookups.add(broken)
        (other,) = self.come()
        self.clock.advance(PATIENCE)
        self.assertEqual((broken.looks, other.looks), (1, 1))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_stopped(self) -> None:
        """When the service stops, nobody is looked at, and no call waits."""
        (newcomer,) = self.come()
        self.peer_lookups.stop()
        self.peer_lookups.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(newcomer.looks, 0)
