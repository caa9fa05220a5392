"""Record marking: whole, byte by byte, in any split; and its limits."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import BrokenStream
from portmapd.oncrpc.record import MAX_FRAGMENTS, MAX_RECORD, RecordReader, mark, record_mark
from tests.support.rpc_samples import PROPERTY


def fragment(data: bytes, last: bool = False) -> bytes:
    """*data* as a fragment."""
    return (len(data) | (last << 31)).to_bytes(4, "big") + data


def record(*parts: bytes) -> bytes:
    """A record in these fragments."""
    return b"".join(map(fragment, parts[:-1])) + fragment(parts[-1], last=True)


def read(reader: RecordReader, pieces: Iterable[bytes]) -> tuple[list[bytes], str]:
    """The records in *pieces*, and what broke the stream behind them; empty if nothing did."""
    records: list[bytes] = []
    try:
        for piece in pieces:
            records.extend(reader.feed(piece))
    except BrokenStream as fault:
        return records, str(fault)
    return records, ""


def single(data: bytes) -> list[bytes]:
    """*data* byte by byte."""
    return [data[at : at + 1] for at in range(len(data))]


#: Streams and the records in them.
STREAMS = [
    (mark(b"call"), [b"call"]),
    (mark(b""), [b""]),
    (mark(b"one") + mark(b"three") + mark(b""), [b"one", b"three", b""]),
    (record(b"in ", b"", b"three"), [b"in three"]),
    (record(b"", b""), [b""]),
    (record(b"a", b"b") + mark(b"c") + record(b"d", b"e", b"f"), [b"ab", b"c", b"def"]),
]


class RecordTests(SynchronousTestCase):
    """Records, however their bytes arrive."""

    def test_mark(self) -> None:
        """A record of one fragment has the highest bit set before its size."""
        self.assertEqual(mark(b"call"), b"\x80\0\0\4call")
        self.assertEqual(record_mark(b"call"), b"\x80\0\0\4")

    def test_whole(self) -> None:
        """A stream that arrives at once gives all its records."""
        for stream, records in STREAMS:
            self.assertEqual(read(RecordReader(), [stream]), (records, ""))

    def test_byte_by_byte(self) -> None:
        """A stream that arrives byte by byte gives the same records."""
        for stream, records in STREAMS:
            self.assertEqual(read(RecordReader(), single(stream)), (records, ""))

    def test_split_anywhere(self) -> None:
        """Neither does it matter where a stream is split in three."""
        for stream, records in STREAMS:
            for first in range(len(stream) + 1):
                for second in range(first, len(stream) + 1):
                    pieces = [stream[:first], stream[first:second], stream[second:]]
                    self.assertEqual(read(RecordReader(), pieces), (records, ""))

    def test_each_in_its_time(self) -> None:
        """A record is there with its last byte, not later."""
        reader = RecordReader()
        *before, last = single(record(b"a", b"b"))
        self.assertEqual(read(reader, before), ([], ""))
        self.assertEqual(read(reader, [last]), ([b"ab"], ""))

    def test_between(self) -> None:
        """Between two records, and only there, the reader says so."""
        reader = RecordReader()
        self.assertTrue(reader.is_between)
        *before, last = single(record(b"a", b"b"))
        for piece in before:
            self.assertEqual(list(reader.feed(piece)), [])
            self.assertFalse(reader.is_between)
        self.assertEqual(list(reader.feed(last)), [b"ab"])
        self.assertTrue(reader.is_between)

    def test_unmarked_end(self) -> None:
        """A final fragment without its bit makes a record when the stream ends behind it."""
        for stream, whole in (
            (fragment(b"a"), b"a"),
            (fragment(b"a") + fragment(b"bc"), b"abc"),
            (mark(b"one") + fragment(b"two"), b"two"),
            (fragment(b""), b""),
        ):
            reader = RecordReader()
            read(reader, single(stream))
            self.assertEqual(reader.end(), whole)
            self.assertTrue(reader.is_between)

    def test_other_ends(self) -> None:
        """A stream that ends between records, or within a mark or a fragment, makes none."""
        for stream in (b"", mark(b"one"), b"\0", fragment(b"a") + b"\0", fragment(b"abc")[:-1]):
            reader = RecordReader()
            read(reader, single(stream))
            self.assertIsNone(reader.end())


class LimitTests(SynchronousTestCase):
    """What a record may be at most."""

    def test_longest(self) -> None:
        """A record of the largest size is taken, whole and in fragments."""
        longest = bytes(MAX_RECORD)
        self.assertEqual(read(RecordReader(), [mark(longest)]), ([longest], ""))
        parts = record(longest[:9_000], longest[9_000:])
        self.assertEqual(read(RecordReader(), [parts]), ([longest], ""))

    def test_too_long(self) -> None:
        """A longer one is refused from its header, before any of it has come."""
        fault = f"a record of more than {MAX_RECORD} bytes"
        for size in (MAX_RECORD + 1, 0x7FFF_FFFF):
            for last in (0, 1 << 31):
                header = (size | last).to_bytes(4, "big")
                self.assertEqual(read(RecordReader(), [header]), ([], fault))

    def test_too_long_in_fragments(self) -> None:
        """The fragments of a record count together, and from the header of the last."""
        reader = RecordReader(limit=10)
        self.assertEqual(read(reader, [fragment(b"123456")]), ([], ""))
        self.assertEqual(read(reader, [b"\x80\0\0\5"]), ([], "a record of more than 10 bytes"))

    def test_limit_is_of_each_record(self) -> None:
        """Many records may be longer than one."""
        reader = RecordReader(limit=4, fragments=2)
        stream = (mark(b"1234") + record(b"12", b"34")) * 3
        self.assertEqual(read(reader, [stream]), ([b"1234"] * 6, ""))

    def test_most_fragments(self) -> None:
        """A record in as many fragments as are allowed is taken, empty ones counted."""
        for part in (b"", b"x"):
            stream = record(*[part] * MAX_FRAGMENTS)
            self.assertEqual(read(RecordReader(), [stream]), ([part * MAX_FRAGMENTS], ""))

    def test_too_many_fragments(self) -> None:
        """One more is refused, from its header."""
        reader = RecordReader()
        self.assertEqual(read(reader, [fragment(b"")] * MAX_FRAGMENTS), ([], ""))
        fault = f"a record of more than {MAX_FRAGMENTS} fragments"
        self.assertEqual(read(reader, [b"\x80\0\0\0"]), ([], fault))

    def test_work_is_linear(self) -> None:
        """A long fragment in small pieces is not copied with each of them."""
        size = 1 << 24
        reader = RecordReader(limit=size)
        read(reader, [record_mark(bytes(size))])
        read(reader, [bytes(size // 2)])
        # Copying 8 MiB so often would take minutes.
        read(reader, [b"x"] * 200_000)
        records, _ = read(reader, [bytes(size // 2 - 200_000)])
        self.assertEqual([len(whole) for whole in records], [size])

    def test_records_before_a_broken_one(self) -> None:
        """What came whole before the stream broke is delivered."""
        stream = mark(b"one") + mark(b"two") + b"\xff\xff\xff\xff" + mark(b"three")
        records, fault = read(RecordReader(), [stream])
        self.assertEqual(records, [b"one", b"two"])
        self.assertIn("more than", fault)


PARTS = st.lists(st.binary(max_size=12), min_size=1, max_size=4)


@st.composite
def split_streams(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Records, and their stream in any pieces."""
    records = draw(st.lists(PARTS, max_size=5))
    stream = b"".join(record(*parts) for parts in records)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    return [b"".join(parts) for parts in records], pieces


class RecordProperties(SynchronousTestCase):
    """What holds for all streams."""

    @PROPERTY
    @given(split_streams())
    def test_split_invariant(self, sample: tuple[list[bytes], list[bytes]]) -> None:
        """Any records in any fragments and any split are read as they were written."""
        records, pieces = sample
        reader = RecordReader()
        self.assertEqual(read(reader, pieces), (records, ""))
        self.assertTrue(reader.is_between)

    @PROPERTY
    @given(st.binary(max_size=60), st.integers(0, 12), st.integers(1, 4))
    def test_total(self, stream: bytes, limit: int, fragments: int) -> None:
        """Any bytes give records within the limits, then at most BrokenStream, in any split."""
        records, fault = read(RecordReader(limit, fragments), [stream])
        self.assertTrue(all(len(r) <= limit for r in records))
        self.assertEqual(read(RecordReader(limit, fragments), single(stream)), (records, fault))

    @PROPERTY
    @given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
    def test_total_of_fragments(self, shapes: list[tuple[int, bool]]) -> None:
        """Any fragments do so, too."""
        stream = b"".join(fragment(bytes(size), last) for size, last in shapes)
        whole = read(RecordReader(6, 3), [stream])
        self.assertEqual(read(RecordReader(6, 3), single(stream)), whole)
