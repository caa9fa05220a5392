"""The epoll_group: everyone has a turn, and nobody's failure is another's."""

import os
import time
from collections.abc import Callable

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.fast.epoll_group import TURN
from tests.support.stepped_reactor import Turns


class Pipe:
    """A pipe that can be read, always.

    :param read: is called when it is served, and says whether it is lost.
    :ivar served: how often it was served.
    :ivar lost: why it was lost.
    """

    def __init__(self, read: Callable[[], Exception | None] = lambda: None) -> None:
        self._ours, self._theirs = os.pipe()
        os.write(self._theirs, b"x")
        self._read = read
        self.served = 0
        self.lost: list[str] = []

    def fileno(self) -> int:
        """Where it is read."""
        return self._ours

    def doRead(self) -> Exception | None:
        """Be served."""
        self.served += 1
        return self._read()

    def readConnectionLost(self, reason: Failure) -> None:
        """Nothing more comes."""
        self.lost.append("read")

    def connectionLost(self, reason: Failure) -> None:
        """It is broken."""
        self.lost.append(str(reason.type.__name__ if reason.type else ""))

    def close(self) -> None:
        """Close both ends."""
        os.close(self._ours)
        os.close(self._theirs)


class Heir:
    """What has nothing to read, by the number of a descriptor that was another's.

    :ivar served: how often it was served all the same.
    """

    def __init__(self, number: int) -> None:
        ours, self._theirs = os.pipe()
        os.dup2(ours, number)
        os.close(ours)
        self._number = number
        self.served = 0

    def fileno(self) -> int:
        """The number."""
        return self._number

    def doRead(self) -> None:
        """Be served."""
        self.served += 1

    def close(self) -> None:
        """Close the other end."""
        os.close(self._theirs)


class HubTests(SynchronousTestCase):
    """Turns."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.epoll_group = self.turns.epoll_group

    def pipe(self, read: Callable[[], Exception | None] = lambda: None) -> Pipe:
        """A pipe in the epoll_group."""
        pipe = Pipe(read)
        self.addCleanup(pipe.close)
        self.epoll_group.addReader(pipe)
        self.addCleanup(self.epoll_group.removeReader, pipe)
        return pipe

    def test_everyone_has_a_turn(self) -> None:
        """However long some take, each of the others is served before those are again."""
        busy = [self.pipe(lambda: time.sleep(2 * TURN)) for _ in range(5)]
        others = [self.pipe() for _ in range(20)]
        for _ in range(3 * len(busy + others)):
            self.turns.turn()
        for pipe in others:
            self.assertGreaterEqual(pipe.served, min(each.served for each in busy) - 1)
            self.assertGreaterEqual(pipe.served, 2)

    def test_turn_ends(self) -> None:
        """A turn ends although there is always something to read."""
        pipe = self.pipe()
        self.assertTrue(self.turns.turn())
        self.assertGreaterEqual(pipe.served, 1)

    def test_removed(self) -> None:
        """Who has left is not served, not even if it was about to be."""
        pipes: list[Pipe] = []

        def leave() -> None:
            for pipe in pipes:
                self.epoll_group.removeReader(pipe)

        pipes += [self.pipe(leave) for _ in range(3)]
        self.turns.turn()
        self.assertEqual(sum(pipe.served for pipe in pipes), 1)

    def test_number_used_again(self) -> None:
        """An event is not given to who has the number of its descriptor by now."""
        pipes: list[Pipe] = []
        heirs: list[Heir] = []

        def replace(other: int) -> None:
            if not heirs:
                number = pipes[other].fileno()
                self.epoll_group.removeReader(pipes[other])
                heirs.append(Heir(number))
                self.addCleanup(heirs[0].close)
                self.epoll_group.addReader(heirs[0])
                self.addCleanup(self.epoll_group.removeReader, heirs[0])

        pipes += [self.pipe(lambda: replace(1)), self.pipe(lambda: replace(0))]
        self.turns.turn()
        self.assertEqual(len(heirs), 1)
        self.assertEqual(heirs[0].served, 0)

    def test_leaves_the_reactor(self) -> None:
        """The epoll_group is in the reactor while somebody is in the epoll_group."""
        for _ in range(2):
            pipe = self.pipe()
            self.assertEqual(self.turns.reactor.getReaders(), [self.epoll_group])
            self.epoll_group.removeReader(pipe)
            self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_lost(self) -> None:
        """Who says that it is lost is told so in its own way."""
        done, lost = self.pipe(lambda: CONNECTION_DONE), self.pipe(lambda: CONNECTION_LOST)
        self.turns.turn()
        self.assertEqual(done.lost[0], "read")
        self.assertEqual(lost.lost[0], "ConnectionLost")

    def test_failures(self) -> None:
        """Who fails is lost, alone, even if it fails at that."""

        def fail() -> Exception | None:
            raise RuntimeError("to be read")

        class Stubborn(Pipe):
            def connectionLost(self, reason: Failure) -> None:
                outer.removeReader(self)
                raise ValueError("to be lost")

        outer = self.epoll_group
        failing, other = self.pipe(fail), self.pipe()
        stubborn = Stubborn(fail)
        self.addCleanup(stubborn.close)
        self.epoll_group.addReader(stubborn)
        self.turns.turn()
        self.assertEqual(failing.lost[0], "RuntimeError")
        self.assertGreaterEqual(other.served, 1)
        self.assertEqual(self.turns.reactor.getReaders(), [self.epoll_group])
        self.assertGreaterEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
