"""How long to wait before something is tried again."""

from __future__ import annotations

import random
from collections.abc import Iterator

#: The first wait, in seconds; each further one is twice as long, up to the longest.
FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
#: How far waits are spread around their length: a thousand machines must not come at once.
JITTER = 0.5


class Waits:
    """The waits between attempts, until one succeeds."""

    def __init__(self) -> None:
        self._waits = _waits()

    def next(self) -> float:
        """The seconds to wait before the next attempt."""
        return next(self._waits)

    def succeeded(self) -> None:
        """The next wait is the first one again."""
        self._waits = _waits()


def spread(seconds: float) -> float:
    """About so many seconds, each time others."""
    return seconds * (1 + JITTER * (random.random() - 0.5))


def _waits() -> Iterator[float]:
    wait = FIRST_WAIT
    while True:
        yield spread(wait)
        wait = min(2 * wait, LONGEST_WAIT)
