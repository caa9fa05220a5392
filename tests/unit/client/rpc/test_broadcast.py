"""Broadcasts: which replies count, and when they end."""

from collections.abc import Callable

from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.rpc.broadcast import Broadcast
from portmapd.client.rpc.broadcast_call import BroadcastReply
from portmapd.errors import DaemonUnreachable, SystemFailure
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import NOBODY, refusal, success
from portmapd.oncrpc.netid import UDP, UDP6
from portmapd.oncrpc.program import (
    CallResult,
    RemoteCall,
    RpcbCallResult,
    encode_call_result,
    encode_rpcb_call_result,
)


class BroadcastTests(SynchronousTestCase):
    """What a broadcast does with datagrams."""

    def setUp(self) -> None:
        self.seen: list[BroadcastReply] = []
        self.broadcast = self.make(self.seen.append)

    def make(self, each: Callable[[BroadcastReply], object], limit: int = 10) -> Broadcast:
        """A broadcast that has sent nothing yet."""
        call = RemoteCall(7, 1, 0)
        broadcast = Broadcast(MemoryReactorClock(), 111, call, NOBODY, each, 10, limit)
        self.version_3, self.version_2 = broadcast.xids
        return broadcast

    def address(self, address: str) -> bytes:
        """A reply of version 3."""
        return success(self.version_3, encode_rpcb_call_result(RpcbCallResult(address, b"abcd")))

    def port(self, port: int) -> bytes:
        """A reply of version 2."""
        return success(self.version_2, encode_call_result(CallResult(port, b"abcd")))

    def test_replies(self) -> None:
        """The port is in the reply; the host is where it came from, whatever the reply says."""
        self.broadcast.received(UDP, self.address("0.0.0.0.8.1"), "192.0.2.1")
        self.broadcast.received(UDP, self.port(9), "192.0.2.2")
        self.broadcast.received(UDP6, self.address("::1.0.9"), "fe80::1%eth0")
        replies = [
            BroadcastReply("192.0.2.1", 2049, b"abcd"),
            BroadcastReply("192.0.2.2", 9, b"abcd"),
            BroadcastReply("fe80::1%eth0", 9, b"abcd"),
        ]
        self.assertEqual(self.seen, replies)
        self.assertNoResult(self.broadcast.done)

    def test_each_once(self) -> None:
        """Of the replies from one address, the first counts."""
        for message in (self.port(9), self.address("192.0.2.1.0.8"), self.port(7)):
            self.broadcast.received(UDP, message, "192.0.2.1")
        self.assertEqual(self.seen, [BroadcastReply("192.0.2.1", 9, b"abcd")])

    def test_no_replies(self) -> None:
        """What is malformed, refused or asked by nobody does not count."""
        for message in (
            b"",
            b"abc",
            xdr.uint(self.version_2),
            self.port(0),
            self.port(65_536),
            self.port(9)[:-1],
            self.address(""),
            self.address("192.0.2.1"),
            self.address("2001:db8::1.0.9"),
            self.address("192.0.2.1.0.0"),
            success(self.version_2, xdr.string("192.0.2.1.0.9")),
            success(self.version_3 ^ 2, b""),
            refusal(self.version_3, SystemFailure()),
        ):
            self.broadcast.received(UDP, message, "192.0.2.1")
        self.assertEqual(self.seen, [])

    def test_limit(self) -> None:
        """It ends with as many replies as were wanted; later ones change nothing."""
        broadcast = self.make(self.seen.append, limit=2)
        for number in range(4):
            broadcast.received(UDP, self.port(9), f"192.0.2.{number}")
        self.assertEqual(self.successResultOf(broadcast.done), tuple(self.seen))
        self.assertEqual(len(self.seen), 2)

    def test_enough(self) -> None:
        """It ends when the application says so."""
        broadcast = self.make(lambda reply: reply.port == 9)
        broadcast.received(UDP, self.port(8), "192.0.2.1")
        self.assertNoResult(broadcast.done)
        broadcast.received(UDP, self.port(9), "192.0.2.2")
        self.assertEqual([r.port for r in self.successResultOf(broadcast.done)], [8, 9])

    def test_application_fails(self) -> None:
        """An exception of the application ends it."""
        broadcast = self.make(lambda reply: 1 / 0)
        for number in range(2):
            broadcast.received(UDP, self.port(9), f"192.0.2.{number}")
        self.failureResultOf(broadcast.done, ZeroDivisionError)

    def test_closed(self) -> None:
        """A broadcast that is ended with an error fails; once it has ended, that does nothing."""
        for _ in range(2):
            self.broadcast.fail(DaemonUnreachable("the client was closed"))
        self.failureResultOf(self.broadcast.done, DaemonUnreachable)

    def test_cancelled(self) -> None:
        """Cancelling ends it; later replies change nothing."""
        self.broadcast.done.cancel()
        self.failureResultOf(self.broadcast.done, CancelledError)
        self.broadcast.received(UDP, self.port(9), "192.0.2.1")
        self.assertEqual(self.seen, [])
