"""The commands of the local channel: their boxes, as bytes and as Twisted has them."""

from typing import Any

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.channel.arguments import Argument, Rows
from portmapd.channel.box import Box, BoxReader
from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    ClusterUnreachable,
    ExecutableUnknown,
    InternalError,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NameLost,
    NoCluster,
    NotAllowed,
    NotRegistered,
    Refusal,
    ReservedName,
    RestartFailed,
    UnknownCommand,
    UnsupportedVersion,
)
from tests.support import stock_amp as stock

#: The errors of the channel, by their names.
CODES: dict[str, type[Refusal]] = {
    "UNSUPPORTED_VERSION": UnsupportedVersion,
    "INVALID_SERVICE": InvalidService,
    "RESERVED_NAME": ReservedName,
    "ALREADY_REGISTERED": AlreadyRegistered,
    "LIMIT_EXCEEDED": LimitExceeded,
    "EXECUTABLE_UNKNOWN": ExecutableUnknown,
    "NOT_REGISTERED": NotRegistered,
    "INVALID_MAPPING": InvalidMapping,
    "NO_CLUSTER": NoCluster,
    "CLUSTER_UNREACHABLE": ClusterUnreachable,
    "NAME_LOST": NameLost,
    "NOT_ALLOWED": NotAllowed,
    "RESTART_FAILED": RestartFailed,
    "UNKNOWN_COMMAND": UnknownCommand,
    "BAD_ARGUMENTS": BadArguments,
    "INTERNAL_ERROR": InternalError,
}

#: Values of every argument, by its name.
VALUES: dict[str, Any] = {
    "version": 1,
    "instance": "b1946ac9",
    "limit": 10,
    "uid": 104,
    "pid": 7,
    "names": ["printer.example.com"],
    "users": [0, 104],
    "pids": [7],
    "after": "1.2",
    "more": "3.4",
    "release": "1.0",
    "registered": 5,
    "mapped": 6,
    "behind": 7,
    "hosts": ["one", "two"],
    "host": "one",
    "address": "192.0.2.1",
    "state": "joined",
    "why": "",
    "age": 3,
    "revision": 1 << 40,
    "lease": (1 << 63) - 1,
    "left": 9,
}
PLACE = {"host": "one", "address": "192.0.2.1"}
SERVICE = {"name": "a", "user": 104, "pid": 7, "port": "80", "exe": "/bin/a", **PLACE}
MAPPING = {
    "program": 9,
    "version": 2,
    "netid": "tcp",
    "address": "::1.0.80",
    "owner": "104",
    "host": "one",
}
NEW_SERVICE = {"name": "a", "port": "80", "flags": 3}
ROWS: dict[str, list[dict[str, Any]]] = {
    "services": [SERVICE | NEW_SERVICE],
    "mappings": [MAPPING],
    "machines": [{**PLACE, "release": "1.0", "services": 3}],
    "members": [{"url": "http://192.0.2.9:2379", "state": "asked"}],
}


def boxes(data: bytes) -> list[Box]:
    """The boxes that *data* is."""
    return list(BoxReader().feed(data))


def ours(arguments: tuple[Argument, ...]) -> dict[str, Any]:
    """Values of the arguments, as we have them: rows are tuples."""
    return {
        a.name: [tuple(row[column.name] for column in a.kind.columns) for row in ROWS[a.name]]
        if isinstance(a.kind, Rows)
        else VALUES[a.name]
        for a in arguments
    }


def theirs(fields: stock.Fields) -> dict[str, Any]:
    """Values of the arguments, as Twisted has them: rows are dictionaries."""
    return {
        key.decode(): [
            {name.decode(): row[name.decode()] for name, _ in kind.subargs}
            for row in ROWS[key.decode()]
        ]
        if isinstance(kind, amp.AmpList)
        else VALUES[key.decode()]
        for key, kind in fields
    }


class BytesTests(SynchronousTestCase):
    """Boxes as bytes."""

    def test_ask(self) -> None:
        """A box that asks has a tag, its command and the arguments."""
        self.assertEqual(
            c.HELLO.ask(b"1", {"version": 1}),
            b"\0\4_ask\0\0011\0\10_command\0\5Hello\0\7version\0\0011\0\0",
        )
        self.assertEqual(c.UNWATCH.ask(b"", {}), b"\0\4_ask\0\0\0\10_command\0\7Unwatch\0\0")

    def test_left_out(self) -> None:
        """An argument that is None, or is not there, is left out."""
        asked = b"\0\4_ask\0\0011\0\10_command\0\5Watch\0\0"
        self.assertEqual(c.WATCH.ask(b"1", {"names": None}), asked)
        self.assertEqual(c.WATCH.ask(b"1", {}), asked)
        (box,) = boxes(c.LIST.ask(b"1", {"users": [0]}))
        self.assertEqual(c.LIST.read_arguments(box), (None, [0], None, None))

    def test_reply(self) -> None:
        """A box that answers has the tag and the answer."""
        self.assertEqual(c.UNWATCH.reply(b"2f", {}), b"\0\7_answer\0\0022f\0\0")
        self.assertEqual(
            c.LIST.reply(b"1", {"services": [("a", 0, 7, "80", "")], "more": "1.2"}),
            b"\0\7_answer\0\0011"
            b"\0\10services\0\55"
            b"\0\4name\0\1a\0\4user\0\0010\0\3pid\0\0017\0\4port\0\00280\0\3exe\0\0\0\0"
            b"\0\4more\0\0031.2\0\0",
        )

    def test_refusal(self) -> None:
        """A box that refuses has the tag, the error's name, and a sentence."""
        self.assertEqual(
            c.encode_refusal(b"1", NotRegistered("a on port 80 is not registered here")),
            b"\0\6_error\0\0011\0\13_error_code\0\16NOT_REGISTERED"
            b"\0\22_error_description\0\43a on port 80 is not registered here\0\0",
        )

    def test_events(self) -> None:
        """An event has its change and the fields; neither it nor an overflow asks for an answer."""
        self.assertEqual(
            c.encode_event("mapped", c.MAPPING_ROW, (9, 2, "tcp", "::1.0.80", "104")),
            b"\0\10_command\0\5Event\0\6change\0\6mapped\0\7program\0\0019\0\7version\0\0012"
            b"\0\5netid\0\3tcp\0\7address\0\10::1.0.80\0\5owner\0\003104\0\0",
        )
        self.assertEqual(c.OVERFLOW_BOX, b"\0\10_command\0\10Overflow\0\0")

    def test_too_long(self) -> None:
        """What does not fit a box is not written."""
        self.assertRaises(ValueError, c.WATCH.ask, b"1", {"names": ["x" * 65_534]})


class CommandTests(SynchronousTestCase):
    """The table of commands, beside Twisted's."""

    def test_names(self) -> None:
        """The table has the document's commands, and no other."""
        self.assertEqual(list(c.COMMANDS), [each.commandName for each in stock.COMMANDS])

    def test_arguments(self) -> None:
        """What Twisted asks is what we read, and what we ask is what Twisted reads."""
        for command in stock.COMMANDS:
            our = c.COMMANDS[command.commandName]
            values = theirs(command.arguments)
            box = command.makeArguments(values, None)
            self.assertEqual(our.read_arguments(box), tuple(ours(our.arguments).values()))
            (asked,) = boxes(our.ask(b"1", ours(our.arguments)))
            self.assertEqual((asked[b"_ask"], asked[b"_command"]), (b"1", command.commandName))
            self.assertEqual(command.parseArguments(amp.AmpBox(asked), None), values)

    def test_answers(self) -> None:
        """So it is with answers."""
        for command in stock.COMMANDS:
            our = c.COMMANDS[command.commandName]
            values = theirs(command.response)
            box = command.makeResponse(values, None)
            self.assertEqual(our.read_answer(box), ours(our.answer))
            (answered,) = boxes(our.reply(b"1", ours(our.answer)))
            self.assertEqual(answered[b"_answer"], b"1")
            self.assertEqual(command.parseResponse(amp.AmpBox(answered), None), values)

    def test_missing(self) -> None:
        """Every argument that may not be left out is named when it is."""
        for our in c.COMMANDS.values():
            (whole,) = boxes(our.ask(b"1", ours(our.arguments)))
            for argument in our.arguments:
                box = {key: value for key, value in whole.items() if key != argument.key}
                if argument.optional:
                    our.read_arguments(box)
                else:
                    error = self.assertRaises(BadArguments, our.read_arguments, box)
                    self.assertEqual(str(error), f"{argument.name} is missing")


class RefusalTests(SynchronousTestCase):
    """Errors in boxes."""

    def test_codes(self) -> None:
        """Every error has the document's name, and comes back as itself."""
        for code, kind in CODES.items():
            (box,) = boxes(c.encode_refusal(b"1", kind("why")))
            self.assertEqual(box[b"_error_code"], code.encode())
            again = c.read_refusal(box)
            self.assertEqual((type(again), str(again)), (kind, "why"))

    def test_each_has_one(self) -> None:
        """No error is without a name of its own."""
        self.assertEqual(set(Refusal.__subclasses__()), set(CODES.values()))

    def test_unknown_code(self) -> None:
        """An error that a later daemon may have is an internal one here."""
        for box in ({}, {b"_error_code": b"NEW", b"_error_description": b"\xff"}):
            self.assertIs(type(c.read_refusal(box)), InternalError)

    def test_long_description(self) -> None:
        """A description is cut where it gets long, but never within a character."""
        for text in ("é" * 5_000, "x" + "é" * 5_000, "\N{PRINTER}" * 5_000):
            (box,) = boxes(c.encode_refusal(b"1", InvalidService(text)))
            said = box[b"_error_description"]
            self.assertLessEqual(len(said), c.MAX_DESCRIPTION)
            self.assertGreater(len(said), c.MAX_DESCRIPTION - 4)
            self.assertTrue(text.startswith(said.decode()))
