"""The client's side of the channel's protocol, without I/O."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.channel.box import BoxReader, encode_pairs
from portmapd.client.core.channel_protocol import OVERFLOW, Answer, ChannelProtocol
from portmapd.client.values import Change, Service
from portmapd.errors import BadArguments, DaemonUnreachable, LimitExceeded


def plain(received: Any) -> Any:
    """What was received; an answer as a tuple."""
    return (received.waiter, received.outcome) if isinstance(received, Answer) else received


class ChannelProtocolTests(SynchronousTestCase):
    """Commands, answers and events."""

    def setUp(self) -> None:
        self.protocol: ChannelProtocol[str] = ChannelProtocol("/run/test.sock")

    def ask(self, waiter: str, command: c.Command = c.UNWATCH) -> bytes:
        """Ask a command; gives its tag, as the daemon sees it."""
        tag, data = self.protocol.ask(command, {}, waiter)
        (box,) = BoxReader().feed(data)
        self.assertEqual((box[b"_ask"], box[b"_command"]), (tag, command.key))
        return tag

    def receive(self, data: bytes) -> list[Any]:
        """What comes of these bytes."""
        return list(map(plain, self.protocol.receive(data)))

    def test_answers(self) -> None:
        """Each answer comes with what waits for it, whatever their order, and however split."""
        first, second = self.ask("first", c.LIST), self.ask("second")
        data = c.UNWATCH.reply(second, {}) + c.LIST.reply(first, {"services": []})
        found = [one for at in range(len(data)) for one in self.receive(data[at : at + 1])]
        self.assertEqual(found, [("second", {}), ("first", {"services": [], "more": None})])
        self.assertEqual(len(self.protocol), 0)

    def test_refusal(self) -> None:
        """A refusal is an answer."""
        tag = self.ask("waits")
        ((waiter, outcome),) = self.receive(c.encode_refusal(tag, LimitExceeded("10")))
        self.assertEqual((waiter, type(outcome), str(outcome)), ("waits", LimitExceeded, "10"))

    def test_forgotten(self) -> None:
        """The answer to a command that was forgotten, or to none, is ignored."""
        tag = self.ask("waits")
        self.protocol.forget(tag)
        self.protocol.forget(tag)
        self.assertEqual(self.receive(c.UNWATCH.reply(tag, {}) * 2), [])

    def test_events(self) -> None:
        """Changes and overflows are told; other commands are ignored."""
        event = c.encode_event("registered", c.SERVICE_ROW, ("a", 104, 7, "80", ""))
        other = encode_pairs([(b"_command", b"Other")])
        self.assertEqual(
            self.receive(event + other + c.OVERFLOW_BOX),
            [Change("registered", Service("a", 104, 7, 80, "")), OVERFLOW],
        )

    def test_end(self) -> None:
        """At the end it gives what still waits, once."""
        self.ask("first")
        self.ask("second")
        self.assertEqual(self.protocol.end(), ["first", "second"])
        self.assertEqual(self.protocol.end(), [])

    def test_bad_arguments(self) -> None:
        """An argument that cannot be sent is refused, and nothing waits."""
        bad: list[dict[str, Any]] = [{"names": ["a" * 70_000]}, {"names": [7]}, {"pids": ["7"]}]
        for values in bad:
            with self.assertRaises(BadArguments):
                self.protocol.ask(c.LIST, values, "waits")
        self.assertEqual(len(self.protocol), 0)

    def test_something_else(self) -> None:
        """What is not the channel's protocol is said to be none, with the path."""
        tag = self.ask("waits", c.LIST)
        for data in (
            b"220 mail.example.com ESMTP\r\n",
            encode_pairs([(b"_command", b"Event"), (b"change", b"renamed")]),
            encode_pairs([(b"_answer", tag)]),
        ):
            self.protocol = ChannelProtocol("/run/test.sock")
            self.ask("waits", c.LIST)
            with self.assertRaises(DaemonUnreachable) as caught:
                self.receive(data)
            self.assertIn("/run/test.sock is not a portmapd", str(caught.exception))
            self.assertEqual(self.protocol.end(), ["waits"])

    def test_what_came_before(self) -> None:
        """What came before something malformed is received."""
        tag = self.ask("waits")
        received = self.protocol.receive(c.UNWATCH.reply(tag, {}) + b"\xff" * 300)
        self.assertEqual(plain(next(received)), ("waits", {}))
        self.assertRaises(DaemonUnreachable, next, received)
