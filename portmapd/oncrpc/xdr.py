"""External data representation, as far as program 100000 needs it (RFC 4506)."""

from collections.abc import Callable
from struct import Struct
from typing import TypeVar

from portmapd.errors import XdrError

_UINT = Struct(">I")

T = TypeVar("T")

#: The longest string or opaque that any argument of the port mapper may be, in bytes. The longest
#: legitimate one is the argument of a forwarded call, which travels in one datagram.
MAX_OPAQUE = 65_536

#: Universal addresses, netids and owners: a UNIX socket's path has at most 108 bytes.
MAX_STRING = 1_024


class Reader:
    """Takes XDR values off the front of *data*.

    Every method raises :exc:`~portmapd.errors.XdrError` where the data ends early or a length
    exceeds its limit, before anything of that length is made.
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
            raise XdrError(f"{value} is no boolean")
        return value == 1

    def opaque(self, limit: int = MAX_OPAQUE) -> bytes:
        """Variable-length opaque data of at most *limit* bytes (RFC 4506, 4.10)."""
        size = self.uint()
        if size > limit:
            raise XdrError(f"{size} bytes announced, at most {limit} allowed")
        start = self._at
        end = start + size + (-size & 3)
        if end > len(self._data):
            raise XdrError("the data ends within an opaque")
        self._at = end
        return self._data[start : start + size]

    def string(self, limit: int = MAX_STRING) -> str:
        """A string of at most *limit* bytes (RFC 4506, 4.11).

        Bytes that are not UTF-8 become surrogate escapes: they survive, and no name matches them.
        """
        return self.opaque(limit).decode("utf-8", "surrogateescape")

    def sequence(self, read: Callable[["Reader"], T]) -> tuple[T, ...]:
        """A linked list whose items *read* takes; the inverse of :func:`sequence`."""
        items = []
        while self.boolean():
            items.append(read(self))
        return tuple(items)

    def rest(self) -> bytes:
        """All that has not been taken yet."""
        return self._data[self._at :]


def uint(value: int) -> bytes:
    """*value*, 0 to 2^32-1, as an unsigned integer; a boolean is 0 or 1."""
    return _UINT.pack(value)


def opaque(data: bytes) -> bytes:
    """*data* as variable-length opaque data, padded to four bytes."""
    size = len(data)
    return _UINT.pack(size) + data + bytes(-size & 3)


def string(text: str) -> bytes:
    """*text* as a string; the inverse of :meth:`Reader.string`."""
    return opaque(text.encode("utf-8", "surrogateescape"))


def sequence(items: list[bytes]) -> bytes:
    """A linked list (RFC 4506, 4.19): TRUE before every encoded item, FALSE at the end."""
    following = _UINT.pack(1)
    return b"".join([part for item in items for part in (following, item)] + [_UINT.pack(0)])
