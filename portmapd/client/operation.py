"""One operation of an application: a Deferred that its own code cannot harm."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from portmapd.client.terminator import Terminator, Watch
from portmapd.errors import Terminated

T = TypeVar("T")


def operate(
    reactor: Any,
    work: Coroutine[Deferred[Any], Any, T],
    abandon: Callable[[], object],
    terminator: Terminator | None,
) -> "Deferred[T]":
    """Run *work*; the application gets a Deferred of its own.

    If it is cancelled, or *terminator* becomes readable, *abandon* is called and the work ends.

    :return: fires with the work's result, or fails with :exc:`~portmapd.errors.Terminated`, or
        as the work does.
    """
    working = Deferred.fromCoroutine(work)

    def stop() -> None:
        abandon()
        working.cancel()

    result: Deferred[T] = Deferred(lambda _: stop())
    watch: Watch | None = None

    def fired() -> None:
        if not result.called:
            result.errback(Terminated("the terminator became readable; the connection is closed"))
            stop()

    def done(outcome: T | Failure) -> None:
        if watch is not None:
            watch.stop()
        if not result.called:
            (result.errback if isinstance(outcome, Failure) else result.callback)(outcome)  # type: ignore[arg-type]

    if terminator is not None and not working.called:
        watch = Watch(reactor, terminator, fired)
    working.addBoth(done)
    return result
