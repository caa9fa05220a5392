"""Quota of the streams of one socket, so that nobody has all of them."""

from collections import Counter
from collections.abc import Hashable

#: One user, or one other host, may have so many of a socket's streams: one in four.
SHARES = 4


class Quota:
    """How many streams everyone has.

    :param limit: how many streams there may be.
    """

    def __init__(self, limit: int) -> None:
        self._most = max(limit // SHARES, 1)
        self._taken: Counter[Hashable] = Counter()

    def take(self, who: Hashable) -> bool:
        """*who* has one more; is it among those that are theirs to have?"""
        self._taken[who] += 1
        return self._taken[who] <= self._most

    def give_back(self, who: Hashable) -> None:
        """*who* has one less."""
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]
