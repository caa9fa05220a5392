"""One connection to the daemon: answers find their commands, and nothing outlives it."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader, encode_pairs
from portmapd.client.core.async_connection import AsyncConnection
from portmapd.client.core.channel_protocol import OVERFLOW, Event
from portmapd.client.twisted.connection import ChannelClientProtocol
from portmapd.client.twisted.runtime import ReactorRuntime
from portmapd.client.values import Change, Service
from portmapd.errors import (
    BadArguments,
    ClientClosed,
    DaemonUnreachable,
    InternalError,
    LimitExceeded,
)

EVENT = c.encode_event("registered", c.SERVICE_ROW, ("a", 104, 7, "80", ""))
#: One that lacks the service.
MALFORMED_EVENT = encode_pairs([(b"_command", b"Event"), (b"change", b"registered")])
PATH = "/run/test.sock"


class ChannelClientProtocolTests(SynchronousTestCase):
    """A connection on a transport in memory."""

    def setUp(self) -> None:
        self.events: list[Event] = []
        self.lost: list[AsyncConnection] = []
        reactor: Any = MemoryReactorClock()
        self.connection = AsyncConnection(
            ReactorRuntime(reactor), PATH, self.events.append, self.lost.append
        )
        self.protocol = ChannelClientProtocol(self.connection)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def ask(self, command: c.Command, values: dict[str, Any]) -> Deferred[dict[str, Any]]:
        """Ask a command."""
        return Deferred.fromCoroutine(self.connection.ask(command, values))

    def asked(self) -> list[Box]:
        """The boxes that were written since the last look."""
        data = self.transport.value()
        self.transport.clear()
        return list(BoxReader().feed(data))

    def lose(self) -> None:
        """The connection is gone."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def fails(self, asked: Any, names: str, kind: type[Exception] = DaemonUnreachable) -> None:
        """Assert that what was asked has failed, with *names* in the message."""
        error = self.failureResultOf(asked, kind).value
        self.assertIs(type(error), kind)
        self.assertIn(names, str(error))

    def test_answers(self) -> None:
        """Each answer goes to its command, in whichever order they come, however split."""
        first = self.ask(c.LIST, {"names": ["a"]})
        second = self.ask(c.UNWATCH, {})
        tags = [box[b"_ask"] for box in self.asked()]
        rows = [("a", 104, 7, "80", "")]
        answers = c.UNWATCH.reply(tags[1], {}) + c.LIST.reply(tags[0], {"services": rows})
        for at in range(len(answers)):
            self.assertNoResult(first)
            self.protocol.dataReceived(answers[at : at + 1])
        self.assertEqual(self.successResultOf(second), {})
        self.assertEqual(self.successResultOf(first), {"services": rows, "more": None})

    def test_refusals(self) -> None:
        """A refusal is raised as its exception, an unknown one as an internal error."""
        known, unknown = self.ask(c.UNWATCH, {}), self.ask(c.UNWATCH, {})
        tags = [box[b"_ask"] for box in self.asked()]
        self.protocol.dataReceived(c.encode_refusal(tags[0], LimitExceeded("10 at most")))
        pairs = [(b"_error", tags[1]), (b"_error_code", b"?"), (b"_error_description", b"odd")]
        self.protocol.dataReceived(encode_pairs(pairs))
        self.fails(known, "10 at most", LimitExceeded)
        self.fails(unknown, "odd", InternalError)

    def test_events(self) -> None:
        """Boxes that are not answers are events; answers to nothing are ignored."""
        self.protocol.dataReceived(EVENT + c.UNWATCH.reply(b"77", {}))
        self.assertEqual(self.events, [Change("registered", Service("a", 104, 7, 80, ""))])
        self.assertFalse(self.transport.disconnecting)

    def test_bad_arguments(self) -> None:
        """Arguments that cannot be written are refused, and nothing is sent."""
        bad: list[tuple[c.Command, dict[str, Any]]] = [
            (c.LIST, {"names": ["a" * 66_000]}),
            (c.LIST, {"names": ["\ud800"]}),
            (c.LIST, {"names": [7]}),
            (c.LIST, {"pids": ["7"]}),
            (c.SET_MAPPINGS, {"mappings": [(1, 2, "tcp")]}),
        ]
        for command, values in bad:
            self.fails(self.ask(command, values), "argument", BadArguments)
        self.assertEqual(self.asked(), [])

    def test_lost(self) -> None:
        """What waits fails when the connection is lost, and so does what is asked then."""
        waiting = self.ask(c.UNWATCH, {})
        self.lose()
        self.assertEqual(self.lost, [self.connection])
        self.fails(waiting, PATH)
        self.fails(self.ask(c.UNWATCH, {}), PATH)

    def test_told_of_the_loss_first(self) -> None:
        """What fails may be asked again at once, for the owner knows of the loss by then."""
        seen: list[list[AsyncConnection]] = []
        self.ask(c.UNWATCH, {}).addErrback(lambda _: seen.append(list(self.lost)))
        self.lose()
        self.assertEqual(seen, [[self.connection]])

    def test_errors_are_not_shared(self) -> None:
        """Each operation has an exception of its own, with a traceback of its own."""
        waiting = [self.ask(c.UNWATCH, {}) for _ in range(2)]
        self.lose()
        first, second = (self.failureResultOf(one).value for one in waiting)
        self.assertIsNot(first, second)

    def test_close(self) -> None:
        """Once it is closed, nothing is taken in, and what waits fails with the reason."""
        waiting = self.ask(c.UNWATCH, {})
        self.assertEqual(len(self.asked()), 1)
        self.connection.close(ClientClosed("closed"))
        self.assertTrue(self.transport.disconnecting)
        self.fails(self.ask(c.UNWATCH, {}), "closed", ClientClosed)
        self.assertEqual(self.asked(), [])
        self.lose()
        self.fails(waiting, "closed", ClientClosed)

    def test_close_in_an_answer(self) -> None:
        """What comes with the answer at which it is closed is not taken in."""
        first, second = self.ask(c.UNWATCH, {}), self.ask(c.UNWATCH, {})
        first.addCallback(lambda _: self.connection.close(ClientClosed("closed")))
        tags = [box[b"_ask"] for box in self.asked()]
        self.protocol.dataReceived(b"".join(c.UNWATCH.reply(tag, {}) for tag in tags) + EVENT)
        self.assertNoResult(second)
        self.assertEqual(self.events, [])
        self.lose()
        self.fails(second, "closed", ClientClosed)

    def test_cancel(self) -> None:
        """What is cancelled is forgotten, and its answer ignored."""
        for _ in range(100):
            asked = self.ask(c.UNWATCH, {})
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        for box in self.asked():
            self.protocol.dataReceived(c.UNWATCH.reply(box[b"_ask"], {}))
        self.assertEqual(len(self.connection), 0)
        self.assertFalse(self.transport.disconnecting)

    def test_answered_is_forgotten(self) -> None:
        """Nothing is kept of what was answered or refused."""
        for _ in range(100):
            asked = self.ask(c.UNWATCH, {})
            (box,) = self.asked()
            self.protocol.dataReceived(c.encode_refusal(box[b"_ask"], LimitExceeded("")))
            self.failureResultOf(asked, LimitExceeded)
        self.assertEqual(len(self.connection), 0)

    def test_application_errors(self) -> None:
        """What fails in an application's callback harms neither the link nor other answers."""
        first, second = self.ask(c.UNWATCH, {}), self.ask(c.UNWATCH, {})
        first.addCallback(lambda _: 1 // 0)
        for box in self.asked():
            self.protocol.dataReceived(c.UNWATCH.reply(box[b"_ask"], {}))
        self.failureResultOf(first, ZeroDivisionError)
        self.successResultOf(second)
        self.assertFalse(self.transport.disconnecting)

    def test_garbage(self) -> None:
        """What is not the channel's language closes the connection, and the error says so."""
        garbage = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 300, b"\0\1a\0\0" * 33]
        for data in garbage:
            self.setUp()
            waiting = self.ask(c.UNWATCH, {})
            self.protocol.dataReceived(data)
            self.assertTrue(self.transport.disconnecting)
            self.lose()
            self.fails(waiting, f"what serves at {PATH} is not a portmapd")

    def test_malformed_answer(self) -> None:
        """An answer that lacks something, or has a wrong type, closes the connection, too."""
        for name, value in ((b"services", b"?"), (b"more", b"\xff"), (b"other", b"")):
            self.setUp()
            waiting = self.ask(c.LIST, {})
            (box,) = self.asked()
            self.protocol.dataReceived(encode_pairs([(b"_answer", box[b"_ask"]), (name, value)]))
            self.assertTrue(self.transport.disconnecting)
            self.lose()
            self.fails(waiting, "is not a portmapd")

    def test_malformed_event(self) -> None:
        """An event that cannot be read closes it, too."""
        self.protocol.dataReceived(MALFORMED_EVENT)
        self.assertTrue(self.transport.disconnecting)

    def test_other_commands(self) -> None:
        """Overflow is an event; a command that is unknown is ignored."""
        self.protocol.dataReceived(c.OVERFLOW_BOX + encode_pairs([(b"_command", b"Other")]))
        self.assertEqual(self.events, [OVERFLOW])
        self.assertFalse(self.transport.disconnecting)
