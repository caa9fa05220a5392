"""Turns of streams that have much to do."""

import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.turns import TURN, TurnQueue
from tests.support.stepped_reactor import Turns


class Stream:
    """A stream with work for some turns.

    :param queue: where it waits for them.
    :param turns: how many it needs.
    :param work: what it does in each.
    :ivar taken: how many turns it had.
    :ivar ended: was it closed?
    """

    def __init__(self, queue: TurnQueue, turns: int, work: Callable[[], object]) -> None:
        self._queue = queue
        self._turns = turns
        self._work = work
        self.taken = 0
        self.ended = False
        queue.add(self)

    def take_turn(self) -> None:
        """Work."""
        self.taken += 1
        self._work()
        if self.taken < self._turns:
            self._queue.add(self)

    def end(self) -> None:
        """Be closed."""
        self.ended = True


def whole_turn() -> None:
    """Work for a whole turn."""
    time.sleep(TURN)


def nothing() -> None:
    """Do no work."""


class TurnQueueTests(SynchronousTestCase):
    """The queue, on a reactor that runs when the test says so."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.queue = TurnQueue(self.turns.reactor)

    def add(self, turns: int, work: Callable[[], object] = whole_turn) -> Stream:
        """A stream that waits."""
        return Stream(self.queue, turns, work)

    def test_one_at_a_time(self) -> None:
        """Streams that take a whole turn each have one in a turn of the reactor, in their order."""
        streams = [self.add(2) for _ in range(3)]
        taken = []
        for _ in range(6):
            self.turns.turn()
            taken.append([stream.taken for stream in streams])
        expected = [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2]]
        self.assertEqual(taken, expected)

    def test_many(self) -> None:
        """Streams that have little left to do share a turn of the reactor."""
        streams = [self.add(1, nothing) for _ in range(5)]
        self.turns.turn()
        self.assertGreaterEqual(sum(stream.taken for stream in streams), 2)
        self.turns.run()
        self.assertEqual([stream.taken for stream in streams], [1] * 5)

    def test_late(self) -> None:
        """A stream that comes later does not overtake those that wait."""
        first = [self.add(1) for _ in range(2)]
        self.turns.turn()
        late = self.add(1)
        self.turns.turn()
        self.assertEqual([stream.taken for stream in (*first, late)], [1, 1, 0])

    def test_discarded(self) -> None:
        """A stream that is gone gets no turn, and the reactor is left alone without any."""
        stream = self.add(1)
        self.queue.discard(stream)
        self.queue.discard(stream)
        self.assertEqual(self.turns.reactor.getDelayedCalls(), [])
        self.turns.run()
        self.assertEqual(stream.taken, 0)

    def test_discarded_in_a_turn(self) -> None:
        """So it is when another one's turn ends it."""
        streams: list[Stream] = []
        streams += [self.add(1, lambda: self.queue.discard(streams[1])), self.add(1)]
        self.turns.run()
        self.assertEqual([stream.taken for stream in streams], [1, 0])
        self.assertEqual(self.turns.reactor.getDelayedCalls(), [])

    def test_failure(self) -> None:
        """A stream that fails is closed, and the others have their turns."""

        def fail() -> None:
            raise RuntimeError("broken")

        failing, other = self.add(1, fail), self.add(1)
        self.turns.run()
        self.assertEqual((failing.ended, other.ended, other.taken), (True, False, 1))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.turns.reactor.getDelayedCalls(), [])
