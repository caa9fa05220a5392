"""The epoll group: everyone has a turn, and a failure of one is not that of others."""

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IListeningPort,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
    IReadWriteDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer
from zope.interface.verify import verifyObject

from portmapd.server.fast import epoll_group
from portmapd.server.fast.epoll_group import BATCH, LONG
from portmapd.server.turns import TURN
from tests.support.stepped_reactor import Turns


@implementer(IReadWriteDescriptor, IHalfCloseableDescriptor)
class Pipe:
    """A pipe that is always readable, and never written.

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

    def doRead(self) -> Any:
        """Be served."""
        self.served += 1
        return self._read()

    def doWrite(self) -> None:
        """Nothing is written."""

    def writeConnectionLost(self, reason: Failure) -> None:
        """Nothing is written."""

    def logPrefix(self) -> str:
        """Its name in the log."""
        return "a pipe"

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


@implementer(IReadDescriptor)
class Heir:
    """A descriptor with nothing to read, whose number was another's before.

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

    def connectionLost(self, reason: Failure) -> None:
        """It is broken."""

    def logPrefix(self) -> str:
        """Its name in the log."""
        return "an heir"

    def close(self) -> None:
        """Close the other end."""
        os.close(self._theirs)


class EpollGroupTests(SynchronousTestCase):
    """Turns, and what a reactor offers."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.epoll_group = self.turns.epoll_group
        # A busy machine may take longer than that over nothing.
        self.patch(epoll_group, "LONG", 60.0)

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

    def test_listening_socket_stays(self) -> None:
        """A listening socket that fails, for want of memory say, goes on listening."""

        def fail() -> Exception | None:
            raise MemoryError

        pipe = self.pipe(fail)
        alsoProvides(pipe, IListeningPort)
        self.turns.turn()
        self.assertEqual(pipe.lost, [])
        served = pipe.served
        self.turns.turn()
        self.assertGreater(pipe.served, served)
        self.assertGreaterEqual(len(self.flushLoggedErrors(MemoryError)), 2)

    def test_serve_all(self) -> None:
        """What has arrived can be served without a turn of the reactor; it tells whether it was."""
        self.assertFalse(self.epoll_group.serve_all())
        pipe = self.pipe()
        self.assertTrue(self.epoll_group.serve_all())
        self.assertGreaterEqual(pipe.served, 1)

    def test_turn_ends(self) -> None:
        """A turn ends although there is always something to read."""
        pipe = self.pipe()
        self.assertTrue(self.turns.turn())
        self.assertGreaterEqual(pipe.served, 1)

    def test_removed(self) -> None:
        """A descriptor that was removed is not served, not even if it had an event."""
        pipes: list[Pipe] = []

        def leave() -> None:
            for pipe in pipes:
                self.epoll_group.removeReader(pipe)

        pipes += [self.pipe(leave) for _ in range(3)]
        self.turns.turn()
        self.assertEqual(sum(pipe.served for pipe in pipes), 1)

    def test_number_used_again(self) -> None:
        """A descriptor does not get the event of one that had its number before."""
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

    def test_interfaces(self) -> None:
        """It is a reactor to its descriptors, and a descriptor to its reactor."""
        for interface in (IReactorFDSet, IReactorTime, IReadDescriptor):
            self.assertTrue(verifyObject(interface, self.epoll_group))

    def test_descriptors(self) -> None:
        """It tells which descriptors it has, and gives all of them back."""
        reading, both = self.pipe(), self.pipe()
        self.epoll_group.addWriter(both)
        self.assertEqual(self.epoll_group.getReaders(), [reading, both])
        self.assertEqual(self.epoll_group.getWriters(), [both])
        self.epoll_group.removeReader(both)
        self.assertEqual(self.epoll_group.getReaders(), [reading])
        self.epoll_group.removeWriter(both)
        self.assertEqual(self.epoll_group.getWriters(), [])
        self.epoll_group.addWriter(both)
        self.assertEqual(self.epoll_group.removeAll(), [reading, both])
        self.assertEqual(self.epoll_group.getReaders() + self.epoll_group.getWriters(), [])
        self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_time(self) -> None:
        """Its time is the reactor's."""
        called: list[str] = []
        call = self.epoll_group.callLater(2, called.append, "called")
        self.assertEqual(list(self.epoll_group.getDelayedCalls()), [call])
        self.turns.reactor.advance(2)
        self.assertEqual((self.epoll_group.seconds(), called), (2, ["called"]))

    def test_leaves_the_reactor(self) -> None:
        """The group is in the reactor while it has descriptors."""
        for _ in range(2):
            pipe = self.pipe()
            self.assertEqual(self.turns.reactor.getReaders(), [self.epoll_group])
            self.epoll_group.removeReader(pipe)
            self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_lost(self) -> None:
        """A descriptor that says it is lost is told so, in the way that fits."""
        done, lost = self.pipe(lambda: CONNECTION_DONE), self.pipe(lambda: CONNECTION_LOST)
        self.turns.turn()
        self.assertEqual(done.lost[0], "read")
        self.assertEqual(lost.lost[0], "ConnectionLost")

    def test_large_requests(self) -> None:
        """A batch ends with a request that takes long; the others of it come first in the next."""
        self.patch(epoll_group, "LONG", LONG)
        pipes = [self.pipe(lambda: time.sleep(LONG * 1.1)) for _ in range(BATCH + 1)]
        for _ in range(2):
            for number in range(1, len(pipes) + 1):
                self.epoll_group.doRead()
                self.assertEqual(sum(pipe.served for pipe in pipes), number)
            self.assertEqual([pipe.served for pipe in pipes], [1] * len(pipes))
            for pipe in pipes:
                pipe.served = 0

    def test_left(self) -> None:
        """What is no longer waited for is not served in the next turn either."""
        self.patch(epoll_group, "LONG", LONG)
        pipes = [self.pipe(lambda: time.sleep(LONG * 1.1)) for _ in range(3)]
        self.epoll_group.doRead()
        for pipe in pipes[1:]:
            self.epoll_group.removeReader(pipe)
        self.epoll_group.doRead()
        self.assertEqual([pipe.served for pipe in pipes], [2, 0, 0])

    def test_failures(self) -> None:
        """A descriptor that fails is lost, alone, even if it fails at that."""

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
