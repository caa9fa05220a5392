"""Operations of an application: Deferreds that its own code cannot harm."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from portmapd.client.patience import Terminator
from portmapd.client.terminator import Watch
from portmapd.errors import PortmapdError, Terminated

T = TypeVar("T")


class Operation(Generic[T]):
    """One operation under way; its application has a Deferred of its own.

    :param work: what it does.
    :param ended: is called with it once it has ended, in whichever way.
    :param abandon: is called if it was cancelled or terminated, once the work has stopped.
    :ivar result: fires, or fails, as the work does; or tells how the operation was stopped.
    """

    def __init__(
        self,
        work: Coroutine[Deferred[Any], Any, T],
        ended: Callable[[Operation[Any]], object],
        abandon: Callable[[], object],
    ) -> None:
        self.result: Deferred[T] = Deferred(self._cancelled)
        self._work = work
        self._ended = ended
        self._abandon = abandon
        self._is_over = False
        self._watch: Watch | None = None
        self._working: Deferred[T] | None = None

    def begin(self, watch: Watch | None) -> None:
        """Begin the work.

        :param watch: watches the terminator; it is stopped when the operation ends.
        """
        self._watch = watch
        self._working = Deferred.fromCoroutine(self._work)
        self._working.addBoth(self._done)

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
        if self._watch is not None:
            self._watch.stop()
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
        """End it, for the reason *why*."""
        self._stop()
        self.result.errback(why)

    def _stop(self) -> None:
        self._end()
        if self._working is not None:
            self._working.cancel()


class Operations:
    """The operations of one client that are under way.

    :param abandon: is called when one was cancelled or terminated.
    """

    def __init__(self, reactor: Any, abandon: Callable[[], object]) -> None:
        self._reactor = reactor
        self._abandon = abandon
        self._under_way: dict[Operation[Any], None] = {}

    def run(
        self, work: Coroutine[Deferred[Any], Any, T], terminator: Terminator | None
    ) -> Deferred[T]:
        """Run *work* until it is done, the Deferred is cancelled, or *terminator* is readable.

        :return: fires with the work's result, or fails as it does; fails with
            :exc:`~portmapd.errors.Terminated` if the terminator became readable, with
            :exc:`~portmapd.errors.BadArguments` if it is none.
        """
        operation = Operation(work, self._ended, self._abandon)
        try:
            watch = self._watch(terminator, operation)
        except Exception:
            work.close()
            return fail()
        self._under_way[operation] = None
        operation.begin(watch)
        return operation.result

    def _watch(self, terminator: Terminator | None, operation: Operation[Any]) -> Watch | None:
        return None if terminator is None else Watch(self._reactor, terminator, operation.terminate)

    def _ended(self, operation: Operation[Any]) -> None:
        del self._under_way[operation]

    def close(self, why: Callable[[], PortmapdError]) -> None:
        """End every operation that is under way now.

        :param why: makes what each one fails with.
        """
        for operation in tuple(self._under_way):
            if operation in self._under_way:
                operation.fail(why())
