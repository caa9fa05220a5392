"""Types of XDR: what they read, what they encode, and what is none of their values."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import XdrError
from portmapd.oncrpc.types import (
    BOOL,
    BYTES,
    HYPER,
    INT,
    MAX_ITEMS,
    OPAQUE,
    STRING,
    UHYPER,
    UINT,
    VOID,
    Type,
    array,
    chain,
    fields,
    fixed,
    opaque,
    optional,
    string,
    struct,
    union,
)
from portmapd.oncrpc.xdr import Reader
from tests.support.rpc_samples import PROPERTY


class Point(NamedTuple):
    """A structure."""

    x: int
    y: int


POINT = struct(Point, INT, INT)

#: Each type with values of it, and what they are encoded as (RFC 4506, 4).
SAMPLES: list[tuple[Type[Any], Any, bytes]] = [
    (VOID, None, b""),
    (INT, -2, b"\xff\xff\xff\xfe"),
    (UINT, 2**32 - 1, b"\xff\xff\xff\xff"),
    (HYPER, -1, b"\xff" * 8),
    (UHYPER, 2**40, b"\0\0\1\0\0\0\0\0"),
    (BOOL, True, b"\0\0\0\1"),
    (BYTES, b"as it is", b"as it is"),
    (STRING, "über", b"\0\0\0\5\xc3\xbcber\0\0\0"),
    (OPAQUE, b"12345", b"\0\0\0\x0512345\0\0\0"),
    (fixed(5), b"12345", b"12345\0\0\0"),
    (array(UINT), (1, 2), b"\0\0\0\2\0\0\0\1\0\0\0\2"),
    (chain(UINT), (7,), b"\0\0\0\1\0\0\0\7\0\0\0\0"),
    (optional(UINT), None, b"\0\0\0\0"),
    (optional(UINT), 7, b"\0\0\0\1\0\0\0\7"),
    (POINT, Point(1, -1), b"\0\0\0\1\xff\xff\xff\xff"),
    (fields(UINT, BOOL), (3, False), b"\0\0\0\3\0\0\0\0"),
    (union({0: UINT}), (0, 9), b"\0\0\0\0\0\0\0\x09"),
    (union({0: UINT}, default=VOID), (5, None), b"\0\0\0\5"),
]

#: Values that their types do not have.
WRONG: list[tuple[Type[Any], Any]] = [
    (INT, 2**31),
    (UINT, -1),
    (UINT, "1"),
    (fixed(4), b"12345"),
    (opaque(4), b"12345"),
    (string(4), "12345"),
    (array(UINT, 1), (1, 2)),
    (POINT, (1, 2, 3)),
    (POINT, None),
]

#: Data that types do not read.
UNREADABLE: list[tuple[Type[Any], bytes]] = [
    (INT, b"\0\0\0"),
    (BOOL, b"\0\0\0\2"),
    (fixed(5), b"12345"),
    (opaque(4), b"\0\0\0\x0512345\0\0\0"),
    (array(UINT), (MAX_ITEMS + 1).to_bytes(4) + bytes(4 * (MAX_ITEMS + 1))),
    (array(VOID), b"\xff\xff\xff\xff"),
    (union({0: VOID}), b"\0\0\0\1"),
    (POINT, b"\0\0\0\1"),
]


class TypeTests(SynchronousTestCase):
    """Each type by itself."""

    def test_encoding(self) -> None:
        """Values are encoded as RFC 4506 says, and read again."""
        for type_, value, encoded in SAMPLES:
            self.assertEqual(type_.encode(value), encoded, value)
            reader = Reader(encoded)
            self.assertEqual(type_.read(reader), value)
            self.assertEqual(reader.rest(), encoded if type_ is BYTES else b"")

    def test_wrong_values(self) -> None:
        """What a type does not have is not encoded to something else."""
        for type_, value in WRONG:
            self.assertRaises((ValueError, TypeError), type_.encode, value)

    def test_unreadable(self) -> None:
        """Data that ends early or announces too much is refused."""
        for type_, data in UNREADABLE:
            self.assertRaises(XdrError, type_.read, Reader(data))

    def test_string_at_its_limit(self) -> None:
        """The limit of a string is in bytes."""
        self.assertEqual(string(5).encode("12345")[:4], b"\0\0\0\5")
        self.assertRaises(ValueError, string(5).encode, "123456")
        self.assertRaises(ValueError, string(5).encode, "über-")

    @PROPERTY
    @given(st.binary(max_size=64))
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever comes is read or refused; what is read is encoded to what is read again."""
        for type_ in (sample[0] for sample in SAMPLES):
            self._check(type_.read, type_.encode, data)

    def _check(
        self, read: Callable[[Reader], Any], encode: Callable[[Any], bytes], data: bytes
    ) -> None:
        try:
            value = read(Reader(data))
        except XdrError:
            return
        self.assertEqual(read(Reader(encode(value))), value)
