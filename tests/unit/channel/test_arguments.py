"""The types of a box's values: bytes and values, refusals, and Twisted's own types."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.arguments import INTEGER, UNICODE, Argument, Rows, Type, list_of
from portmapd.channel.box import encode_box
from portmapd.errors import BadArguments
from tests.support.rpc_samples import PROPERTY

NAMES = list_of(UNICODE)
NUMBERS = list_of(INTEGER)
NAME, PORT = Argument("name", UNICODE), Argument("port", UNICODE)
FLAGS = Argument("flags", INTEGER)
MORE = Argument("more", UNICODE, optional=True)
ROWS = Rows((NAME, PORT, FLAGS))

#: Types, values, and their bytes.
PAIRS: list[tuple[Type | Rows, Any, bytes]] = [
    (INTEGER, 0, b"0"),
    (INTEGER, 4_294_967_296, b"4294967296"),
    (INTEGER, -1, b"-1"),
    (UNICODE, "", b""),
    (UNICODE, "é", b"\xc3\xa9"),
    (NAMES, [], b""),
    (NAMES, ["a", "", "bc"], b"\0\1a\0\0\0\2bc"),
    (NUMBERS, [7, 10], b"\0\0017\0\00210"),
    (ROWS, [], b""),
    (ROWS, [("a", "80", 0)], b"\0\4name\0\1a\0\4port\0\00280\0\5flags\0\0010\0\0"),
    (
        ROWS,
        [("", "/s", 3), ("é", "", 1)],
        b"\0\4name\0\0\0\4port\0\2/s\0\5flags\0\0013\0\0"
        b"\0\4name\0\2\xc3\xa9\0\4port\0\0\0\5flags\0\0011\0\0",
    ),
]

#: Types, bytes that are not a value of theirs, and what the refusal says.
REFUSED: list[tuple[Type | Rows, bytes, str]] = [
    (INTEGER, b"", "not decimal digits"),
    (INTEGER, b"0x10", "not decimal digits"),
    (INTEGER, b"1.5", "not decimal digits"),
    (INTEGER, b"one", "not decimal digits"),
    (INTEGER, b" 1", "not decimal digits"),
    (INTEGER, b"+1", "not decimal digits"),
    (INTEGER, b"1_0", "not decimal digits"),
    (INTEGER, b"\xd9\xa1", "not decimal digits"),
    (INTEGER, b"9" * 65_535, ""),
    (UNICODE, b"\xff", "utf-8"),
    (UNICODE, b"\xed\xa0\x80", "utf-8"),
    (NAMES, b"\0", "ends too early"),
    (NAMES, b"\0\2a", "ends too early"),
    (NAMES, b"\0\1\xff", "utf-8"),
    (NUMBERS, b"\0\1a", "not decimal digits"),
    (NUMBERS, b"\0\0", "not decimal digits"),
    (ROWS, b"\0\0", "name is missing"),
    (ROWS, b"\0\4name\0\1a\0\0", "port is missing"),
    (ROWS, b"\0\4name\0\1\xff\0\4port\0\0\0\5flags\0\0010\0\0", "name cannot be read"),
    (ROWS, b"\0\4name\0\1a\0\4port\0\00280\0\5flags\0\1x\0\0", "flags cannot be read"),
    (ROWS, b"\0\4name\0\1a\0\4port\0\00280\0\5flags\0\0\0\0", "flags cannot be read"),
]


class TypeTests(SynchronousTestCase):
    """Values and bytes."""

    def test_encoded(self) -> None:
        """A value has these bytes."""
        for kind, value, data in PAIRS:
            self.assertEqual(kind.encode(value), data)

    def test_decoded(self) -> None:
        """The bytes have that value."""
        for kind, value, data in PAIRS:
            self.assertEqual(kind.decode(data), value)

    def test_refused(self) -> None:
        """What is not a value of the type is refused, with what is wrong."""
        for kind, data, why in REFUSED:
            argument = Argument("it", kind)
            error = self.assertRaises(BadArguments, argument.take, {b"it": data})
            self.assertIn(why, str(error))

    def test_truncated(self) -> None:
        """A list that ends anywhere but behind an item is refused."""
        for kind, value, data in PAIRS:
            if not isinstance(value, list):
                continue
            argument = Argument("it", kind)
            ends = {len(kind.encode(value[:count])) for count in range(len(value) + 1)}
            for end in set(range(len(data))) - ends:
                self.assertRaises(BadArguments, argument.take, {b"it": data[:end]})

    def test_columns_in_any_order(self) -> None:
        """A row's columns may come in any order, with others among them."""
        row = {b"flags": b"1", b"more": b"x", b"port": b"80", b"name": b"a"}
        other = {b"name": b"b", b"port": b"81", b"flags": b"2"}
        data = encode_box(row) + encode_box(other) + encode_box({**other, b"_": b""})
        rows = [("a", "80", 1), ("b", "81", 2), ("b", "81", 2)]
        self.assertEqual(ROWS.decode(data), rows)

    def test_encoded_rows_are_taken(self) -> None:
        """Rows that are bytes already are taken as they are."""
        row = ("a", "80", 0)
        self.assertEqual(ROWS.encode(ROWS.encode_row(row) * 2), ROWS.encode([row, row]))


class ArgumentTests(SynchronousTestCase):
    """Values in a box."""

    def test_taken(self) -> None:
        """An argument is found by its name; others do not matter."""
        box = {b"name": b"a", b"port": b"80"}
        self.assertEqual([NAME.take(box), PORT.take(box)], ["a", "80"])

    def test_missing(self) -> None:
        """One that is missing is named, unless it may be left out."""
        self.assertEqual(
            str(self.assertRaises(BadArguments, FLAGS.take, {})),
            "flags is missing",
        )
        self.assertIsNone(MORE.take({}))
        self.assertEqual(MORE.take({b"more": b""}), "")

    def test_named_when_refused(self) -> None:
        """One that is not of its type is named."""
        error = self.assertRaises(BadArguments, FLAGS.take, {b"flags": b"x"})
        self.assertIn("flags cannot be read", str(error))


#: Our types, Twisted's, and values of them.
NUMBER_VALUES = st.integers(-(1 << 70), 1 << 70)
TEXTS = st.text(max_size=12)
TYPES: list[tuple[Type | Rows, amp.Argument, st.SearchStrategy[Any]]] = [
    (INTEGER, amp.Integer(), NUMBER_VALUES),
    (UNICODE, amp.Unicode(), TEXTS),
    (NUMBERS, amp.ListOf(amp.Integer()), st.lists(NUMBER_VALUES, max_size=5)),
    (NAMES, amp.ListOf(amp.Unicode()), st.lists(TEXTS, max_size=5)),
]
#: A row's columns as Twisted's AmpList has them.
COLUMNS: list[tuple[bytes, amp.Argument]] = [
    (b"name", amp.Unicode()),
    (b"port", amp.Unicode()),
    (b"flags", amp.Integer()),
]
ROW_VALUES = st.lists(st.tuples(TEXTS, TEXTS, NUMBER_VALUES), max_size=5)


class TypeProperties(SynchronousTestCase):
    """What holds for all values."""

    @PROPERTY
    @given(st.data())
    def test_twisted_types(self, data: st.DataObject) -> None:
        """A value has the bytes that Twisted gives it, and those have that value."""
        kind, theirs, values = data.draw(st.sampled_from(TYPES))
        value = data.draw(values)
        encoded = kind.encode(value)
        self.assertEqual(encoded, theirs.toString(value))
        self.assertEqual(kind.decode(encoded), value)
        self.assertEqual(theirs.fromString(encoded), value)

    @PROPERTY
    @given(ROW_VALUES, st.permutations(COLUMNS))
    def test_twisted_rows(
        self, rows: list[tuple[Any, ...]], columns: list[tuple[bytes, amp.Argument]]
    ) -> None:
        """Twisted's AmpList reads our rows, and we its, whatever the order of the columns."""
        names = [column.name for column in ROWS.columns]
        objects = [dict(zip(names, row, strict=True)) for row in rows]
        theirs = amp.AmpList(COLUMNS)
        self.assertEqual(theirs.fromStringProto(ROWS.encode(rows), None), objects)
        self.assertEqual(ROWS.decode(theirs.toStringProto(objects, None)), rows)
        boxes = [
            {key: kind.toString(each[key.decode()]) for key, kind in columns} for each in objects
        ]
        self.assertEqual(ROWS.decode(b"".join(map(encode_box, boxes))), rows)

    @PROPERTY
    @given(st.sampled_from([kind for kind, _, _ in PAIRS]), st.binary(max_size=40))
    def test_total(self, kind: Type | Rows, data: bytes) -> None:
        """Any bytes are a value, or refused."""
        try:
            Argument("it", kind).take({b"it": data})
        except BadArguments as error:
            self.assertNotEqual(str(error), "")

    @PROPERTY
    @given(ROW_VALUES, st.lists(st.integers(0, 200), max_size=3), st.binary(max_size=3))
    def test_total_almost(self, rows: list[tuple[Any, ...]], cuts: list[int], patch: bytes) -> None:
        """So are bytes that were almost rows."""
        whole = ROWS.encode(rows)
        edges = [0, *sorted(cuts), len(whole)]
        data = patch.join(whole[a:b] for a, b in pairwise(edges))
        try:
            Argument("it", ROWS).take({b"it": data})
        except BadArguments as error:
            self.assertNotEqual(str(error), "")
