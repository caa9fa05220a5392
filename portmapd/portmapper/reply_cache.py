"""The answer cache: replies that will be the same until a mapping changes."""

from collections.abc import Iterator, Sequence
from typing import Any

from portmapd.oncrpc.message import XID
from portmapd.oncrpc.netid import Netid
from portmapd.portmapper.cached_reply import Answer, Shelf
from portmapd.portmapper.caller import Audience
from portmapd.portmapper.getport_replies import Ports
from portmapd.portmapper.statistics import Statistics
from portmapd.registry.change import Change, Kind
from portmapd.registry.registry import Registry

#: Longer requests and replies, in bytes, are not kept: they are rare, and need not be fast.
MAX_REQUEST = 256
MAX_REPLY = 65_536
#: The most bytes of replies that are kept, with an allowance for each.
MAX_KEPT = 16 << 20
ALLOWANCE = 512
#: The most audiences for which replies are kept apart: transports, ranks, and local addresses.
MAX_SHELVES = 256

#: Who gets the same replies: netid, audience, and the address of ours that was asked.
Readers = tuple[str, Audience, str]


class Answers:
    """Replies, on a shelf for each kind of reader.

    A shelf that was handed out stays valid: it is emptied in place when a mapping changes.

    :param statistics: are told how often each reply was given, not later than they are read.
    """

    def __init__(self, registry: Registry, statistics: Statistics) -> None:
        self._statistics = statistics
        self._ports = Ports(registry, statistics)
        self._shelves: dict[Readers, Shelf] = {}
        self._kept = 0
        statistics.settle = self.settle
        self._unfollow = registry.follow(self._changed, Kind.MAPPED, Kind.UNMAPPED)

    def shelf(self, netid: Netid, audience: Audience, reached: str) -> Shelf:
        """The shelf for these readers; one that nothing is put on if there are too many already."""
        readers = netid.name, audience, reached
        shelf = self._shelves.get(readers)
        if shelf is None:
            shelf = Shelf(_nothing if audience is Audience.EXCLUDED else self._ports.answer)
            if len(self._shelves) < MAX_SHELVES:
                self._shelves[readers] = shelf
        return shelf

    def keep(
        self, netid: Netid, audience: Audience, reached: str, message: bytes, answer: Answer
    ) -> None:
        """Give *answer* to every further message like *message* from these readers."""
        shelf = self._shelves.get((netid.name, audience, reached))
        if shelf is None or len(message) > MAX_REQUEST or answer.size > MAX_REPLY:
            return
        if self._kept >= MAX_KEPT:
            self.clear()
        self._kept += answer.size + ALLOWANCE
        shelf[message[XID:]] = answer

    def clear(self) -> None:
        """Forget every reply."""
        self.settle()
        for shelf in self._shelves.values():
            shelf.clear()
        self._kept = 0

    def close(self) -> None:
        """Forget every reply, and follow the registry no longer."""
        self._unfollow()
        self.clear()

    def settle(self) -> None:
        """Have the statistics count what was answered from here."""
        for answers in self._all():
            for answer in answers.values():
                if answer.hits:
                    self._statistics.count(answer.tally, answer.hits)
                    answer.hits = 0

    def _all(self) -> Iterator[dict[Any, Answer]]:
        yield from self._shelves.values()
        yield self._ports.answers

    def _changed(self, changes: Sequence[Change]) -> None:
        if self._kept:
            self.clear()


def _nothing(request: bytes) -> Answer:
    raise KeyError(request)
