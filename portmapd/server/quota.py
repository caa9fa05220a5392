"""What there is room for, connections and memory, so that nobody has all of it."""

from collections import Counter
from collections.abc import Container, Hashable
from ipaddress import ip_address
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from portmapd.errors import LimitExceeded

#: One client may have one in so many of a socket's connections.
SHARES = 4
#: Who has at most so many connections is a newcomer.
FEW = 16


K = TypeVar("K", bound=Hashable)


class Taken(Counter[K]):
    """How much of something each has taken; who has nothing is not in it."""

    def give_back(self, who: K) -> None:
        """Count one less."""
        self[who] -= 1
        if not self[who]:
            del self[who]


class Quota:
    """Counts the connections of each user that is not root, none of which may be taken from it.

    Of all connections, these users have three quarters, of which each may have a quarter. An
    eighth is kept for newcomers among them, and an eighth for root.

    :param limit: how many connections there is room for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = max(limit // SHARES, 1)
        self._taken: Taken[Hashable] = Taken()

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
        self._taken.give_back(who)


class Budget:
    """What all connections together may take of something, and those of one user.

    One user may take a quarter. An eighth is kept for users without a limit of their own.

    :param what: what is taken, as a refusal calls it.
    :param limit: how much of it there is.
    :param unlimited: the users without a limit of their own.
    """

    def __init__(self, what: str, limit: int, unlimited: Container[int] = (0,)) -> None:
        self._what = what
        self._limit = limit
        self._share = max(limit // SHARES, 1)
        self._unlimited = unlimited
        self._taken: Counter[int] = Counter()
        self._all = 0

    def take(self, uid: int, more: int) -> None:
        """Take *more* for a user, or give back if it is negative.

        :raises LimitExceeded: there is not so much left for it.
        """
        if more > 0:
            self._check(uid, more)
        self.put(uid, more)

    def put(self, uid: int, more: int) -> None:
        """Count *more* for a user, whatever there is left."""
        self._all += more
        self._taken[uid] += more
        if not self._taken[uid]:
            del self._taken[uid]

    def _check(self, uid: int, more: int) -> None:
        is_unlimited = uid in self._unlimited
        taken = self._taken[uid]
        if not is_unlimited and taken + more > self._share:
            raise LimitExceeded(
                f"one user may have {self._share} {self._what}; uid {uid} has {taken} and asks for "
                f"{more} more"
            )
        limit = self._limit if is_unlimited else self._limit - self._limit // 8
        if self._all + more > limit:
            raise LimitExceeded(
                f"all users together may have {limit} {self._what}; they have {self._all}, and uid "
                f"{uid} asks for {more} more"
            )


def network_of(host: str) -> bytes:
    """The network of another host that a share is for: of IPv6, one host may have a whole /64."""
    address = ip_address(host.partition("%")[0])
    return address.packed if address.version == 4 else address.packed[:8]


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
