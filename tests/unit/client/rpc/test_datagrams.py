"""Calls over UDP, with a clock and a transport of Twisted's testing tools."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport
from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.rpc.datagrams import DatagramCalls
from portmapd.errors import CallTimedOut, DaemonUnreachable
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import XID, Call, decode_call, encode_call, success

#: A call from behind its xid on.
TAIL = encode_call(Call(0, 100000, 2, 4))[XID:]
SERVER = ("192.0.2.1", 111)


class DatagramTests(SynchronousTestCase):
    """Calls over UDP: sent again with longer and longer pauses, matched by xid."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = DatagramCalls(self.clock, "the server", 111)
        self.transport = FakeDatagramTransport()
        self.calls.makeConnection(self.transport)

    def sent(self) -> list[bytes]:
        """Every datagram so far."""
        return [datagram for datagram, _ in self.transport.written]

    def answer(self, call: bytes, results: bytes) -> None:
        """Answer a call that was sent."""
        self.calls.datagramReceived(success(decode_call(call).xid, results), SERVER)

    def test_sent_again(self) -> None:
        """The pauses double, the datagram stays the same, and the answer ends it all."""
        reply = self.calls.call(TAIL, 60)
        counts = []
        for _ in range(16):
            counts.append(len(self.sent()))
            self.clock.advance(0.5)
        self.assertEqual(counts, [1] + [2] * 2 + [3] * 4 + [4] * 8 + [5])
        self.assertEqual(set(self.sent()), {self.sent()[0]})
        self.answer(self.sent()[0], b"done")
        self.assertTrue(self.successResultOf(reply).endswith(b"done"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_longest_pause(self) -> None:
        """The pauses grow up to a limit."""
        reply = self.calls.call(TAIL, 100)
        self.clock.pump([0.5] * 199)
        self.assertEqual(len(self.sent()), 1 + 4 + (99 - 7) // 8)
        self.assertNoResult(reply)
        self.clock.advance(1)
        self.failureResultOf(reply, CallTimedOut)

    def test_many_at_once(self) -> None:
        """Each call gets its own answer, whatever the order they come in."""
        replies = [self.calls.call(TAIL, 10) for _ in range(100)]
        for number, call in reversed(list(enumerate(self.sent()))):
            self.answer(call, xdr.uint(number))
        results = [self.successResultOf(reply)[-4:] for reply in replies]
        self.assertEqual(results, [xdr.uint(number) for number in range(100)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_is_up(self) -> None:
        """A call ends when its time is up, and an answer after that is ignored."""
        reply = self.calls.call(TAIL, 2.5)
        self.clock.pump([0.5] * 4)
        self.assertNoResult(reply)
        self.clock.advance(0.5)
        message = str(self.failureResultOf(reply, CallTimedOut).value)
        self.assertEqual(message, "the server did not answer within 2.5 s")
        self.answer(self.sent()[0], b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unknown_answers(self) -> None:
        """Answers to other calls, and what is too short to be one, change nothing."""
        reply = self.calls.call(TAIL, 10)
        xid = decode_call(self.sent()[0]).xid
        for datagram in (b"", b"abc", success(xid ^ 1, b"")):
            self.calls.datagramReceived(datagram, SERVER)
        self.assertNoResult(reply)
        reply.addErrback(lambda _: None).cancel()

    def test_other_addresses(self) -> None:
        """A reply may come from any address of the server, but only from the port called."""
        reply = self.calls.call(TAIL, 10)
        answer = success(decode_call(self.sent()[0]).xid, b"")
        for port in (0, 110, 112, 40_000):
            self.calls.datagramReceived(answer, ("192.0.2.1", port))
        self.assertNoResult(reply)
        self.calls.datagramReceived(answer, ("198.51.100.7", 111))
        self.successResultOf(reply)

    def test_cancelled(self) -> None:
        """A cancelled call is not sent again, and its answer is ignored."""
        reply = self.calls.call(TAIL, 10)
        reply.cancel()
        self.failureResultOf(reply, CancelledError)
        self.clock.advance(5)
        self.answer(self.sent()[0], b"")
        self.assertEqual((len(self.sent()), self.clock.getDelayedCalls()), (1, []))

    def test_refused_by_the_host(self) -> None:
        """When the host says that nobody serves the port, every call ends."""
        replies = [self.calls.call(TAIL, 10) for _ in range(2)]
        self.calls.failed("Connection refused")
        for reply in replies:
            said = str(self.failureResultOf(reply, DaemonUnreachable).value)
            self.assertEqual(said, "the server cannot be reached: Connection refused")

    def test_one_call_after_another(self) -> None:
        """What calls again because a call failed is not failed along with it."""
        again: list[Deferred[bytes]] = []
        self.calls.call(TAIL, 10).addErrback(lambda _: again.append(self.calls.call(TAIL, 10)))
        self.calls.failed("Connection refused")
        self.answer(self.sent()[1], b"")
        self.successResultOf(again[0])

    def test_too_long(self) -> None:
        """What no datagram carries is refused before it is a call."""
        self.assertRaises(ValueError, self.calls.call, bytes(65_504), 10)
        self.assertEqual((self.sent(), self.clock.getDelayedCalls()), ([], []))
