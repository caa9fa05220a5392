"""How long to wait before something is tried again."""

from __future__ import annotations

from collections.abc import Iterator

#: How far waits are spread around their length: a thousand that wait must not come at once.
JITTER = 0.5


def spread(seconds: float) -> float:
    """About so many seconds, each time others."""
    # Most programs with a client never wait.
    import random

    return seconds * (1 + JITTER * (random.random() - 0.5))


def waits(first: float, longest: float) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt.

    :param first: the first wait; each further one is twice as long.
    :param longest: no wait is longer.
    """
    wait = first
    while True:
        yield spread(wait)
        wait = min(2 * wait, longest)
