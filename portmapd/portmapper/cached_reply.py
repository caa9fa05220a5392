"""A reply that is given again and again."""

from collections.abc import Callable
from ctypes import c_char_p, c_void_p, cast

from attrs import define

from portmapd.oncrpc.message import XID
from portmapd.oncrpc.record import record_mark
from portmapd.portmapper.statistics import Tally


@define(eq=False)
class Answer:
    """A reply that is given again and again, in the forms that transports send.

    :param reply: the reply less its xid.
    :param tally: what giving it counts as.
    :param asked: the record mark that a request for it has on a stream.
    :param mark: its own record mark on a stream.
    :param address: where it is in memory, for as long as this answer is referenced.
    :param hits: how often it was given since that was counted last.
    """

    reply: bytes
    tally: Tally
    asked: bytes
    mark: bytes
    size: int
    address: int
    hits: int = 0


def make_answer(message: bytes, reply: bytes, tally: Tally) -> Answer:
    """The answer that *reply* is to every message that differs from *message* in its xid alone."""
    tail = reply[XID:]
    address = cast(c_char_p(tail), c_void_p).value
    assert address is not None
    return Answer(tail, tally, record_mark(message), record_mark(reply), len(tail), address)


class Shelf(dict[bytes, Answer]):
    """Answers by their request less its xid.

    :param find: finds an answer that is not on the shelf, when it is asked for by index; it
        raises ``KeyError`` if there is none.
    """

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[bytes], Answer]) -> None:
        self._find = find

    def __missing__(self, request: bytes) -> Answer:
        return self._find(request)
