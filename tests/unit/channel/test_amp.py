"""The channel's commands as Twisted's AMP has them, beside two other definitions of them."""

from typing import Any

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import amp as ours
from portmapd.channel import commands as c
from portmapd.channel.arguments import Argument, Rows
from portmapd.channel.box import BoxReader
from portmapd.errors import Refusal
from tests.support import stock_amp as stock

PLACE = {"host": "one", "address": "192.0.2.1"}
SERVICE = {"name": "a", "port": "80", "user": 7, "pid": 8, "exe": "/bin/ä", **PLACE}
MAPPING = {
    "program": 100,
    "version": 2,
    "netid": "tcp",
    "address": "127.0.0.1.0.9",
    "owner": "superuser",
    "host": "one",
}
#: A value for each argument.
VALUES: dict[str, Any] = {
    "version": 1,
    "services": [{**SERVICE, "flags": 3}],
    "mappings": [MAPPING],
    "names": ["a", "ü"],
    "users": [1, 2],
    "pids": [3],
    "after": "1.2",
    "more": "3.4",
    "release": "1.0",
    "registered": 5,
    "mapped": 6,
    "behind": 7,
    "instance": "b1946ac9",
    "limit": 10,
    "uid": 104,
    "pid": 4711,
    "hosts": ["one", "two"],
    "machines": [{**PLACE, "release": "1.0", "services": 3}],
    "members": [{"url": "http://192.0.2.9:2379", "state": "asked"}],
    **PLACE,
    "state": "joined",
    "why": "ü",
    "age": 3,
    "revision": 1 << 40,
    "lease": (1 << 63) - 1,
    "left": 9,
}


def shape(fields: ours.Fields) -> list[Any]:
    """Names, types and options of the fields of a command."""
    return [(name, *_shape(argument)) for name, argument in fields]


def _shape(argument: amp.Argument) -> tuple[Any, ...]:
    if isinstance(argument, amp.AmpList):
        inner: Any = shape(argument.subargs)
    elif isinstance(argument, amp.ListOf):
        inner = _shape(argument.elementType)
    else:
        inner = None
    return type(argument), argument.optional, inner


def rows(kind: Rows, values: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The values as the codec takes them."""
    return [tuple(row[column.name] for column in kind.columns) for row in values]


def values_of(arguments: tuple[Argument, ...]) -> dict[str, Any]:
    """A value for each of these arguments, as the codec takes them."""
    return {
        a.name: rows(a.kind, VALUES[a.name]) if isinstance(a.kind, Rows) else VALUES[a.name]
        for a in arguments
    }


class DocumentTests(SynchronousTestCase):
    """Beside the definition that was written by the protocol's document."""

    def test_fields(self) -> None:
        """Every command has the same name, arguments and answer."""
        told = ("Event", "Overflow", "ClusterOverflow", "Lost")
        mine_all: list[Any] = [*ours.COMMANDS, *[getattr(ours, name) for name in told]]
        others: list[Any] = [*stock.COMMANDS, *[getattr(stock, name) for name in told]]
        for mine, other in zip(mine_all, others, strict=True):
            self.assertEqual(mine.commandName, other.commandName)
            self.assertEqual(mine.requiresAnswer, other.requiresAnswer)
            self.assertCountEqual(shape(mine.arguments), shape(other.arguments))
            self.assertEqual(shape(mine.response), shape(other.response))

    def test_errors(self) -> None:
        """Every command has the same errors."""
        for mine, other in zip(ours.COMMANDS, stock.COMMANDS, strict=True):
            self.assertEqual(set(mine.errors.values()), set(other.errors.values()))


class CodecTests(SynchronousTestCase):
    """Beside the codec of the daemon and its clients."""

    def test_all(self) -> None:
        """There is a class for each command of the daemon."""
        self.assertEqual([command.commandName for command in ours.COMMANDS], [*c.COMMANDS])

    def test_arguments(self) -> None:
        """The codec reads what a command writes."""
        for command in ours.COMMANDS:
            own = c.COMMANDS[command.commandName]
            fields = {name.decode(): VALUES[name.decode()] for name, _ in command.arguments}
            box = command.makeArguments(fields, None)
            self.assertEqual(own.read_arguments(box), tuple(values_of(own.arguments).values()))

    def test_answers(self) -> None:
        """An answer is read as the codec writes it."""
        for command in ours.COMMANDS:
            own = c.COMMANDS[command.commandName]
            (box,) = BoxReader().feed(own.reply(b"1", values_of(own.answer)))
            del box[b"_answer"]
            read = command.parseResponse(amp.AmpBox(box), None)
            self.assertEqual(set(read), {argument.name for argument in own.answer})
            for name, value in read.items():
                expected = VALUES[name]
                if name in {"services", "mappings", "machines", "members"}:
                    expected = [{key: row[key] for key in value[0]} for row in expected]
                self.assertEqual(value, expected)

    def test_refusals(self) -> None:
        """An error raises the refusal that has its code."""
        for command in ours.COMMANDS:
            for kind, code in command.errors.items():
                assert issubclass(kind, Refusal)
                (box,) = BoxReader().feed(c.encode_refusal(b"1", kind("why")))
                self.assertEqual(box[b"_error_code"], code)
                self.assertIs(type(c.read_refusal(box)), kind)
