"""The reply cache: replies that are given again until a mapping changes.

A reply is kept for requests that differ from the first one in nothing but their xid, and that come
from the same kind of caller: the same netid, the same audience, the same address of ours. Nothing
else about a caller changes a cacheable reply. All of them are forgotten when a mapping changes.
"""

from collections.abc import Callable, Mapping, Sequence

from portmapd.oncrpc.message import XID
from portmapd.oncrpc.record import record_mark
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.statistics import Count
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.registry import Registry

#: Longer requests and replies, in bytes, are not kept: they are rare, and need not be fast.
MAX_REQUEST = 256
MAX_REPLY = 65_536
#: The most bytes of replies that are kept, with an allowance for what each costs besides.
MAX_SIZE = 16 << 20
ALLOWANCE = 512
#: The most kinds of callers that replies are kept for.
MAX_TABLES = 256


class CachedReply:
    """A reply that is given to many requests.

    :param request: the first request, with its xid.
    :param reply: the reply to it, with its xid.
    :param count: counts how often the reply is given; whoever gives it adds 1.
    :ivar body: the reply less its xid.
    :ivar mark: the reply's record mark on a stream.
    :ivar request_mark: the record mark of a request on a stream.
    :ivar address: where the body is in memory, for the engine that sends it from there; 0 until
        the engine has asked.
    """

    __slots__ = ("address", "body", "count", "mark", "request_mark")

    def __init__(self, request: bytes, reply: bytes, count: Count) -> None:
        self.body = reply[XID:]
        self.mark = record_mark(reply)
        self.request_mark = record_mark(request)
        self.count = count
        self.address = 0


#: Makes the reply to a request without dispatch; None if the request has to be dispatched.
Compute = Callable[[bytes], CachedReply | None]


class ReplyTable:
    """The replies known for one kind of caller.

    A table stays valid for ever: it is emptied in place when a mapping changes.

    :param compute: makes replies that are not in the table.
    """

    __slots__ = ("_compute", "_replies")

    def __init__(self, compute: Compute) -> None:
        self._replies: dict[bytes, CachedReply] = {}
        self._compute = compute

    def find(self, request: bytes) -> CachedReply | None:
        """The reply to *request*, a message less its xid; None if it is not known."""
        return self._replies.get(request) or self._compute(request)

    def add(self, request: bytes, reply: CachedReply) -> None:
        """Keep *reply* for *request*, a message less its xid."""
        self._replies[request] = reply

    def clear(self) -> None:
        """Forget every reply."""
        self._replies.clear()

    def __len__(self) -> int:
        return len(self._replies)


def empty_table() -> ReplyTable:
    """A table in which no reply is known."""
    return ReplyTable(_compute_nothing)


class ReplyCache:
    """A table of replies for each kind of caller.

    :param registry: when one of its mappings changes, every reply is forgotten.
    :param compute: what makes replies that are not in a table, by the netid of the calls.
    """

    def __init__(self, registry: Registry, compute: Mapping[str, Compute]) -> None:
        self._compute = compute
        self._tables: dict[tuple[str, Audience, str], ReplyTable] = {}
        self._size = 0
        self._end = registry.follow(self._changed, ChangeKind.MAPPED, ChangeKind.UNMAPPED)

    def table(self, caller: Caller) -> ReplyTable:
        """The table for callers like *caller*.

        If there are too many tables already, it is a new one that no reply is kept in.
        """
        kind = _kind(caller)
        table = self._tables.get(kind)
        if table is None:
            excluded = caller.audience is Audience.EXCLUDED
            compute = _compute_nothing if excluded else self._compute[caller.netid.name]
            table = ReplyTable(compute)
            if len(self._tables) < MAX_TABLES:
                self._tables[kind] = table
        return table

    def keep(self, caller: Caller, message: bytes, reply: bytes, count: Count) -> None:
        """Give *reply* to every further message like *message* of callers like *caller*.

        :param count: counts how often it is given.
        """
        table = self._tables.get(_kind(caller))
        if table is None or len(message) > MAX_REQUEST or len(reply) > MAX_REPLY:
            return
        if self._size >= MAX_SIZE:
            self.clear()
        self._size += len(reply) + ALLOWANCE
        table.add(message[XID:], CachedReply(message, reply, count))

    def clear(self) -> None:
        """Forget every reply."""
        for table in self._tables.values():
            table.clear()
        self._size = 0

    def close(self) -> None:
        """Stop following the registry; the cache must not be used any more."""
        self.clear()
        self._end()

    def _changed(self, changes: Sequence[ChangeRecord]) -> None:
        if self._size:
            self.clear()


def _kind(caller: Caller) -> tuple[str, Audience, str]:
    return caller.netid.name, caller.audience, caller.reached


def _compute_nothing(request: bytes) -> None:
    """No reply is known."""
