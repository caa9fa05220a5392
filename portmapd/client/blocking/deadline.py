"""How long an operation may wait, and what ends it early. Internal."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable

from portmapd.client.values import Terminator, descriptor_of
from portmapd.errors import CallTimedOut, ClientClosed, Terminated

#: The longest time that ``select.poll`` takes, in milliseconds.
_LONGEST = (1 << 31) - 1


class CloseEvent:
    """Tells that a client is closed for good, and ends the waits of all threads.

    Its descriptor stays open for as long as any thread may wait for it.

    :param path: the daemon's socket, for messages.
    :raises OSError: the process may open no more descriptors.
    """

    _descriptor = -1

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.eventfd(0)
        self.is_set = False

    def fileno(self) -> int:
        """Return what is readable once the client is closed."""
        return self._descriptor

    def set(self) -> None:
        """The client is closed."""
        self.is_set = True
        os.eventfd_write(self._descriptor, 1)

    def check(self) -> None:
        """Raise :exc:`~portmapd.errors.ClientClosed` if the client is closed."""
        if self.is_set:
            raise ClientClosed(f"the client of {self._path} is closed; make another Portmapper")

    def __del__(self, close: Callable[[int], object] = os.close) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)


class Deadline:
    """Until when an operation may wait.

    :param timeout: how long it may take, in seconds; None: without a limit.
    :param terminator: ends it by becoming readable; None: nothing does.
    :param close_event: ends it, too; None: the client is never closed.
    :param clock: gives the time in seconds.
    :raises ValueError: *timeout* is not positive.
    :raises BadArguments: *terminator* is not an open descriptor.
    """

    def __init__(
        self,
        timeout: float | None,
        terminator: Terminator | None = None,
        close_event: CloseEvent | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_timeout(timeout)
        self._timeout = timeout
        self._terminator = None if terminator is None else descriptor_of(terminator)
        self._close_event = close_event
        self.time = clock
        self._end = math.inf if timeout is None else clock() + timeout

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._end - self.time()

    def within(self, seconds: float) -> Deadline:
        """Return a part of this time, of so many seconds at most."""
        part = max(min(self.left, seconds), 0.001)
        timeout = None if math.isinf(part) else part
        return Deadline(timeout, self._terminator, self._close_event, self.time)

    def wait(self, descriptor: int, events: int) -> None:
        """Wait until *descriptor* is ready.

        :param events: for what, as ``select.poll`` names it.
        :raises CallTimedOut: the time is over.
        :raises Terminated: the terminator became readable.
        :raises ClientClosed: the client was closed.
        """
        if self.left <= 0 or not self._is_ready(self.left, (descriptor, events)):
            raise CallTimedOut(f"there was no answer in {self._length}")

    def pause(self, seconds: float) -> None:
        """Wait for so many seconds; it raises as :meth:`wait` does.

        :param seconds: 0: only raise what there is to raise.
        """
        if self.left <= 0:
            raise CallTimedOut(f"it was not done in {self._length}")
        self._is_ready(min(seconds, self.left))

    @property
    def _length(self) -> str:
        assert self._timeout is not None
        return f"{round(self._timeout, 2):g} s"

    def _is_ready(self, seconds: float, *descriptors: tuple[int, int]) -> bool:
        poll = select.poll()
        if self._close_event is not None:
            self._close_event.check()
            poll.register(self._close_event, select.POLLIN)
        for descriptor, events in descriptors:
            poll.register(descriptor, events)
        if self._terminator is not None:
            poll.register(self._terminator, select.POLLIN)
        milliseconds = math.ceil(min(max(seconds, 0), _LONGEST) * 1000)
        ready = poll.poll(min(milliseconds, _LONGEST))
        if self._close_event is not None:
            self._close_event.check()
        if any(descriptor == self._terminator for descriptor, _ in ready):
            raise Terminated("the terminator became readable; the connection is closed")
        return bool(ready)


def check_timeout(timeout: float | None) -> None:
    """Raise ``ValueError`` unless *timeout* is positive, or None."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout {timeout}: give seconds, more than 0")
