"""How the values of a box are written: AMP's argument types, as far as the channel has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import index, methodcaller
from struct import Struct
from typing import Any, NamedTuple

from portmapd.channel.box import END, MAX_VALUE, Box, encode_pairs
from portmapd.errors import BadArguments

_LENGTH = Struct(">H")


class Type(NamedTuple):
    """One of AMP's types.

    :param encode: makes a value into bytes.
    :param decode: the inverse; it raises ``ValueError`` for bytes that are not a value of the type.
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _integer(data: bytes) -> int:
    if not data.isdigit() and not (data[:1] == b"-" and data[1:].isdigit()):
        raise ValueError("it is not decimal digits")
    return int(data)


#: A whole number, in decimal digits.
INTEGER = Type(lambda value: b"%d" % index(value), _integer)

#: Text, in UTF-8.
UNICODE = Type(methodcaller("encode"), bytes.decode)


def list_of(element: Type) -> Type:
    """Several values of one type, each behind its length."""

    def encode(values: Iterable[Any]) -> bytes:
        items = [element.encode(value) for value in values]
        if any(len(item) > MAX_VALUE for item in items):
            raise ValueError(f"an element of more than {MAX_VALUE} bytes")
        return b"".join([part for item in items for part in (_LENGTH.pack(len(item)), item)])

    def decode(data: bytes) -> list[Any]:
        # A list may have ten thousand elements.
        at, end, values, read = 0, len(data), [], element.decode
        while at + 1 < end:
            start = at + 2
            at = start + (data[at] << 8 | data[at + 1])
            values.append(read(data[start:at]))
        if at != end:
            raise ValueError("the list ends too early")
        return values

    return Type(encode, decode)


class Argument:
    """A named value of a box.

    :param name: its key.
    :param kind: how it is written.
    :param optional: it may be left out, and is None then.
    :ivar key: its key, in bytes.
    :ivar prefix: what stands before its value's length: its key behind that one's length.
    """

    __slots__ = ("key", "kind", "name", "optional", "prefix")

    def __init__(self, name: str, kind: Type | Rows, optional: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.optional = optional
        self.key = name.encode()
        self.prefix = _LENGTH.pack(len(self.key)) + self.key

    def take(self, box: Mapping[bytes, bytes]) -> Any:
        """The argument's value in *box*.

        :raises BadArguments: it is missing, or not of its type; the message names it.
        """
        data = box.get(self.key)
        if data is None:
            if self.optional:
                return None
            raise BadArguments(f"{self.name} is missing")
        try:
            return self.kind.decode(data)
        except ValueError as error:
            raise BadArguments(f"{self.name} cannot be read: {error}") from error


class Rows:
    """An ``AmpList``: boxes of the same arguments, decoded to tuples in the order of these."""

    __slots__ = ("_quick", "columns")

    def __init__(self, columns: tuple[Argument, ...]) -> None:
        self.columns = columns
        self._quick = [(c.prefix, len(c.prefix) + 2, c.kind.decode) for c in columns]

    def encode(self, value: Iterable[tuple[Any, ...]] | bytes) -> bytes:
        """Rows as they travel; rows that were encoded one by one are taken as they are."""
        if isinstance(value, bytes):
            return value
        return b"".join([self.encode_row(row) for row in value])

    def encode_row(self, row: tuple[Any, ...]) -> bytes:
        """One box of the list."""
        pairs = zip(self.columns, row, strict=True)
        return encode_pairs([(column.key, column.kind.encode(cell)) for column, cell in pairs])

    def decode(self, data: bytes) -> list[tuple[Any, ...]]:
        rows, at = [], 0
        try:
            while at < len(data):
                row, at = self._row(data, at)
                rows.append(row)
        except IndexError:
            raise ValueError("the list ends too early") from None
        return rows

    def _row(self, data: bytes, start: int) -> tuple[tuple[Any, ...], int]:
        """The row at *start*, and where it ends; quick if its columns come in their order."""
        at, row = start, []
        try:
            for prefix, size, decode in self._quick:
                if not data.startswith(prefix, at):
                    return self._unordered(data, start)
                value = at + size
                at = value + (data[value - 2] << 8 | data[value - 1])
                row.append(decode(data[value:at]))
        except ValueError:
            # There, the column is named.
            return self._unordered(data, start)
        if not data.startswith(END, at):
            return self._unordered(data, start)
        return tuple(row), at + 2

    def _unordered(self, data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        box: Box = {}
        while data[at : at + 2] != END:
            key, at = _chunk(data, at)
            box[key], at = _chunk(data, at)
        return tuple([column.take(box) for column in self.columns]), at + 2


def _chunk(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 2
    stop = start + int.from_bytes(data[at:start], "big")
    if stop > len(data) or start > len(data):
        raise ValueError("the list ends too early")
    return data[start:stop], stop
