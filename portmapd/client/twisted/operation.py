"""Operations of an application: Deferreds that its own callbacks cannot harm. Internal."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from portmapd.client.core.runtime import Cancellable
from portmapd.client.twisted.runtime import ReactorRuntime
from portmapd.client.values import Terminator
from portmapd.errors import PortmapdError, Terminated

T = TypeVar("T")


class Operation(Generic[T]):
    """One operation under way.

    :param ended: is called with it once it has ended, in whichever way.
    :param abandon: is called if it was cancelled or terminated, once its work has stopped.
    :ivar result: has the result of the work, or tells how the operation was stopped.
    """

    def __init__(
        self, ended: Callable[[Operation[Any]], object], abandon: Callable[[], object]
    ) -> None:
        self.result: Deferred[T] = Deferred(self._cancelled)
        self._ended = ended
        self._abandon = abandon
        self._is_over = False
        self._terminator: Cancellable | None = None
        self._work: Deferred[T] | None = None

    def begin(self, work: Coroutine[Deferred[Any], Any, T], terminator: Cancellable | None) -> None:
        """Begin the work.

        :param terminator: is cancelled when the operation ends.
        """
        self._terminator = terminator
        self._work = Deferred.fromCoroutine(work)
        self._work.addBoth(self._done)

    def _done(self, outcome: T | Failure) -> None:
        if self._is_over:
            return
        self._end()
        if isinstance(outcome, Failure):
            self.result.errback(outcome)
        else:
            self.result.callback(outcome)

    def _end(self) -> None:
        self._is_over = True
        if self._terminator is not None:
            self._terminator.cancel()
        self._ended(self)

    def _cancelled(self, result: Deferred[T]) -> None:
        self._stop()
        self._abandon()

    def terminate(self) -> None:
        """The terminator became readable."""
        self._stop()
        self._abandon()
        self.result.errback(
            Terminated("the terminator became readable: the connection to the daemon is closed")
        )

    def fail(self, why: PortmapdError) -> None:
        """End it for the reason *why*."""
        self._stop()
        self.result.errback(why)

    def _stop(self) -> None:
        self._end()
        if self._work is not None:
            self._work.cancel()


class Operations:
    """The operations of one client that are under way.

    :param abandon: is called when one was cancelled or terminated.
    """

    def __init__(self, runtime: ReactorRuntime, abandon: Callable[[], object]) -> None:
        self._runtime = runtime
        self._abandon = abandon
        self._under_way: dict[Operation[Any], None] = {}

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._under_way)

    def run(
        self, work: Coroutine[Deferred[Any], Any, T], terminator: Terminator | None
    ) -> Deferred[T]:
        """Run *work* until it is done, the Deferred is cancelled, or *terminator* is readable.

        :return: has the work's result, or fails as it does; fails with
            :exc:`~portmapd.errors.Terminated` if the terminator became readable, and with
            :exc:`~portmapd.errors.BadArguments` if it is none.
        """
        operation: Operation[T] = Operation(self._ended, self._abandon)
        try:
            readable = self._watch(terminator, operation)
        except Exception:
            work.close()
            return fail()
        self._under_way[operation] = None
        operation.begin(work, readable)
        return operation.result

    def _watch(
        self, terminator: Terminator | None, operation: Operation[Any]
    ) -> Cancellable | None:
        if terminator is None:
            return None
        return self._runtime.when_readable(terminator, operation.terminate)

    def _ended(self, operation: Operation[Any]) -> None:
        del self._under_way[operation]

    def close(self, why: Callable[[], PortmapdError]) -> None:
        """End every operation that is under way now.

        :param why: makes what each one fails with.
        """
        for operation in tuple(self._under_way):
            if operation in self._under_way:
                operation.fail(why())
