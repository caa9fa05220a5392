"""Calls over TCP, with the reactor and the transports of Twisted's testing tools."""

from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.rpc.client import PortmapClient
from portmapd.errors import BrokenStream, CallTimedOut, DaemonUnreachable
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import success
from portmapd.oncrpc.record import mark
from tests.support.rpc_peer import Peer


class StreamTests(SynchronousTestCase):
    """Calls over TCP: one connection, made when it is needed."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = PortmapClient(self.reactor, "192.0.2.1", 1111, "tcp", timeout=5)
        self.peer = Peer(self.reactor)

    def test_made_on_demand(self) -> None:
        """No connection is made before the first call, and only one for all of them."""
        self.assertEqual(self.reactor.tcpClients, [])
        replies = [self.client.null() for _ in range(3)]
        self.assertEqual([c[:2] for c in self.reactor.tcpClients], [("192.0.2.1", 1111)])
        self.peer.accept()
        for call in self.peer.calls():
            self.peer.send(mark(success(call.xid, b"")))
        self.assertEqual([self.successResultOf(reply) for reply in replies], [None] * 3)

    def test_byte_by_byte(self) -> None:
        """Answers may come in any pieces and in any order."""
        replies = [self.client.getport(program, 1, 17) for program in range(5)]
        self.peer.accept()
        answers = [mark(success(call.xid, xdr.uint(n))) for n, call in enumerate(self.peer.calls())]
        for byte in b"".join(reversed(answers)):
            self.peer.send(bytes([byte]))
        self.assertEqual([self.successResultOf(reply) for reply in replies], list(range(5)))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled_before_the_connection(self) -> None:
        """A call that was cancelled while the connection was made is never sent."""
        cancelled, kept = self.client.null(), self.client.getport(7, 1, 6)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.peer.accept()
        self.peer.answer(xdr.uint(1))
        self.assertEqual(self.successResultOf(kept), 1)

    def test_refused_connection(self) -> None:
        """Every call fails with the connection, and the next one tries again."""
        replies = [self.client.null(), self.client.null()]
        self.peer.refuse()
        for reply in replies:
            said = str(self.failureResultOf(reply, DaemonUnreachable).value)
            self.assertIn("TCP port 1111 of 192.0.2.1 cannot be reached: ", said)
            self.assertIn("No way there", said)
        self.client.null().addErrback(lambda _: None)
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_lost_connection(self) -> None:
        """Every call under way fails with the connection, and the next one makes another."""
        lost = self.client.null()
        self.peer.accept()
        self.peer.lose()
        self.failureResultOf(lost, DaemonUnreachable)
        reply = self.client.null()
        self.peer.accept()
        self.peer.answer(b"")
        self.successResultOf(reply)

    def test_broken_framing(self) -> None:
        """A record that is too long ends the calls and the connection."""
        lost = self.client.null()
        transport = self.peer.accept()
        self.peer.send(b"\xff\xff\xff\xff")
        self.failureResultOf(lost, BrokenStream)
        self.assertTrue(transport.disconnected)
        again = self.client.null()
        self.peer.lose()
        self.assertNoResult(again)
        self.peer.refuse()
        self.failureResultOf(again, DaemonUnreachable)

    def test_time_is_up(self) -> None:
        """Time runs while the connection is made; a late answer is ignored."""
        reply = self.client.null()
        self.reactor.advance(3)
        self.peer.accept()
        (call,) = self.peer.calls()
        self.assertNoResult(reply)
        self.reactor.advance(2)
        self.failureResultOf(reply, CallTimedOut)
        self.peer.send(mark(success(call.xid, b"")))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closed_after_each_reply(self) -> None:
        """Where the server closes after each reply, calls go one by one on new connections."""
        replies = [self.client.getport(number, 1, 17) for number in range(4)]
        for number in range(4):
            self.peer.accept()
            calls = self.peer.calls()
            self.assertEqual(len(calls), 1 if number else 4)
            self.peer.send(mark(success(calls[0].xid, xdr.uint(number))))
            self.peer.lose()
        self.assertEqual([self.successResultOf(reply) for reply in replies], list(range(4)))
        self.assertEqual(len(self.reactor.tcpClients), 4)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_pipelined_again(self) -> None:
        """A connection that brings a second reply carries all calls again."""
        replies = [self.client.getport(number, 1, 17) for number in range(5)]
        self.peer.accept()
        self.peer.send(mark(success(self.peer.calls()[0].xid, xdr.uint(0))))
        self.peer.lose()
        self.peer.accept()
        counts = []
        while calls := self.peer.calls():
            counts.append(len(calls))
            for call in calls:
                self.peer.send(mark(success(call.xid, xdr.uint(len(counts)))))
        self.assertEqual(counts, [1, 1, 2])
        self.assertEqual([self.successResultOf(reply) for reply in replies], [0, 1, 2, 3, 3])

    def test_closed_without_a_reply(self) -> None:
        """A connection that ends without a reply is not tried again and again."""
        replies = [self.client.getport(number, 1, 17) for number in range(3)]
        self.peer.accept()
        self.peer.send(mark(success(self.peer.calls()[0].xid, xdr.uint(7))))
        self.peer.lose()
        for _ in range(2):
            self.peer.accept()
            self.peer.lose()
        self.assertEqual(self.successResultOf(replies[0]), 7)
        for reply in replies[1:]:
            self.failureResultOf(reply, DaemonUnreachable)
        self.assertEqual(len(self.reactor.tcpClients), 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_foreign_replies_are_no_progress(self) -> None:
        """Replies that belong to no call do not count as replies of the connection."""
        reply = self.client.null()
        self.peer.accept()
        (call,) = self.peer.calls()
        self.peer.send(mark(success(call.xid ^ 1, b"")) + mark(b"abc"))
        self.peer.lose()
        self.failureResultOf(reply, DaemonUnreachable)

    def test_unmarked_end(self) -> None:
        """A reply whose final fragment is not marked counts once the server has closed."""
        reply = self.client.getport(7, 1, 17)
        self.peer.accept()
        (call,) = self.peer.calls()
        message = success(call.xid, xdr.uint(9))
        self.peer.send(xdr.uint(8) + message[:8] + xdr.uint(len(message) - 8) + message[8:])
        self.assertNoResult(reply)
        self.peer.lose()
        self.assertEqual(self.successResultOf(reply), 9)

    def test_truncated_end(self) -> None:
        """A stream that ends within a fragment fails the call."""
        for end in (-1, 10, 3):
            reply = self.client.getport(7, 1, 17)
            self.peer.accept()
            (call,) = self.peer.calls()
            message = success(call.xid, xdr.uint(9))
            self.peer.send((xdr.uint(len(message)) + message)[:end])
            self.peer.lose()
            self.failureResultOf(reply, DaemonUnreachable)

    def test_new_connection_after_a_timeout(self) -> None:
        """Where a call has timed out, the connection is closed, and the next call makes another."""
        reply = self.client.null()
        transport = self.peer.accept()
        self.reactor.advance(5)
        self.failureResultOf(reply, CallTimedOut)
        self.assertTrue(transport.disconnected)
        again = self.client.null()
        self.peer.accept()
        self.peer.answer(b"")
        self.successResultOf(again)
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_others_end_before_the_connection(self) -> None:
        """A connection on which a call timed out stays until the others on it have ended."""
        late = self.client.null()
        transport = self.peer.accept()
        (unanswered,) = self.peer.calls()
        self.reactor.advance(3)
        kept = self.client.getport(7, 1, 17)
        (call,) = self.peer.calls()
        self.reactor.advance(2)
        self.failureResultOf(late, CallTimedOut)
        self.assertFalse(transport.disconnected)
        self.peer.send(mark(success(unanswered.xid, b"")) + mark(success(call.xid, xdr.uint(9))))
        self.assertEqual(self.successResultOf(kept), 9)
        self.assertTrue(transport.disconnected)

    def test_endless_reply(self) -> None:
        """What comes after the timeout is not kept."""
        reply = self.client.null()
        self.peer.accept()
        self.peer.send(xdr.uint(15 << 20) + bytes(1 << 20))
        self.reactor.advance(5)
        self.failureResultOf(reply, CallTimedOut)
        self.peer.send(b"\xff" * 8)

    def test_timeout_while_connecting(self) -> None:
        """The attempt to connect ends with the only call that waits for it."""
        reply = self.client.null()
        self.reactor.advance(5)
        self.failureResultOf(reply, CallTimedOut)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close(self) -> None:
        """``close`` ends what is under way, then the connection; it may be called at any time."""
        self.successResultOf(self.client.close())
        reply = self.client.null()
        transport = self.peer.accept()
        closed = self.client.close()
        self.failureResultOf(reply, DaemonUnreachable)
        self.assertTrue(transport.disconnected)
        self.assertNoResult(closed)
        self.peer.lose()
        self.successResultOf(closed)

    def test_close_at_rest(self) -> None:
        """A connection that nobody waits for is closed in order."""
        reply = self.client.null()
        transport = self.peer.accept()
        self.peer.answer(b"")
        self.successResultOf(reply)
        closed = self.client.close()
        self.assertTrue(transport.disconnecting)
        self.peer.lose()
        self.successResultOf(closed)

    def test_close_before_the_connection(self) -> None:
        """``close`` gives up the attempt to connect."""
        reply = self.client.null()
        closed = self.client.close()
        self.failureResultOf(reply, DaemonUnreachable)
        self.successResultOf(closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
