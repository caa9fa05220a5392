"""Connections whose process nobody has looked at."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.local.newcomers import BATCH, PATIENCE, Newcomers


class Newcomer:
    """A connection.

    :ivar entered: how often its process was looked at.
    """

    def __init__(self) -> None:
        self.entered = 0

    def enter(self) -> None:
        """Look."""
        self.entered += 1


class NewcomersTests(SynchronousTestCase):
    """Who is looked at, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.newcomers = Newcomers(self.clock)

    def come(self, count: int = 1) -> list[Newcomer]:
        """So many connections are made."""
        made = [Newcomer() for _ in range(count)]
        for newcomer in made:
            self.newcomers.add(newcomer)
        return made

    def test_after_a_while(self) -> None:
        """Whoever is still there is looked at, once; the next ones later."""
        first = self.come()
        self.clock.advance(PATIENCE * 0.9)
        self.assertEqual(first[0].entered, 0)
        self.clock.advance(PATIENCE * 0.1)
        second = self.come()
        self.assertEqual((first[0].entered, second[0].entered, len(self.newcomers)), (1, 0, 1))
        self.clock.advance(PATIENCE)
        self.assertEqual((first[0].entered, second[0].entered, len(self.newcomers)), (1, 1, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """Who is gone by then is not; to go twice does nothing."""
        gone, there = self.come(2)
        self.newcomers.discard(gone)
        self.newcomers.discard(gone)
        self.clock.advance(PATIENCE)
        self.assertEqual((gone.entered, there.entered), (0, 1))

    def test_many(self) -> None:
        """Of very many, a batch is looked at in one turn, so that others have theirs."""
        made = self.come(3 * BATCH + 1)
        seen: list[int] = []
        self.clock.callLater(PATIENCE, lambda: seen.append(sum(each.entered for each in made)))
        self.clock.advance(PATIENCE)
        self.assertEqual(seen, [BATCH])
        self.assertEqual({each.entered for each in made}, {1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """All of them can be made to look now."""
        made = self.come(3 * BATCH + 1)
        self.newcomers.clear()
        self.assertEqual({each.entered for each in made}, {1})
        self.assertEqual(len(self.newcomers), 0)

    def test_stopped(self) -> None:
        """When the service stops, nobody is looked at, and no call waits."""
        (newcomer,) = self.come()
        self.newcomers.stop()
        self.newcomers.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(newcomer.entered, 0)
