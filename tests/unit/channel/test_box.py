"""AMP boxes: whole, byte by byte, in any split; their limits; and Twisted's reading of them."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.box import (
    MAX_BOX,
    MAX_PAIRS,
    MAX_VALUE,
    Box,
    BoxReader,
    encode_box,
    encode_pairs,
)
from portmapd.errors import BrokenStream
from tests.support.rpc_samples import PROPERTY

#: Bytes, and the boxes in them.
PAIRS: list[tuple[bytes, list[Box]]] = [
    (b"", []),
    (b"\0\0", [{}]),
    (b"\0\1a\0\0\0\0", [{b"a": b""}]),
    (b"\0\4_ask\0\0011\0\10_command\0\7Unwatch\0\0", [{b"_ask": b"1", b"_command": b"Unwatch"}]),
    (b"\0\1a\0\2\0\0\0\0", [{b"a": b"\0\0"}]),
    (b"\0\1a\0\1x\0\0\0\0\0\1b\0\0\0\0", [{b"a": b"x"}, {}, {b"b": b""}]),
    (b"\0\xff" + b"k" * 255 + b"\1\0" + b"v" * 256 + b"\0\0", [{b"k" * 255: b"v" * 256}]),
]

#: What begins well and breaks.
BROKEN: list[tuple[bytes, str]] = [
    (b"\1\0", "a key of 256 bytes"),
    (b"\xff\xff", "a key of 65535 bytes"),
    (b"\0\1a\0\1xGET ", "a key of 18245 bytes"),
    (b"\0\1a\0\0" * (MAX_PAIRS + 1), "more than 32 pairs"),
    (b"".join(b"\0\2%02d\0\0" % n for n in range(MAX_PAIRS + 1)), "more than 32 pairs"),
]


def read(reader: BoxReader, pieces: Iterable[bytes]) -> tuple[list[Box], str]:
    """The boxes in *pieces*, and what broke the stream behind them; empty if nothing did."""
    boxes: list[Box] = []
    try:
        for piece in pieces:
            boxes.extend(reader.feed(piece))
    except BrokenStream as fault:
        return boxes, str(fault)
    return boxes, ""


def single(data: bytes) -> list[bytes]:
    """*data* byte by byte."""
    return [data[at : at + 1] for at in range(len(data))]


def sized(size: int) -> bytes:
    """A box of exactly so many bytes."""
    values = size - 2 - 3 * 5
    first, second = min(values, MAX_VALUE), min(max(values - MAX_VALUE, 0), MAX_VALUE)
    made = encode_box(
        {b"a": bytes(first), b"b": bytes(second), b"c": bytes(values - first - second)}
    )
    assert len(made) == size
    return made


class BoxTests(SynchronousTestCase):
    """Boxes, however their bytes arrive."""

    def test_encoded(self) -> None:
        """Boxes are written as they are read."""
        for stream, boxes in PAIRS:
            self.assertEqual(b"".join(map(encode_box, boxes)), stream)

    def test_whole(self) -> None:
        """A stream that arrives at once gives all its boxes."""
        for stream, boxes in PAIRS:
            self.assertEqual(read(BoxReader(), [stream]), (boxes, ""))

    def test_byte_by_byte(self) -> None:
        """A stream that arrives byte by byte gives the same boxes."""
        for stream, boxes in PAIRS:
            self.assertEqual(read(BoxReader(), single(stream)), (boxes, ""))

    def test_split_anywhere(self) -> None:
        """Neither does it matter where a stream is split in three."""
        for stream, boxes in PAIRS[:-1]:
            for first in range(len(stream) + 1):
                for second in range(first, len(stream) + 1):
                    pieces = [stream[:first], stream[first:second], stream[second:]]
                    self.assertEqual(read(BoxReader(), pieces), (boxes, ""))

    def test_each_in_its_time(self) -> None:
        """A box is there with its last byte, not later."""
        for stream, boxes in PAIRS[1:]:
            reader = BoxReader()
            early, _ = read(reader, single(stream)[:-1])
            self.assertEqual(early, boxes[:-1])
            self.assertEqual(read(reader, [stream[-1:]]), (boxes[-1:], ""))

    def test_last_of_a_key(self) -> None:
        """Of two values of one key the later counts, as in Twisted."""
        stream = encode_pairs([(b"a", b"1"), (b"a", b"2")])
        self.assertEqual(read(BoxReader(), [stream]), ([{b"a": b"2"}], ""))
        self.assertEqual(amp.parseString(stream), [{b"a": b"2"}])


class LimitTests(SynchronousTestCase):
    """What is not a box, or too large a one."""

    def test_broken(self) -> None:
        """It breaks the stream at once, behind the boxes that came before."""
        before = b"\0\1a\0\1x\0\0"
        for stream, fault in BROKEN:
            for pieces in ([before + stream], single(before + stream)):
                boxes, said = read(BoxReader(), pieces)
                self.assertEqual(boxes, [{b"a": b"x"}])
                self.assertIn(fault, said)

    def test_most_pairs(self) -> None:
        """As many pairs as may be are taken."""
        box = {b"%d" % number: b"" for number in range(MAX_PAIRS)}
        self.assertEqual(read(BoxReader(), [encode_box(box)]), ([box], ""))

    def test_largest(self) -> None:
        """The largest box is taken, a larger one is not, however it arrives."""
        for size, taken in ((MAX_BOX, 1), (MAX_BOX + 1, 0), (MAX_BOX + 40_000, 0)):
            stream = sized(size)
            for step in (size, 16_384, 1_000):
                pieces = [stream[at : at + step] for at in range(0, size, step)]
                boxes, said = read(BoxReader(), pieces)
                self.assertEqual(len(boxes), taken)
                self.assertEqual("more than 132096 bytes" in said, not taken)

    def test_enough(self) -> None:
        """Two of the largest values fit, with what names them."""
        box = {
            b"_ask": b"ffff",
            b"_command": b"Register",
            b"services": bytes(MAX_VALUE),
            b"x" * 255: bytes(MAX_VALUE),
        }
        self.assertEqual(read(BoxReader(), [encode_box(box)]), ([box], ""))

    def test_never_ends(self) -> None:
        """A box that does not end breaks the stream as soon as it is larger than the limit."""
        reader = BoxReader()
        endless = (b"\0\1a\xff\xff" + bytes(MAX_VALUE)) * 2
        self.assertEqual(read(reader, [endless[:MAX_BOX]]), ([], ""))
        self.assertIn("more than 132096 bytes", read(reader, [b"\0\1a\xff\xff" + bytes(2000)])[1])

    def test_not_encoded(self) -> None:
        """A key or a value that no box can hold is not written."""
        for key, value in ((b"", b""), (b"k" * 256, b""), (b"k", bytes(MAX_VALUE + 1))):
            self.assertRaises(ValueError, encode_box, {key: value})


class TwistedTests(SynchronousTestCase):
    """Twisted's boxes are ours."""

    def test_read_by_twisted(self) -> None:
        """Twisted reads what we write."""
        for stream, boxes in PAIRS:
            self.assertEqual(amp.parseString(stream), boxes)

    def test_written_by_twisted(self) -> None:
        """We read what Twisted writes."""
        for _, boxes in PAIRS:
            stream = b"".join(amp.Box(box).serialize() for box in boxes)
            self.assertEqual(read(BoxReader(), [stream]), (boxes, ""))


KEYS = st.binary(min_size=1, max_size=6)
BOXES = st.dictionaries(KEYS, st.binary(max_size=12), max_size=5)
#: Bytes that are boxes, almost boxes, or no boxes.
STREAMS = st.lists(
    BOXES.map(encode_box)
    | st.binary(max_size=5)
    | st.sampled_from((b"\0\0", b"\0\1a", b"\0\1a\0\2", b"\0\1a\0\0", b"\1\0", b"\0\1a\0\x40")),
    max_size=8,
).map(b"".join)


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream in pieces."""
    stream = draw(STREAMS)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]


class BoxProperties(SynchronousTestCase):
    """What holds for all boxes."""

    @PROPERTY
    @given(st.lists(BOXES, max_size=4))
    def test_round_trip(self, boxes: list[Box]) -> None:
        """Boxes survive being written and read, here and by Twisted."""
        stream = b"".join(map(encode_box, boxes))
        self.assertEqual(read(BoxReader(), [stream]), (boxes, ""))
        self.assertEqual(amp.parseString(stream), boxes)

    @PROPERTY
    @given(split_streams(), st.integers(8, 64), st.integers(1, 4))
    def test_splits_do_not_matter(self, pieces: list[bytes], limit: int, pairs: int) -> None:
        """Any bytes give the same boxes, and break or do not, in whatever pieces they arrive."""
        whole, fault = read(BoxReader(limit, pairs), [b"".join(pieces)])
        boxes, said = read(BoxReader(limit, pairs), pieces)
        self.assertEqual((boxes, bool(said)), (whole, bool(fault)))

    @PROPERTY
    @given(STREAMS, st.integers(8, 64), st.integers(1, 4))
    def test_limits_hold(self, stream: bytes, limit: int, pairs: int) -> None:
        """No box beyond the limits is given."""
        for box in read(BoxReader(limit, pairs), single(stream))[0]:
            self.assertLessEqual(len(encode_box(box)), limit)
            self.assertLessEqual(len(box), pairs)
