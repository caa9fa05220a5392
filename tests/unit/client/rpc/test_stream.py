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
