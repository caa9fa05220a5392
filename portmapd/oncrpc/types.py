"""Types of XDR as values, of which the arguments and results of procedures are composed (RFC 4506).

A type reads its values and encodes them::

    LINK = struct(Link, INT, UINT, string(255))
    LINK.read(Reader(data))
    LINK.encode(Link(1, 2, "inst0"))
"""

from __future__ import annotations

import struct as layouts
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from attrs import frozen

from portmapd.errors import XdrError
from portmapd.oncrpc import xdr
from portmapd.oncrpc.xdr import MAX_OPAQUE, MAX_STRING, Reader

T = TypeVar("T")
S = TypeVar("S", bound=Iterable[Any])

#: The most items of an array, unless its type says otherwise.
MAX_ITEMS = 4_096


@frozen
class Type(Generic[T]):
    """A type of XDR.

    :param read: reads a value; it raises :exc:`~portmapd.errors.XdrError` if there is none.
    :param encode: encodes a value; it raises ``ValueError`` or ``TypeError`` if that is none of
        the type.
    """

    read: Callable[[Reader], T]
    encode: Callable[[T], bytes]


def _number(form: str) -> Type[int]:
    layout = layouts.Struct(form)

    def read(reader: Reader) -> int:
        (value,) = layout.unpack(reader.fixed(layout.size))
        return int(value)

    def encode(value: int) -> bytes:
        try:
            return layout.pack(value)
        except layouts.error as error:
            raise ValueError(f"{value!r} is not a number of the type: {error}") from None

    return Type(read, encode)


#: Nothing; its value is None. Surplus bytes are ignored, as real clients send them.
VOID: Type[None] = Type(lambda reader: None, lambda value: b"")
#: Signed and unsigned numbers of 32 and of 64 bits (RFC 4506, 4.1, 4.2 and 4.5).
INT = _number(">i")
UINT = _number(">I")
HYPER = _number(">q")
UHYPER = _number(">Q")
#: A boolean (4.4).
BOOL: Type[bool] = Type(Reader.boolean, xdr.uint)
#: Everything that is left, as it is: for what the application encodes itself.
BYTES: Type[bytes] = Type(Reader.rest, bytes)


def fixed(size: int) -> Type[bytes]:
    """Opaque data of exactly *size* bytes (4.9)."""

    def encode(data: bytes) -> bytes:
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes where the type has {size}")
        return data + bytes(-size & 3)

    return Type(lambda reader: reader.fixed(size), encode)


def opaque(limit: int = MAX_OPAQUE) -> Type[bytes]:
    """Opaque data of at most *limit* bytes (4.10)."""

    def encode(data: bytes) -> bytes:
        _check_size(len(data), limit)
        return xdr.opaque(data)

    return Type(lambda reader: reader.opaque(limit), encode)


def string(limit: int = MAX_STRING) -> Type[str]:
    """A string of at most *limit* bytes (4.11); see :meth:`Reader.string`."""
    data = opaque(limit)

    def encode(text: str) -> bytes:
        return data.encode(text.encode("utf-8", "surrogateescape"))

    return Type(lambda reader: reader.string(limit), encode)


OPAQUE = opaque()
STRING = string()


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{size} where the type has at most {limit}")


def array(item: Type[T], limit: int = MAX_ITEMS) -> Type[tuple[T, ...]]:
    """An array of at most *limit* items (4.13)."""

    def read(reader: Reader) -> tuple[T, ...]:
        count = reader.uint()
        if count > limit:
            raise XdrError(f"{count} items announced, at most {limit} allowed")
        return tuple(item.read(reader) for _ in range(count))

    def encode(items: tuple[T, ...]) -> bytes:
        _check_size(len(items), limit)
        return xdr.uint(len(items)) + b"".join(map(item.encode, items))

    return Type(read, encode)


def chain(item: Type[T]) -> Type[tuple[T, ...]]:
    """A linked list (4.19), as directories and mappings are listed."""
    return Type(
        lambda reader: reader.sequence(item.read),
        lambda items: xdr.sequence([item.encode(each) for each in items]),
    )


def optional(type_: Type[T]) -> Type[T | None]:
    """A value that may be missing, which is None (4.19)."""
    return Type(
        lambda reader: type_.read(reader) if reader.boolean() else None,
        lambda value: xdr.uint(False) if value is None else xdr.uint(True) + type_.encode(value),
    )


def struct(make: Callable[..., S], *types: Type[Any]) -> Type[S]:
    """A structure (4.14).

    :param make: makes a value of those of its fields, over which the value iterates, such as a
        class of ``typing.NamedTuple``.
    :param types: those of its fields.
    """

    def encode(value: S) -> bytes:
        return b"".join(type_.encode(each) for type_, each in zip(types, value, strict=True))

    return Type(lambda reader: make(*[type_.read(reader) for type_ in types]), encode)


def fields(*types: Type[Any]) -> Type[tuple[Any, ...]]:
    """A structure whose values are tuples of those of its fields (4.14)."""
    return struct(_values, *types)


def _values(*values: Any) -> tuple[Any, ...]:
    return values


def union(arms: Mapping[int, Type[Any]], default: Type[Any] | None = None) -> Type[tuple[int, Any]]:
    """A discriminated union (4.15); its value is the discriminant with the value of its arm.

    :param arms: the type of each arm, by its discriminant.
    :param default: the type for every other discriminant; None: there is no other.
    """

    def arm(discriminant: int) -> Type[Any]:
        found = arms.get(discriminant, default)
        if found is None:
            raise XdrError(f"{discriminant} is no arm of the union")
        return found

    def read(reader: Reader) -> tuple[int, Any]:
        discriminant = reader.uint()
        return discriminant, arm(discriminant).read(reader)

    def encode(value: tuple[int, Any]) -> bytes:
        discriminant, body = value
        return xdr.uint(discriminant) + arm(discriminant).encode(body)

    return Type(read, encode)
