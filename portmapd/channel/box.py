"""AMP boxes: the unit of the local channel.

A box is a sequence of pairs of key and value, each behind its length in two bytes, and ends with
an empty key. Keys have 1 to 255 bytes, values at most 65,535.
"""

from collections.abc import Iterable, Iterator
from struct import Struct

from portmapd.errors import BrokenStream

Box = dict[bytes, bytes]

#: The largest box that is taken, in bytes: two values of the largest size, and what names them.
MAX_BOX = 132_096
#: The most pairs in a box that is taken; no command has half as many.
MAX_PAIRS = 32
MAX_KEY = 255
MAX_VALUE = 65_535

END = b"\0\0"
_LENGTH = Struct(">H")


def encode_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The box of these pairs.

    :raises ValueError: a key or a value is too long for a box.
    """
    parts: list[bytes] = []
    for key, value in pairs:
        if not 0 < len(key) <= MAX_KEY or len(value) > MAX_VALUE:
            raise ValueError(f"{key[:32]!r} with {len(value)} bytes does not fit a box")
        parts += (_LENGTH.pack(len(key)), key, _LENGTH.pack(len(value)), value)
    return b"".join(parts) + END


def encode_box(box: Box) -> bytes:
    """*box* as bytes; see :func:`encode_pairs`."""
    return encode_pairs(box.items())


class BoxReader:
    """Puts the boxes of one stream together, however its bytes arrive.

    :param limit: the largest box, in bytes.
    :param pairs: the most pairs in a box.
    """

    __slots__ = ("_buffer", "_limit", "_pairs")

    def __init__(self, limit: int = MAX_BOX, pairs: int = MAX_PAIRS) -> None:
        self._limit = limit
        self._pairs = pairs
        self._buffer = b""

    @property
    def unfinished(self) -> int:
        """How many bytes of a box have come whose end has not."""
        return len(self._buffer)

    @property
    def pending(self) -> bytes:
        """What has come of a box whose end has not; another reader goes on with it."""
        return self._buffer

    def feed(self, data: bytes) -> Iterator[Box]:
        """Take *data* in and yield every box that it completes.

        The iterator must be used up before the next call.

        :raises BrokenStream: what comes is not a box, or one that is too large; the boxes before it
            have been yielded.
        """
        buffer = self._buffer + data if self._buffer else data
        end = len(buffer)
        start = at = count = 0
        box: Box = {}
        while at + 2 <= end:
            size = buffer[at] << 8 | buffer[at + 1]
            if not size:
                at += 2
                if at - start > self._limit:
                    raise BrokenStream(_too_large(self._limit))
                yield box
                start, box, count = at, {}, 0
                continue
            if size > MAX_KEY or count == self._pairs:
                raise BrokenStream(_fault(size, self._pairs))
            value = at + size + 4
            if value > end:
                break
            length = buffer[value - 2] << 8 | buffer[value - 1]
            if value + length > end:
                break
            box[buffer[at + 2 : value - 2]] = buffer[value : value + length]
            at = value + length
            count += 1
        if end - start > self._limit:
            raise BrokenStream(_too_large(self._limit))
        self._buffer = buffer[start:]


def _too_large(limit: int) -> str:
    return f"a box of more than {limit} bytes"


def _fault(size: int, pairs: int) -> str:
    if size > MAX_KEY:
        return f"a key of {size} bytes, at most {MAX_KEY}"
    return f"a box of more than {pairs} pairs"
