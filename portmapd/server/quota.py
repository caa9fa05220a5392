"""How many connections a socket has room for, so that nobody has all of them."""

from collections import Counter
from collections.abc import Hashable
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

#: One client may have one in so many of a socket's connections.
SHARES = 4
#: Who has at most so many connections is a newcomer.
FEW = 16


class Quota:
    """Counts the connections of each user that is not root, none of which may be taken from it.

    Of all connections, these users have three quarters, of which each may have a quarter. An
    eighth is kept for newcomers among them, and an eighth for root.

    :param limit: how many connections there is room for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = max(limit // SHARES, 1)
        self._taken: Counter[Hashable] = Counter()

    def take(self, who: Hashable, room: int) -> bool:
        """Count one more connection of *who*.

        :param room: for how many further connections there is room now.
        :return: whether it may have that; it counts in any case.
        """
        self._taken[who] += 1
        own = self._taken[who]
        kept = self._limit // 8 if own <= FEW else self._limit // 4
        return own <= self._share and room >= kept

    def give_back(self, who: Hashable) -> None:
        """Count one connection of *who* less."""
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]


class Usable(Protocol):
    """A stream.

    :ivar used: grows with each use of any stream.
    """

    used: int


S = TypeVar("S", bound=Usable)


class OpenStreams(Generic[S]):
    """The streams of a socket, and which one has to go when there are too many.

    :param limit: the most streams. One owner may have a quarter of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = max(limit // SHARES, 1)
        self._owners: dict[S, Hashable] = {}
        #: Of each owner, its streams; dictionaries keep their order.
        self._owned: dict[Hashable, dict[S, None]] = {}

    @property
    def is_crowded(self) -> bool:
        """Are half of the streams taken?"""
        return 2 * len(self._owners) >= self._limit

    def add(self, stream: S, owner: Hashable) -> S | None:
        """Add *stream*.

        :param owner: whose share it is of; None if it is of nobody's.
        :return: a stream that has to be closed for it: the owner's, or anyone's, that was not
            used for the longest time. It is none of the open streams any more. None if there is
            room enough.
        """
        self._owners[stream] = owner
        owned = self._owned.setdefault(owner, {})
        owned[stream] = None
        surplus: S | None = None
        if owner is not None and len(owned) > self._share:
            surplus = min(owned, key=_used)
        elif len(self._owners) > self._limit:
            surplus = min(self._owners, key=_used)
        if surplus is not None:
            self.remove(surplus)
        return surplus

    def remove(self, stream: S) -> None:
        """*stream* is closed; it need not be among the open ones."""
        if stream not in self._owners:
            return
        owner = self._owners.pop(stream)
        owned = self._owned[owner]
        del owned[stream]
        if not owned:
            del self._owned[owner]


_used = attrgetter("used")
