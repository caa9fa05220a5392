"""The answer cache: replies that will be the same until a mapping changes."""

from collections.abc import Sequence

from attrs import define

from portmapd.oncrpc.address import Netid
from portmapd.portmapper.caller import Audience
from portmapd.portmapper.statistics import Statistics, Tally
from portmapd.registry.change import Change, Kind
from portmapd.registry.registry import Registry

#: Longer requests and replies, in bytes, are not kept: they are rare, and need not be fast.
MAX_REQUEST = 256
MAX_REPLY = 1_024
#: The most replies kept, about 10 MB at their largest.
MAX_ANSWERS = 8_192
#: The most audiences for which replies are kept apart: transports, ranks, and local addresses.
MAX_SHELVES = 256

#: Who gets the same replies: netid, audience, and the address of ours that was asked.
Readers = tuple[str, Audience, str]


@define(eq=False)
class Answer:
    """A reply less its xid, and how often it was given since it is kept."""

    reply: bytes
    tally: Tally
    hits: int = 0


#: Answers by their request less its xid.
Shelf = dict[bytes, Answer]


class Answers:
    """Replies, on a shelf for each kind of reader.

    A shelf that was handed out stays valid: it is emptied in place when a mapping changes.

    :param statistics: are told how often each reply was given, not later than they are read.
    """

    def __init__(self, registry: Registry, statistics: Statistics) -> None:
        self._statistics = statistics
        self._shelves: dict[Readers, Shelf] = {}
        self._count = 0
        statistics.settle = self.settle
        registry.follow(self._changed, Kind.MAPPED, Kind.UNMAPPED)

    def shelf(self, netid: Netid, audience: Audience, reached: str) -> Shelf:
        """The shelf for these readers; one that stays empty if there are too many already."""
        readers = netid.name, audience, reached
        shelf = self._shelves.get(readers)
        if shelf is None:
            shelf = {}
            if len(self._shelves) < MAX_SHELVES:
                self._shelves[readers] = shelf
        return shelf

    def keep(
        self, netid: Netid, audience: Audience, reached: str, message: bytes, answer: Answer
    ) -> None:
        """Give *answer* to every further message like *message* from these readers."""
        shelf = self._shelves.get((netid.name, audience, reached))
        if shelf is None or len(message) > MAX_REQUEST or len(answer.reply) > MAX_REPLY:
            return
        if self._count >= MAX_ANSWERS:
            self.clear()
        self._count += 1
        shelf[message[4:]] = answer

    def clear(self) -> None:
        """Forget every reply."""
        self.settle()
        for shelf in self._shelves.values():
            shelf.clear()
        self._count = 0

    def settle(self) -> None:
        """Have the statistics count what was answered from here."""
        for shelf in self._shelves.values():
            for answer in shelf.values():
                if answer.hits:
                    self._statistics.count(answer.tally, answer.hits)
                    answer.hits = 0

    def _changed(self, changes: Sequence[Change]) -> None:
        if self._count:
            self.clear()
