"""Record marking: messages on a byte stream (RFC 5531, section 11)."""

from collections.abc import Iterator
from struct import Struct

from portmapd.errors import BrokenStream

_MARK = Struct(">I")
_LAST = 0x8000_0000

#: The longest record, in bytes: the longest legitimate call is a CALLIT with arguments that fill a
#: datagram.
MAX_RECORD = 65_536
#: The most fragments of a record. Most clients send one; libtirpc splits long calls at 9,000
#: bytes.
MAX_FRAGMENTS = 64


def record_mark(message: bytes) -> bytes:
    """The record mark that makes *message* a record of one fragment."""
    return _MARK.pack(_LAST | len(message))


def mark(message: bytes) -> bytes:
    """*message* as a record of one fragment."""
    return record_mark(message) + message


def fragments(parts: Iterator[bytes]) -> Iterator[bytes]:
    """A record in fragments, one for each part; each is made when it is asked for."""
    part = next(parts)
    for following in parts:
        yield _MARK.pack(len(part)) + part
        part = following
    yield mark(part)


class RecordReader:
    """Assembles the records of one stream, however its bytes are split.

    :param limit: the longest record, in bytes. It is checked when a record mark is read, before
        any of the fragment is buffered.
    :param fragments: the most fragments of a record.
    """

    __slots__ = ("_buffer", "_count", "_fragments", "_limit", "_needed", "_parts", "_size")

    def __init__(self, limit: int = MAX_RECORD, fragments: int = MAX_FRAGMENTS) -> None:
        self._limit = limit
        self._fragments = fragments
        self._buffer = bytearray()
        #: The size at which the buffer is worth a look, in bytes: that of a mark, or a fragment.
        self._needed = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._count = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take *data* in and yield every record that it completes.

        The iterator must be exhausted before the next call.

        :raises BrokenStream: a record is too long, or has too many fragments; the records before
            it have been yielded.
        """
        buffer = self._whole(data) if self._buffer else data
        at, needed = 0, 4
        while len(buffer) - at >= 4:
            (word,) = _MARK.unpack_from(buffer, at)
            end = at + 4 + (word & ~_LAST)
            if end - at - 4 > self._limit - self._size:
                raise BrokenStream(f"a record of more than {self._limit} bytes")
            if self._count >= self._fragments:
                raise BrokenStream(f"a record of more than {self._fragments} fragments")
            if end > len(buffer):
                needed = end - at
                break
            fragment = buffer[at + 4 : end]
            at = end
            if word & _LAST:
                yield self._complete(fragment)
            else:
                self._keep(fragment)
        if buffer:
            self._keep_rest(buffer[at:], needed)

    def end(self) -> bytes | None:
        """Take the end of the stream in.

        :return: a record whose final fragment lacks the bit that marks it; None if there is none.
            Some servers close the stream instead of setting the bit.
        """
        if self._buffer or not self._count:
            return None
        return self._complete(b"")

    @property
    def pending(self) -> bytes:
        """What has come of a record whose end has not; another reader goes on with it."""
        whole = [piece for part in self._parts for piece in (_MARK.pack(len(part)), part)]
        return b"".join([*whole, self._buffer])

    @property
    def is_between(self) -> bool:
        """Whether the bytes so far end where a record ends."""
        return not (self._buffer or self._count)

    def _whole(self, data: bytes) -> bytes:
        """The buffer and *data*; nothing while no mark or fragment is whole.

        The buffer grows in place and is copied once for each fragment: the work is proportional to
        the bytes, however small the pieces that they come in.
        """
        self._buffer += data
        return bytes(self._buffer) if len(self._buffer) >= self._needed else b""

    def _keep_rest(self, rest: bytes, needed: int) -> None:
        if rest or self._buffer:
            self._buffer = bytearray(rest)
        self._needed = needed

    def _complete(self, fragment: bytes) -> bytes:
        if not self._count:
            return fragment
        self._parts.append(fragment)
        record = b"".join(self._parts)
        self._parts.clear()
        self._size = self._count = 0
        return record

    def _keep(self, fragment: bytes) -> None:
        self._parts.append(fragment)
        self._size += len(fragment)
        self._count += 1
