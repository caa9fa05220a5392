"""Operations: whatever the application does with its Deferred, the work ends once and cleanly."""

import os
import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.twisted.operations import Operations
from portmapd.client.twisted.runtime import ReactorRuntime
from portmapd.errors import BadArguments, ClientClosed, NotRegistered, Terminated


class Work:
    """What operations do here: they wait, and note how it ended."""

    def __init__(self) -> None:
        self.waiting: Deferred[str] = Deferred()
        self.seen: list[str] = []

    async def run(self) -> str:
        """Wait."""
        try:
            return await self.waiting
        except CancelledError:
            self.seen.append("stopped")
            raise

    async def refuse(self) -> str:
        """Fail at once."""
        raise NotRegistered("no")


class OperationTestCase(SynchronousTestCase):
    """Operations on a reactor in memory."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.work = Work()
        self.operations = Operations(ReactorRuntime(self.reactor), self.abandon)

    def abandon(self) -> None:
        """The connection is abandoned."""
        self.work.seen.append("abandoned")

    def run_work(self, terminator: Any = None) -> Deferred[str]:
        """Run it as an operation."""
        return self.operations.run(self.work.run(), terminator)


class OutcomeTests(OperationTestCase):
    """How an operation ends."""

    def test_result(self) -> None:
        """It fires with the work's result."""
        result = self.run_work()
        self.assertNoResult(result)
        self.work.waiting.callback("done")
        self.assertEqual(self.successResultOf(result), "done")

    def test_failure(self) -> None:
        """It fails as the work does, at once or later."""
        self.failureResultOf(self.operations.run(self.work.refuse(), None), NotRegistered)
        result = self.run_work()
        self.work.waiting.errback(NotRegistered("no"))
        self.failureResultOf(result, NotRegistered)
        self.assertEqual(self.work.seen, [])

    def test_application_error(self) -> None:
        """What fails in the application's callback stays in its own Deferred."""
        result = self.run_work().addCallback(lambda _: 1 // 0)
        self.work.waiting.callback("done")
        self.failureResultOf(result, ZeroDivisionError)
        self.assertEqual(self.work.seen, [])

    def test_cancel(self) -> None:
        """Cancelling stops the work, then abandons the connection."""
        result = self.run_work()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.work.seen, ["stopped", "abandoned"])

    def test_cancelled_connecting(self) -> None:
        """It fails as every cancelled Deferred, whatever the work fails with."""
        self.work.waiting = Deferred(lambda d: d.errback(ConnectingCancelledError(None)))
        result = self.run_work()
        result.cancel()
        self.failureResultOf(result, CancelledError)

    def test_cancel_when_done(self) -> None:
        """Cancelling what is done does nothing."""
        result = self.run_work()
        self.work.waiting.callback("done")
        result.cancel()
        self.assertEqual(self.successResultOf(result), "done")
        self.assertEqual(self.work.seen, [])

    def test_close(self) -> None:
        """Closing the client ends what is under way, and only that."""
        first, second = self.run_work(), self.operations.run(Work().run(), None)
        later: list[Deferred[str]] = []

        def again(failure: Failure) -> Failure:
            later.append(self.operations.run(Work().run(), None))
            return failure

        first.addErrback(again)
        self.operations.close(lambda: ClientClosed("closed"))
        for one in (first, second):
            self.failureResultOf(one, ClientClosed)
        self.assertNoResult(later[0])
        self.assertEqual(self.work.seen, ["stopped"])

    def test_cancel_in_close(self) -> None:
        """An application that is told of one end may end the other operations itself."""
        first, second = self.run_work(), self.operations.run(Work().run(), None)
        first.addErrback(lambda _: second.cancel())
        self.operations.close(lambda: ClientClosed("closed"))
        self.failureResultOf(second, CancelledError)


class TerminatorTests(OperationTestCase):
    """Terminators of operations."""

    def setUp(self) -> None:
        super().setUp()
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.addCleanup(os.close, self.writing)

    def watched(self) -> Any:
        """What the reactor reads from."""
        (reader,) = self.reactor.getReaders()
        return reader

    def unwatched(self) -> None:
        """Assert that it reads from nothing."""
        self.assertEqual(self.reactor.getReaders(), [])

    def test_readable(self) -> None:
        """When it is readable, the work is stopped and the connection abandoned; then it fails."""
        result = self.run_work(self.reading)

        def told(failure: Failure) -> Failure:
            self.work.seen.append("told")
            return failure

        result.addErrback(told)
        self.watched().doRead()
        self.failureResultOf(result, Terminated)
        self.assertEqual(self.work.seen, ["stopped", "abandoned", "told"])
        self.unwatched()

    def test_end(self) -> None:
        """A terminator that breaks, or a reactor that ends, is one that became readable."""
        result = self.run_work(self.reading)
        self.watched().connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(result, Terminated)
        self.unwatched()

    def test_done(self) -> None:
        """When the work is done, nothing is watched any more, and no descriptor kept."""
        result = self.run_work(self.reading)
        reader = self.watched()
        descriptor = reader.fileno()
        os.fstat(descriptor)
        self.work.waiting.callback("done")
        self.unwatched()
        self.assertRaises(OSError, os.fstat, descriptor)
        reader.doRead()
        self.assertEqual(self.successResultOf(result), "done")

    def test_done_at_once(self) -> None:
        """The same if it is done at once."""
        self.failureResultOf(self.operations.run(self.work.refuse(), self.reading), NotRegistered)
        self.unwatched()

    def test_cancel(self) -> None:
        """The same if it is cancelled."""
        result = self.run_work(self.reading)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.unwatched()

    def test_forms(self) -> None:
        """It is a descriptor, or has one; it may be given to many operations."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        terminators: list[Any] = [ours, ours.fileno(), ours]
        results = [self.operations.run(Work().run(), one) for one in terminators]
        readers = self.reactor.getReaders()
        self.assertEqual(len({reader.fileno() for reader in readers}), 3)
        self.operations.close(lambda: ClientClosed("closed"))
        for result in results:
            self.failureResultOf(result, ClientClosed)
        self.unwatched()
        os.fstat(ours.fileno())

    def test_no_terminator(self) -> None:
        """What is not an open descriptor is refused before anything is done."""
        closed = socket.socket()
        closed.close()
        for terminator in (-1, closed, object(), "7"):
            failure = self.failureResultOf(self.run_work(terminator), BadArguments)
            self.assertIn("terminator", str(failure.value))
        self.unwatched()
        self.assertEqual(self.work.seen, [])
