"""Lookups of the processes of new connections."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.peer_lookups import BATCH, DELAY, MAX_WAITING, PeerLookups


class UnknownPeer:
    """A connection.

    :ivar lookups: how often its process was looked up.
    """

    def __init__(self) -> None:
        self.lookups = 0

    def look_up(self) -> None:
        """Look up the process."""
        self.lookups += 1


class Broken(UnknownPeer):
    """A connection whose lookup fails."""

    def look_up(self) -> None:
        """Look up the process, and fail."""
        super().look_up()
        raise RuntimeError("broken")


class PeerLookupsTests(SynchronousTestCase):
    """Which processes are looked up, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.peer_lookups = PeerLookups(self.clock)

    def connect(self, count: int = 1) -> list[UnknownPeer]:
        """Make so many connections."""
        made = [UnknownPeer() for _ in range(count)]
        for peer in made:
            self.peer_lookups.add(peer)
        return made

    def test_after_a_while(self) -> None:
        """A connection that is still open is looked up, once; later ones later."""
        first = self.connect()
        self.clock.advance(DELAY * 0.9)
        self.assertEqual(first[0].lookups, 0)
        self.clock.advance(DELAY * 0.1)
        second = self.connect()
        self.assertEqual((first[0].lookups, second[0].lookups, len(self.peer_lookups)), (1, 0, 1))
        self.clock.advance(DELAY)
        self.assertEqual((first[0].lookups, second[0].lookups, len(self.peer_lookups)), (1, 1, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many(self) -> None:
        """If very many wait, the oldest are looked up at once, so that few are left."""
        peers = self.connect(MAX_WAITING)
        self.assertEqual(sum(peer.lookups for peer in peers), 0)
        peers += self.connect(5_000)
        self.assertEqual({peer.lookups for peer in peers[:5_000]}, {1})
        self.assertEqual(len(self.peer_lookups), MAX_WAITING)

    def test_gone(self) -> None:
        """One that is gone by then is not; discarding it twice does nothing."""
        gone, there = self.connect(2)
        self.peer_lookups.discard(gone)
        self.peer_lookups.discard(gone)
        self.clock.advance(DELAY)
        self.assertEqual((gone.lookups, there.lookups), (0, 1))

    def test_many(self) -> None:
        """Of very many, a batch is looked up in one turn, so that others have theirs."""
        made = self.connect(3 * BATCH + 1)
        seen: list[int] = []
        self.clock.callLater(DELAY, lambda: seen.append(sum(each.lookups for each in made)))
        self.clock.advance(DELAY)
        self.assertEqual(seen, [BATCH])
        self.assertEqual({each.lookups for each in made}, {1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """All of them can be looked up now."""
        made = self.connect(3 * BATCH + 1)
        self.peer_lookups.clear()
        self.assertEqual({each.lookups for each in made}, {1})
        self.assertEqual(len(self.peer_lookups), 0)

    def test_failure(self) -> None:
        """A failure is logged, and the others are looked up all the same."""
        broken = Broken()
        self.peer_lookups.add(broken)
        (other,) = self.connect()
        self.clock.advance(DELAY)
        self.assertEqual((broken.lookups, other.lookups), (1, 1))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_stopped(self) -> None:
        """After a stop, nothing is looked up, and no call waits."""
        (peer,) = self.connect()
        self.peer_lookups.stop()
        self.peer_lookups.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(peer.lookups, 0)
