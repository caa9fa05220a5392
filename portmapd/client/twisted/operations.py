"""The operations of a client that are under way."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from portmapd.client.twisted.readable import Readable
from portmapd.client.twisted.runtime import ReactorRuntime
from portmapd.client.values import Terminator
from portmapd.errors import BadArguments, PortmapdError, Terminated

T = TypeVar("T")


class Operation(Generic[T]):
    """One operation under way: a Deferred that the application's callbacks cannot harm.

    :param ended: is called with it once it has ended, in whichever way.
    :param abandon: is called if it was cancelled or terminated, once its work has stopped.
    :ivar result: has the result of the work, or tells how the operation was stopped.
    """

    def __init__(
        self, ended: Callable[[Operation[Any]], object], abandon: Callable[[], object]
    ) -> None:
        self.result: Deferred[T] = Deferred(lambda _: self._give_up())
        self._ended = ended
        self._abandon = abandon
        self._is_over = False
        self._terminator: Readable | None = None
        self._work: Deferred[T] | None = None

    def begin(self, work: Coroutine[Deferred[Any], Any, T], terminator: Readable | None) -> None:
        """Begin the work.

        :param terminator: is cancelled when the operation ends.
        """
        self._terminator = terminator
        self._work = Deferred.fromCoroutine(work)
        self._work.addBoth(self._done)

    def _done(self, outcome: T | Failure) -> None:
        if not self._is_over:
            self._end()
            # A failure makes it fail.
            self.result.callback(outcome)

    def _end(self) -> None:
        self._is_over = True
        if self._terminator is not None:
            self._terminator.cancel()
        self._ended(self)

    def _stop(self) -> None:
        self._end()
        if self._work is not None:
            self._work.cancel()

    def _give_up(self) -> None:
        self._stop()
        self._abandon()

    def terminate(self) -> None:
        """The terminator became readable."""
        self._give_up()
        self.result.errback(Terminated("the terminator became readable: the connection is closed"))

    def fail(self, why: PortmapdError) -> None:
        """End it for the reason *why*."""
        self._stop()
        self.result.errback(why)


class Operations:
    """The operations of one client that are under way.

    :param abandon: is called when one was cancelled or terminated.
    """

    def __init__(self, runtime: ReactorRuntime, abandon: Callable[[], object]) -> None:
        self._runtime = runtime
        self._abandon = abandon
        self._under_way: dict[Operation[Any], None] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def run(
        self, work: Coroutine[Deferred[Any], Any, T], terminator: Terminator | None
    ) -> Deferred[T]:
        """Run *work* until it is done, the Deferred is cancelled, or *terminator* is readable.

        :return: has the work's result, or fails as it does; fails with
            :exc:`~portmapd.errors.Terminated` if the terminator became readable, and with
            :exc:`~portmapd.errors.BadArguments` if it is none.
        """
        operation: Operation[T] = Operation(self._under_way.pop, self._abandon)
        readable: Readable | None = None
        if terminator is not None:
            try:
                readable = self._runtime.when_readable(terminator, operation.terminate)
            except BadArguments:
                work.close()
                return defer.fail()
        self._under_way[operation] = None
        operation.begin(work, readable)
        return operation.result

    def close(self, why: Callable[[], PortmapdError]) -> None:
        """End every operation that is under way now.

        :param why: makes what each one fails with.
        """
        for operation in tuple(self._under_way):
            if operation in self._under_way:
                operation.fail(why())
