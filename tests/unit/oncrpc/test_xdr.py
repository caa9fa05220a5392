"""XDR: pairs of bytes and values, and what happens where the bytes are wrong."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import XdrError
from portmapd.oncrpc import xdr
from portmapd.oncrpc.xdr import Reader
from tests.support.rpc_samples import PROPERTY, UINTS

#: Encoder, reader, value, bytes.
PAIRS: list[tuple[Callable[[Any], bytes], Callable[[Reader], Any], Any, str]] = [
    (xdr.uint, Reader.uint, 0, "00000000"),
    (xdr.uint, Reader.uint, 100000, "000186a0"),
    (xdr.uint, Reader.uint, 0xFFFF_FFFF, "ffffffff"),
    (xdr.uint, Reader.uint, True, "00000001"),
    (xdr.uint, Reader.boolean, True, "00000001"),
    (xdr.uint, Reader.boolean, False, "00000000"),
    (xdr.opaque, Reader.opaque, b"", "00000000"),
    (xdr.opaque, Reader.opaque, b"a", "00000001 61000000"),
    (xdr.opaque, Reader.opaque, b"abc", "00000003 61626300"),
    (xdr.opaque, Reader.opaque, b"abcd", "00000004 61626364"),
    (xdr.opaque, Reader.opaque, b"abcde", "00000005 61626364 65000000"),
    (xdr.string, Reader.string, "", "00000000"),
    (xdr.string, Reader.string, "udp", "00000003 75647000"),
    (xdr.string, Reader.string, "é", "00000002 c3a90000"),
    (xdr.string, Reader.string, "\udcff", "00000001 ff000000"),
]

#: The longest data that each reader takes.
LIMITS = ((Reader.opaque, xdr.MAX_OPAQUE), (Reader.string, xdr.MAX_STRING))


class XdrTests(SynchronousTestCase):
    """Every type, both ways."""

    def test_encode(self) -> None:
        """Values become their bytes."""
        for encode, _, value, data in PAIRS:
            self.assertEqual(encode(value), bytes.fromhex(data))

    def test_read(self) -> None:
        """Bytes become their values, and what is behind them is left."""
        for _, read, value, data in PAIRS:
            reader = Reader(bytes.fromhex(data) + b"rest")
            self.assertEqual(read(reader), value)
            self.assertEqual(reader.rest(), b"rest")

    def test_truncated(self) -> None:
        """Bytes that end early are refused, wherever they end."""
        for _, read, _, data in PAIRS:
            whole = bytes.fromhex(data)
            for end in range(len(whole)):
                with self.assertRaises(XdrError):
                    read(Reader(whole[:end]))

    def test_start(self) -> None:
        """A reader may start within its data."""
        self.assertEqual(Reader(b"head\0\0\0\7rest", 4).uint(), 7)

    def test_failure_takes_nothing(self) -> None:
        """An integer that is not whole stays where it is."""
        reader = Reader(b"\0\0\0")
        self.assertRaises(XdrError, reader.uint)
        self.assertEqual(reader.rest(), b"\0\0\0")

    def test_limits(self) -> None:
        """Data of the largest size is taken, longer data refused."""
        for read, limit in LIMITS:
            self.assertEqual(len(read(Reader(xdr.opaque(b"a" * limit)))), limit)
            with self.assertRaisesRegex(XdrError, f"{limit + 1} bytes announced, at most {limit}"):
                read(Reader(xdr.opaque(b"a" * (limit + 1))))

    def test_announced_only(self) -> None:
        """A size beyond the limit is refused for itself, however little follows."""
        for read, limit in LIMITS:
            with self.assertRaisesRegex(XdrError, "4294967295 bytes announced"):
                read(Reader(b"\xff\xff\xff\xff"))
            with self.assertRaisesRegex(XdrError, "ends within"):
                read(Reader(xdr.uint(limit)))

    def test_own_limit(self) -> None:
        """A type may have a limit of its own."""
        self.assertEqual(Reader(xdr.opaque(b"1234")).opaque(4), b"1234")
        self.assertRaises(XdrError, Reader(xdr.opaque(b"12345")).opaque, 4)
        self.assertRaises(XdrError, Reader(xdr.string("12345")).string, 4)

    def test_boolean(self) -> None:
        """A boolean is 0 or 1, and nothing else."""
        for value in (2, 0xFFFF_FFFF):
            self.assertRaises(XdrError, Reader(xdr.uint(value)).boolean)

    def test_padding_is_ignored(self) -> None:
        """Padding has to be there, not to be zero."""
        self.assertEqual(Reader(b"\0\0\0\1a\1\2\3").opaque(), b"a")

    def test_sequence(self) -> None:
        """Every item of a list is announced, and so is its end."""
        whole = bytes.fromhex("00000001 00000007 00000001 00000008 00000000")
        self.assertEqual(xdr.sequence([]), bytes(4))
        self.assertEqual(xdr.sequence([xdr.uint(7), xdr.uint(8)]), whole)
        self.assertEqual(Reader(whole).sequence(Reader.uint), (7, 8))
        self.assertEqual(Reader(bytes(4)).sequence(Reader.uint), ())
        for end in range(len(whole)):
            self.assertRaises(XdrError, Reader(whole[:end]).sequence, Reader.uint)


class XdrProperties(SynchronousTestCase):
    """What holds for all values and all bytes."""

    @PROPERTY
    @given(st.lists(UINTS | st.binary(max_size=40) | st.text(max_size=20)))
    def test_round_trip(self, values: list[int | bytes | str]) -> None:
        """Any values, one behind the other, are read as they were written."""
        kinds: dict[type, tuple[Callable[[Any], bytes], Callable[[Reader], Any]]] = {
            int: (xdr.uint, Reader.uint),
            bytes: (xdr.opaque, Reader.opaque),
            str: (xdr.string, Reader.string),
        }
        data = b"".join(kinds[type(value)][0](value) for value in values)
        reader = Reader(data)
        self.assertEqual([kinds[type(value)][1](reader) for value in values], values)
        self.assertEqual(reader.rest(), b"")
        self.assertEqual(len(data) % 4, 0)

    @PROPERTY
    @given(st.binary(max_size=40))
    def test_bytes_survive_as_a_string(self, data: bytes) -> None:
        """A string that is not UTF-8 is the same bytes again."""
        self.assertEqual(xdr.string(Reader(xdr.opaque(data)).string()), xdr.opaque(data))

    @PROPERTY
    @given(
        st.binary(max_size=64),
        st.lists(st.sampled_from((Reader.uint, Reader.opaque, Reader.string)), max_size=8),
    )
    def test_total(self, data: bytes, reads: list[Callable[[Reader], object]]) -> None:
        """Any bytes are read, or refused with XdrError."""
        reader = Reader(data)
        for read in reads:
            before = reader.rest()
            try:
                read(reader)
            except XdrError:
                break
            self.assertTrue(before.endswith(reader.rest()))
            self.assertLess(len(reader.rest()), len(before))
