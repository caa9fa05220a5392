"""How the values of a box are written: AMP's argument types, as far as the channel has them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Any

from attrs import field, frozen

from portmapd.channel.box import END, MAX_VALUE, Box, encode_pairs
from portmapd.errors import BadArguments

_LENGTH = Struct(">H")
#: The longest integer that is read, in digits: 64 bits, and a sign.
MAX_DIGITS = 20


class Type(ABC):
    """One of AMP's types."""

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """*value* as it travels."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """The inverse of :meth:`encode`.

        :raises ValueError: *data* is no value of the type.
        """


class Integer(Type):
    """A whole number, in decimal digits."""

    def encode(self, value: int) -> bytes:
        return b"%d" % value

    def decode(self, data: bytes) -> int:
        if len(data) > MAX_DIGITS:
            raise ValueError("too many digits")
        return int(data)


class Unicode(Type):
    """Text, in UTF-8."""

    def encode(self, value: str) -> bytes:
        return value.encode("utf-8", "surrogateescape")

    def decode(self, data: bytes) -> str:
        return data.decode("utf-8")


@frozen
class ListOf(Type):
    """Several values of one type, each behind its length."""

    element: Type

    def encode(self, value: Iterable[Any]) -> bytes:
        items = [self.element.encode(item) for item in value]
        return b"".join([part for item in items for part in (_LENGTH.pack(len(item)), item)])

    def decode(self, data: bytes) -> list[Any]:
        at, values = 0, []
        while at < len(data):
            start = at + 2
            (size,) = _LENGTH.unpack_from(data, at) if start <= len(data) else (MAX_VALUE,)
            at = start + size
            if at > len(data):
                raise ValueError("the list ends within an element")
            values.append(self.element.decode(data[start:at]))
        return values


@frozen
class Argument:
    """A named value of a box.

    :param name: its key.
    :param type: how it is written.
    :param optional: it may be left out, and is None then.
    """

    name: str
    type: Type
    optional: bool = False
    key: bytes = field(init=False)
    #: What stands before its value's length: its key behind that one's length.
    prefix: bytes = field(init=False)

    @key.default
    def _make_key(self) -> bytes:
        return self.name.encode()

    @prefix.default
    def _make_prefix(self) -> bytes:
        return _LENGTH.pack(len(self.name)) + self.name.encode()

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
            return self.type.decode(data)
        except ValueError as error:
            raise BadArguments(f"{self.name} cannot be read: {error}") from error


@frozen
class Rows(Type):
    """An ``AmpList``: boxes of the same arguments, decoded to tuples in the order of these."""

    columns: tuple[Argument, ...]

    def encode(self, value: Iterable[tuple[Any, ...]] | bytes) -> bytes:
        """Rows as they travel; rows that were encoded one by one are taken as they are."""
        if isinstance(value, bytes):
            return value
        return b"".join([self.encode_row(row) for row in value])

    def encode_row(self, row: tuple[Any, ...]) -> bytes:
        """One box of the list."""
        pairs = zip(self.columns, row, strict=True)
        return encode_pairs([(column.key, column.type.encode(cell)) for column, cell in pairs])

    def decode(self, data: bytes) -> list[tuple[Any, ...]]:
        rows, at = [], 0
        while at < len(data):
            row, at = self._row(data, at)
            rows.append(row)
        return rows

    def _row(self, data: bytes, start: int) -> tuple[tuple[Any, ...], int]:
        """The row at *start*, and where it ends; quick if its columns come in their order."""
        at, row = start, []
        for column in self.columns:
            if not data.startswith(column.prefix, at):
                return self._unordered(data, start)
            value = at + len(column.prefix) + 2
            at = value + int.from_bytes(data[value - 2 : value], "big")
            row.append(column.type.decode(data[value:at]))
        if data[at : at + 2] != END:
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
        raise ValueError("the list ends within a row")
    return data[start:stop], stop
