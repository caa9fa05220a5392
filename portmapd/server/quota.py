"""How many of a socket's streams one client may have, so that nobody has all of them."""

from collections import Counter
from collections.abc import Hashable

#: One client may have one in so many of a socket's streams.
SHARES = 4


class Quota:
    """Counts the streams of each client: a user of this host, or another host.

    :param limit: how many streams the socket may have in all.
    """

    def __init__(self, limit: int) -> None:
        self._most = max(limit // SHARES, 1)
        self._taken: Counter[Hashable] = Counter()

    def take(self, who: Hashable) -> bool:
        """Count one more stream of *who*.

        :return: whether it is within the quota; it counts in any case.
        """
        self._taken[who] += 1
        return self._taken[who] <= self._most

    def give_back(self, who: Hashable) -> None:
        """Count one stream of *who* less."""
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]
