"""External data representation (RFC 4506): reading and encoding."""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import TypeVar

from portmapd.errors import XdrError

_UINT = Struct(">I")

T = TypeVar("T")

#: The longest string or opaque in any arguments, in bytes. The longest legitimate one is the
#: arguments of a forwarded call, which travel in one datagram.
MAX_OPAQUE = 65_536

#: The longest universal address, netid or owner, in bytes; the path of a UNIX socket has at most
#: 108.
MAX_STRING = 1_024


class Reader:
    """Reads XDR values from *data*, one after the other.

    Every method raises :exc:`~portmapd.errors.XdrError` if the data ends early or a length exceeds
    its limit, before it allocates anything of that length.

    :param at: where to begin, in bytes.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def uint(self) -> int:
        """An unsigned 32-bit integer (RFC 4506, 4.2)."""
        end = self._at + 4
        if end > len(self._data):
            raise XdrError("the data ends within an integer")
        (value,) = _UINT.unpack_from(self._data, self._at)
        self._at = end
        return int(value)

    def boolean(self) -> bool:
        """A boolean, 0 or 1 (RFC 4506, 4.4)."""
        value = self.uint()
        if value > 1:
            raise XdrError(f"{value} is not a boolean")
        return value == 1

    def opaque(self, limit: int = MAX_OPAQUE) -> bytes:
        """Variable-length opaque data of at most *limit* bytes (RFC 4506, 4.10)."""
        size = self.uint()
        if size > limit:
            raise XdrError(f"{size} bytes announced, at most {limit} allowed")
        return self.fixed(size)

    def fixed(self, size: int) -> bytes:
        """Opaque data of *size* bytes, padded to a multiple of four (RFC 4506, 4.9)."""
        start = self._at
        end = start + size + (-size & 3)
        if end > len(self._data):
            raise XdrError("the data ends within an opaque")
        self._at = end
        return self._data[start : start + size]

    def string(self, limit: int = MAX_STRING) -> str:
        """A string of at most *limit* bytes (RFC 4506, 4.11).

        Bytes that are not UTF-8 become surrogate escapes: they are kept, and match no valid name.
        """
        return self.opaque(limit).decode("utf-8", "surrogateescape")

    def sequence(self, read: Callable[["Reader"], T]) -> tuple[T, ...]:
        """A linked list of items that *read* reads; the inverse of :func:`sequence`."""
        return tuple(self.items(read))

    def items(self, read: Callable[["Reader"], T]) -> Iterator[T]:
        """The items of such a list, each read when it is asked for."""
        while self.boolean():
            yield read(self)

    def rest(self) -> bytes:
        """Everything that has not been read."""
        return self._data[self._at :]


def uint(value: int) -> bytes:
    """Encode an unsigned integer, 0 to 2^32-1; a boolean is 0 or 1."""
    return _UINT.pack(value)


def opaque(data: bytes) -> bytes:
    """Encode variable-length opaque data, padded to a multiple of four bytes."""
    size = len(data)
    return _UINT.pack(size) + data + bytes(-size & 3)


def string(text: str) -> bytes:
    """Encode a string; the inverse of :meth:`Reader.string`."""
    return opaque(text.encode("utf-8", "surrogateescape"))


def sequence(items: list[bytes]) -> bytes:
    """Encode a linked list of encoded items (RFC 4506, 4.19): TRUE before each, then FALSE."""
    following = _UINT.pack(1)
    return b"".join([part for item in items for part in (following, item)] + [_UINT.pack(0)])
