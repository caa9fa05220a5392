"""How long a blocking operation waits, and what ends it early; no Twisted."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from portmapd.errors import BadArguments, CallTimedOut, ClientClosed, Terminated

#: ``select.poll`` takes no longer times, in milliseconds.
_LONGEST = (1 << 31) - 1
#: The wait before the first attempt to connect again, in seconds; it doubles up to the longest.
FIRST_WAIT = 0.05
LONGEST_WAIT = 2.0
#: How far a wait is spread around its length, so that not all clients come at once.
JITTER = 0.5


class HasFileno(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


#: What may be given as a terminator.
Terminator = int | HasFileno


class Closing:
    """Whether a client is closed for good; closing it ends every wait, of any thread.

    The descriptor stays open for as long as any thread may wait for it.

    :param path: the daemon's socket, which the error names.
    :raises OSError: the process may open no more descriptors.
    """

    _descriptor = -1

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = os.eventfd(0)
        self.is_closed = False

    def fileno(self) -> int:
        """What is readable once the client is closed."""
        return self._descriptor

    def close(self) -> None:
        """Close it."""
        self.is_closed = True
        os.eventfd_write(self._descriptor, 1)

    def check(self) -> None:
        """Raise :exc:`~portmapd.errors.ClientClosed` if it is closed."""
        if self.is_closed:
            raise ClientClosed(f"the client of {self._path} is closed; make another Portmapper")

    def __del__(self, close: Callable[[int], object] = os.close) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)


class Patience:
    """One operation's time.

    :param timeout: how long it may take, in seconds; None: as long as it takes.
    :param terminator: a descriptor, or what has one, that ends it by becoming readable; None:
        nothing does.
    :param closing: whether the client is closed, which ends it, too; None: it is never closed.
    :param clock: gives the time in seconds.
    :raises ValueError: *timeout* is not positive.
    :raises BadArguments: *terminator* is no open descriptor.
    """

    def __init__(
        self,
        timeout: float | None,
        terminator: Terminator | None = None,
        closing: Closing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout {timeout}: give seconds, more than 0")
        self._timeout = timeout
        self._terminator = None if terminator is None else descriptor_of(terminator)
        self._closing = closing
        self._clock = clock
        self._end = math.inf if timeout is None else clock() + timeout

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._end - self._clock()

    def within(self, seconds: float) -> Patience:
        """A part of this time, of at most so many seconds."""
        part = max(min(self.left, seconds), 0.001)
        return Patience(part, self._terminator, self._closing, self._clock)

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
        """Wait for so many seconds; raises as :meth:`wait` does.

        :param seconds: 0: just raise what there is to raise.
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
        if self._closing is not None:
            self._closing.check()
            poll.register(self._closing, select.POLLIN)
        for descriptor, events in descriptors:
            poll.register(descriptor, events)
        if self._terminator is not None:
            poll.register(self._terminator, select.POLLIN)
        milliseconds = math.ceil(min(max(seconds, 0), _LONGEST) * 1000)
        ready = poll.poll(min(milliseconds, _LONGEST))
        if self._closing is not None:
            self._closing.check()
        if any(descriptor == self._terminator for descriptor, _ in ready):
            raise Terminated("the terminator became readable; the connection is closed")
        return bool(ready)


def waits() -> Iterator[float]:
    """How long to wait before each attempt to connect again, in seconds."""
    # It takes as long to import as half of the client.
    import random

    wait = FIRST_WAIT
    while True:
        yield wait * (1 + JITTER * (random.random() - 0.5))
        wait = min(2 * wait, LONGEST_WAIT)


def descriptor_of(terminator: Terminator) -> int:
    """The descriptor that *terminator* is or has.

    :raises BadArguments: it is no open descriptor.
    """
    try:
        number = terminator if isinstance(terminator, int) else terminator.fileno()
        os.fstat(number)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadArguments(
            f"terminator {terminator!r} is no open descriptor, and has none: {error}"
        ) from error
    return number
