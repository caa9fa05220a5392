"""Streams of calls: pipelining, back-pressure, broken framing, idle and too many streams."""

import os
import socket
import time
from collections.abc import Callable
from ipaddress import ip_network
from itertools import pairwise
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from portmapd.config import MAX_STREAMS
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import XID, Call, decode_reply, encode_call, success, xid_of
from portmapd.oncrpc.netid import TCP
from portmapd.oncrpc.program import CallResult, encode_call_result, read_pmap, read_rpcb
from portmapd.oncrpc.record import RecordReader, mark
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.dispatch import MAX_WHOLE, Outcome
from portmapd.portmapper.dumps import PART
from portmapd.registry.mapping import mapping
from portmapd.rpc import VOID, Procedure, Program, Request
from portmapd.rpc.call_server import MAX_WAITING, ProgramServer
from portmapd.server import pipelining
from portmapd.server import stream as stream_module
from portmapd.server.call_forwarder import TIMEOUT
from portmapd.server.peer_credentials import peer_credentials
from portmapd.server.pipelining import CHUNK, IStreamTransport
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.stream import (
    SWEEPS,
    PortmapStreamFactory,
    PortmapStreamProtocol,
)
from portmapd.server.turns import TURN, TurnQueue
from tests.support.rpc_samples import PROPERTY, call, local, loopback, pmap, remote_call, rpcb
from tests.support.rpc_server import Serving

#: The network that may ask, where not everyone may.
ALLOWED = ip_network("10.0.0.0/8")
IDLE = 60.0
LIMIT = 3
PROGRAM = 0x2000_0001
GETPORT = call(2, 3, pmap(7, 1))
NULL = call(2, 0)


class Stream:
    """A client's end of a stream."""

    def __init__(
        self, factory: PortmapStreamFactory, host: str = "127.0.0.1", ours: str = ""
    ) -> None:
        address = IPv6Address if ":" in host else IPv4Address
        peer = address("TCP", host, 40_000)
        self.transport = StringTransport(address("TCP", ours or host, 111), peer, lenient=True)
        made = factory.buildProtocol(peer)
        #: Was the stream accepted?
        self.is_accepted = made is not None
        if made is not None:
            self.protocol = made
            made.makeConnection(self.transport)

    @property
    def is_closed(self) -> bool:
        """Was it closed by the other end?"""
        return bool(self.transport.disconnecting)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.protocol.dataReceived(data)

    def replies(self) -> list[bytes]:
        """The replies since the last look."""
        data = self.transport.value()
        self.transport.clear()
        return list(RecordReader(1 << 30).feed(data))

    def ask(self, message: bytes) -> bytes:
        """The results of one call."""
        self.send(mark(message))
        (reply,) = self.replies()
        return decode_reply(reply)

    def close(self) -> None:
        """End it."""
        self.protocol.connectionLost()


class WatchedTurns(TurnQueue):
    """Turns that are counted.

    :ivar added: how many were asked for.
    :ivar watch: is called before the first one.
    """

    added = 0
    watch: Callable[[], None] | None = None

    def add(self, stream: Any) -> None:
        self.added += 1
        watch, self.watch = self.watch, None
        if watch is not None:
            watch()
        super().add(stream)


class StreamTestCase(SynchronousTestCase):
    """A listening socket in memory."""

    def setUp(self) -> None:
        # On a busy machine, calls may take longer than a turn; TurnTests are about that.
        self.patch(pipelining, "TURN", 60.0)
        self.serving = Serving()
        self.serving.registry.map(mapping(7, 1, "udp", "0.0.0.0.0.9"))
        self.factory = self.made(limit=LIMIT)
        self.factory.startFactory()
        self.addCleanup(self.factory.stopFactory)
        self.stream = Stream(self.factory)

    def made(
        self, serving: Serving | None = None, limit: int = MAX_STREAMS
    ) -> PortmapStreamFactory:
        """A factory whose reactor is this test's."""
        reactor = self.serving.reactor
        call_server = (serving or self.serving).call_server
        return PortmapStreamFactory(call_server, reactor, TurnQueue(reactor), IDLE, limit)


def numbered(number: int, message: bytes = GETPORT) -> bytes:
    """*message* with that xid, as a record."""
    return mark(number.to_bytes(XID, "big") + message[XID:])


class CallTests(StreamTestCase):
    """Calls and their replies."""

    def test_call(self) -> None:
        """A record that is a call is answered with a record."""
        for _ in range(3):
            self.assertEqual(self.stream.ask(GETPORT), xdr.uint(9))

    def test_bytes(self) -> None:
        """The reply is the same to the byte, known or not, whole or byte by byte."""
        reply = bytes.fromhex(
            "8000001c 11223344 00000001 00000000 00000000 00000000 00000000 00000009"
        )
        self.stream.send(mark(GETPORT))
        for piece in mark(GETPORT):
            self.stream.send(bytes((piece,)))
        self.stream.send(mark(GETPORT))
        self.assertEqual(self.stream.transport.value(), 3 * reply)

    def test_pipelined(self) -> None:
        """Calls that come together are answered in order, each with its xid."""
        numbers = list(range(300))
        self.stream.send(b"".join(map(numbered, numbers)))
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], numbers)

    def test_pipelined_of_all_kinds(self) -> None:
        """So are calls that are answered differently, or not at all."""
        self.stream.send(
            numbered(1)
            + numbered(2, call(2, 99))
            + mark(b"junk")
            + numbered(4, call(2, 4))
            + numbered(5, call(9, 0))
            + mark(b"")
            + numbered(7)
        )
        # On a busy machine they may take several turns.
        self.serving.reactor.pump([0] * 7)
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], [1, 2, 4, 5, 7])

    def test_fragments(self) -> None:
        """A call in fragments is a call."""
        first, second = GETPORT[:30], GETPORT[30:]
        self.stream.send(len(first).to_bytes(4, "big") + first + mark(second))
        self.assertEqual([decode_reply(r) for r in self.stream.replies()], [xdr.uint(9)])

    def test_known_call_within_a_record(self) -> None:
        """Bytes that look like a known call, within another record, are part of that."""
        self.stream.ask(GETPORT)
        record = mark(GETPORT)
        self.stream.send((len(record) | 1 << 31).to_bytes(4, "big"))
        self.stream.send(record)
        self.assertEqual(self.stream.replies(), [])
        self.assertEqual(self.stream.ask(GETPORT), xdr.uint(9))

    def test_known_call_as_a_fragment(self) -> None:
        """A known call that is not all of its record is not taken for it."""
        self.stream.ask(GETPORT)
        self.stream.send(len(GETPORT).to_bytes(4, "big") + GETPORT)
        self.assertEqual(self.stream.replies(), [])
        self.stream.send(mark(b""))
        self.assertEqual(len(self.stream.replies()), 1)

    def test_counted(self) -> None:
        """Every call is counted, known or not."""
        for _ in range(5):
            self.stream.ask(GETPORT)
        self.stream.send(mark(GETPORT) * 5)
        self.assertEqual(self.serving.statistics.calls(2, 3), 10)

    def test_reached(self) -> None:
        """A caller is told the address that it reached, without its scope."""
        self.serving.registry.map(
            mapping(7, 1, "tcp", "0.0.0.0.0.9"), mapping(7, 1, "tcp6", "::.0.9")
        )
        for host, ours, told in (
            ("127.0.0.1", "127.0.0.5", "127.0.0.5.0.9"),
            ("fe80::7%eth0", "fe80::1%eth0", "fe80::1.0.9"),
        ):
            stream = Stream(self.factory, host, ours)
            self.assertEqual(stream.ask(call(4, 3, rpcb(7, 1))), xdr.string(told))

    def test_forwarded(self) -> None:
        """A call that is forwarded is answered when it can be; others do not wait for it."""
        self.stream.send(numbered(1, call(2, 5, remote_call(7, 1, 3))) + numbered(2))
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], [2])
        (port,) = self.serving.reactor.sockets
        ((made, address),) = port.sent
        port.receive(success(xid_of(made), b"results!"), address)
        (reply,) = self.stream.replies()
        self.assertEqual(xid_of(reply), 1)
        self.assertEqual(decode_reply(reply), encode_call_result(CallResult(9, b"results!")))

    def test_changes(self) -> None:
        """What is known is of this moment, on every stream."""
        other = Stream(self.factory)
        for port in (9, 10, 11):
            self.serving.mapper.ask(local(), 2, 1, pmap(7, 1, 17, port))
            for stream in (self.stream, other):
                for _ in range(2):
                    self.assertEqual(stream.ask(GETPORT), xdr.uint(port))


class PressureTests(StreamTestCase):
    """Peers that do not read their replies."""

    def test_producer(self) -> None:
        """The stream lets its transport hold it."""
        self.assertIs(self.stream.transport.producer, self.stream.protocol)
        self.assertTrue(self.stream.transport.streaming)

    def test_paused(self) -> None:
        """While replies pile up, nothing is read; what was read is answered afterwards."""
        transport = self.stream.transport
        self.stream.protocol.pauseProducing()
        self.assertEqual(transport.producerState, "paused")
        self.stream.send(b"".join(map(numbered, range(5))))
        self.assertEqual(self.stream.replies(), [])
        self.stream.protocol.resumeProducing()
        self.assertEqual(transport.producerState, "producing")
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], list(range(5)))

    def test_known_call_waits_for_its_turn(self) -> None:
        """A known call does not overtake those that wait."""
        self.stream.ask(GETPORT)
        self.stream.protocol.pauseProducing()
        self.stream.send(numbered(1))
        self.stream.send(numbered(2, NULL))
        self.stream.send(numbered(3))
        self.stream.protocol.resumeProducing()
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], [1, 2, 3])

    def test_paused_amid_replies(self) -> None:
        """A transport that has enough is given no more than a chunk, and continues there."""
        dump = call(2, 4)
        self.serving.registry.map(
            *(mapping(8, version, "udp", "0.0.0.0.0.9") for version in range(3_000))
        )
        size = len(self.serving.mapper.dispatch(dump, loopback(TCP)).reply or b"")
        self.stream.transport = FullTransport(self.stream.protocol)
        self.stream.protocol.transport = cast("IStreamTransport", self.stream.transport)
        self.stream.send(b"".join(numbered(number, dump) for number in range(5)))
        got: list[int] = []
        while replies := self.stream.replies():
            self.assertLessEqual(len(replies) * size, CHUNK + size)
            got += map(xid_of, replies)
            self.stream.protocol.resumeProducing()
        self.assertEqual(got, list(range(5)))

    def test_long_reply(self) -> None:
        """A long list comes in fragments that are made as the peer takes them, and is whole."""
        self.serving.registry.map(
            *(mapping(8, version, "tcp", "0.0.0.0.0.9") for version in range(20_000))
        )
        self.stream.transport = FullTransport(self.stream.protocol)
        self.stream.protocol.transport = cast("IStreamTransport", self.stream.transport)
        self.stream.send(numbered(1, call(3, 4)) + numbered(2) + numbered(3, call(2, 4)))
        reader = RecordReader(1 << 30, 1 << 20)
        replies: list[bytes] = []
        while data := self.stream.transport.value():
            self.assertLessEqual(len(data), MAX_WHOLE + 2 * PART)
            self.stream.transport.clear()
            replies += reader.feed(data)
            self.stream.protocol.resumeProducing()
        self.assertEqual([xid_of(reply) for reply in replies], [1, 2, 3])
        rows = Reader(decode_reply(replies[0])).sequence(read_rpcb)
        self.assertEqual([row.version for row in rows], [1, *range(20_000)])
        self.assertEqual(decode_reply(replies[1]), xdr.uint(9))
        self.assertEqual(len(Reader(decode_reply(replies[2])).sequence(read_pmap)), 20_001)

    def test_reply_behind_a_long_one(self) -> None:
        """The reply to a call that was forwarded does not come amid another one."""
        self.serving.registry.map(
            *(mapping(8, version, "tcp", "0.0.0.0.0.9") for version in range(20_000))
        )
        self.stream.send(numbered(1, call(2, 5, remote_call(7, 1, 3))))
        self.stream.transport = FullTransport(self.stream.protocol)
        self.stream.protocol.transport = cast("IStreamTransport", self.stream.transport)
        self.stream.send(numbered(2, call(3, 4)))
        (port,) = self.serving.reactor.sockets
        ((made, address),) = port.sent
        port.receive(success(xid_of(made), b"results!"), address)
        reader = RecordReader(1 << 30, 1 << 20)
        replies: list[bytes] = []
        while data := self.stream.transport.value():
            self.stream.transport.clear()
            replies += reader.feed(data)
            self.stream.protocol.resumeProducing()
        self.assertEqual([xid_of(reply) for reply in replies], [2, 1])
        self.assertEqual(decode_reply(replies[1]), encode_call_result(CallResult(9, b"results!")))

    def test_gone_amid_a_long_reply(self) -> None:
        """Nothing more is made for a peer that is gone."""
        self.serving.registry.map(
            *(mapping(8, version, "tcp", "0.0.0.0.0.9") for version in range(20_000))
        )
        self.stream.transport = FullTransport(self.stream.protocol)
        self.stream.protocol.transport = cast("IStreamTransport", self.stream.transport)
        self.stream.send(numbered(1, call(3, 4)))
        self.assertTrue(self.stream.protocol.is_busy)
        self.stream.close()
        self.assertFalse(self.stream.protocol.is_busy)
        self.assertEqual(self.factory.streams, set())

    def test_stopped(self) -> None:
        """A transport that is gone wants no more replies."""
        self.stream.protocol.pauseProducing()
        self.stream.send(mark(GETPORT))
        self.stream.protocol.stopProducing()
        self.stream.protocol.resumeProducing()
        self.assertEqual(self.stream.replies(), [])


class WaitingTests(StreamTestCase):
    """Calls whose results come later."""

    def setUp(self) -> None:
        super().setUp()
        self.results: list[Deferred[None]] = []
        later = Procedure("LATER", 1, VOID, VOID, self.wait)
        log = RateLimitedLog(self.serving.reactor)
        self.call_server = ProgramServer(
            (Program("p", PROGRAM, 1, later),), self.serving.reactor, log
        )
        self.factory.call_server = self.call_server
        self.factory.max_waiting = MAX_WAITING
        self.addCleanup(self.call_server.cancel)
        self.stream = Stream(self.factory)

    def wait(self, arguments: None, request: Request) -> Deferred[None]:
        """Serve a call, later."""
        self.results.append(Deferred())
        return self.results[-1]

    def send(self, number: int, procedure: int = 1) -> None:
        """Send a call."""
        self.stream.send(mark(encode_call(Call(number, PROGRAM, 1, procedure))))

    def test_limit(self) -> None:
        """Nothing more is read while many of a stream wait, and all of them are replied to."""
        for number in range(MAX_WAITING + 2):
            self.send(number)
        self.assertEqual(len(self.results), MAX_WAITING)
        self.assertEqual(self.stream.transport.producerState, "paused")
        # The transport has room again; the calls still wait.
        self.stream.protocol.resumeProducing()
        self.assertEqual(len(self.results), MAX_WAITING)
        self.results[5].callback(None)
        self.assertEqual(len(self.results), MAX_WAITING + 1)
        for each in self.results:
            if not each.called:
                each.callback(None)
        self.assertEqual(self.stream.transport.producerState, "producing")
        found = sorted(xid_of(reply) for reply in self.stream.replies())
        self.assertEqual(found, list(range(MAX_WAITING + 2)))

    def test_half_closed(self) -> None:
        """A peer that sends nothing more gets its replies before the stream is closed."""
        self.send(1)
        self.stream.protocol.readConnectionLost()
        self.assertFalse(self.stream.is_closed)
        self.results[0].callback(None)
        self.assertEqual(len(self.stream.replies()), 1)
        self.assertTrue(self.stream.is_closed)

    def test_lost(self) -> None:
        """Results that come when the stream is gone go nowhere."""
        self.send(1)
        self.stream.close()
        self.results[0].callback(None)

    def test_long_record(self) -> None:
        """A server may take longer calls than the port mapper does, and no longer ones."""
        self.factory = PortmapStreamFactory(
            self.call_server,
            self.serving.reactor,
            TurnQueue(self.serving.reactor),
            max_record=1 << 20,
        )
        self.stream = Stream(self.factory)
        call = encode_call(Call(1, PROGRAM, 1, 0, arguments=bytes(1_000_000)))
        self.stream.send(mark(call))
        self.assertEqual(len(self.stream.replies()), 1)
        self.stream.send(mark(bytes((1 << 20) + 1)))
        self.assertTrue(self.stream.is_closed)


class TurnTests(StreamTestCase):
    """Streams whose calls take longer than a turn."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(pipelining, "TURN", TURN)
        dispatch = self.serving.mapper.dispatcher.dispatch

        def slow(message: bytes, caller: Caller) -> Outcome:
            time.sleep(TURN)
            return dispatch(message, caller)

        self.patch(self.serving.mapper.dispatcher, "dispatch", slow)

    def send(self, stream: Stream, numbers: range) -> None:
        """Send calls that take a turn each: unknown procedures are not cached."""
        stream.send(b"".join(numbered(number, call(2, 99)) for number in numbers))

    def found(self, stream: Stream) -> list[int]:
        """The xids of the replies since the last look."""
        return [xid_of(reply) for reply in stream.replies()]

    def test_wait(self) -> None:
        """They wait for another turn, in which others have theirs; nothing is read meanwhile."""
        other = Stream(self.factory)
        self.send(self.stream, range(3))
        self.send(other, range(3))
        self.assertEqual([self.found(s) for s in (self.stream, other)], [[0], [0]])
        self.assertEqual(self.stream.transport.producerState, "paused")
        self.serving.reactor.advance(0)
        self.assertEqual([self.found(s) for s in (self.stream, other)], [[1, 2], [1, 2]])
        self.assertEqual(self.stream.transport.producerState, "producing")

    def test_late_data(self) -> None:
        """What comes while calls wait is answered behind them."""
        self.stream.ask(GETPORT)
        self.send(self.stream, range(2))
        self.stream.send(numbered(2))
        self.assertEqual(self.found(self.stream), [0])
        self.serving.reactor.advance(0)
        self.assertEqual(self.found(self.stream), [1, 2])

    def test_paused(self) -> None:
        """A peer that does not read its replies has no turns until it does."""
        self.send(self.stream, range(2))
        self.stream.protocol.pauseProducing()
        self.serving.reactor.advance(0)
        self.assertEqual(self.found(self.stream), [0])
        self.stream.protocol.resumeProducing()
        self.assertEqual(self.found(self.stream), [1])
        self.assertEqual(self.stream.transport.producerState, "producing")

    def test_resumed(self) -> None:
        """One that reads them before its turn has to wait for it all the same."""
        self.send(self.stream, range(2))
        self.stream.protocol.pauseProducing()
        self.stream.protocol.resumeProducing()
        self.assertEqual(self.found(self.stream), [0])
        self.assertEqual(self.stream.transport.producerState, "paused")
        self.serving.reactor.advance(0)
        self.assertEqual(self.found(self.stream), [1])

    def test_broken(self) -> None:
        """Calls before a broken record are answered in their turns; then the stream is closed."""
        self.stream.send(numbered(0, call(2, 99)) + numbered(1, call(2, 99)) + b"\xff\xff\xff\xff")
        self.assertFalse(self.stream.is_closed)
        self.serving.reactor.advance(0)
        self.assertEqual(self.found(self.stream), [0, 1])
        self.assertTrue(self.stream.is_closed)

    def test_lost(self) -> None:
        """A stream that has ended has no further turn."""
        before = len(self.serving.reactor.getDelayedCalls())
        self.send(self.stream, range(3))
        self.stream.close()
        self.assertEqual(len(self.serving.reactor.getDelayedCalls()), before)
        self.assertEqual(self.found(self.stream), [0])


class FullTransport(StringTransport):
    """A transport that has enough after each write."""

    def __init__(self, protocol: PortmapStreamProtocol) -> None:
        super().__init__(lenient=True)
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        super().write(data)
        self.protocol.pauseProducing()


class BrokenTests(StreamTestCase):
    """Streams whose framing is lost."""

    def test_closed(self) -> None:
        """A record that is too long, or in too many fragments, closes its stream, with a line."""
        for data in (b"\xff\xff\xff\xff", b"\x00\x01\x00\x01", bytes(4) * 65):
            stream = Stream(self.factory)
            with capturedLogs() as events:
                stream.send(data)
            self.assertTrue(stream.is_closed)
            self.assertEqual(stream.replies(), [])
            (event,) = events
            self.assertIn("127.0.0.1 port 40000 over tcp: a record of more", formatEvent(event))
            stream.close()

    def test_answered_before(self) -> None:
        """Calls before the broken record are answered."""
        self.stream.send(numbered(1) + numbered(2, NULL) + b"\xff\xff\xff\xff" + numbered(3))
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], [1, 2])
        self.assertTrue(self.stream.is_closed)

    def test_answered_before_while_paused(self) -> None:
        """They are even if their peer was not reading when it broke the stream."""
        self.stream.protocol.pauseProducing()
        self.stream.send(numbered(1) + b"\xff\xff\xff\xff")
        self.assertFalse(self.stream.is_closed)
        self.stream.protocol.resumeProducing()
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], [1])
        self.assertTrue(self.stream.is_closed)

    def test_malformed_call(self) -> None:
        """A malformed call within a whole record is not a reason to close."""
        self.stream.send(mark(b"junk") + mark(call(2, 3)))
        self.assertFalse(self.stream.is_closed)
        self.assertEqual(len(self.stream.replies()), 1)

    def test_others(self) -> None:
        """Other streams go on."""
        other = Stream(self.factory)
        self.stream.send(b"\xff\xff\xff\xff")
        self.assertEqual(other.ask(GETPORT), xdr.uint(9))


class HalfClosedTests(StreamTestCase):
    """Peers that send nothing more, and wait."""

    def half_close(self) -> None:
        """Have the peer shut its sending side."""
        self.stream.protocol.readConnectionLost()

    def test_nothing_left(self) -> None:
        """When every call has its reply, the stream is closed, an unfinished call or not."""
        self.stream.send(mark(GETPORT) + mark(GETPORT)[:9])
        self.half_close()
        self.assertEqual(len(self.stream.replies()), 1)
        self.assertTrue(self.stream.is_closed)

    def test_forwarded(self) -> None:
        """Calls that are forwarded are waited for, all of them."""
        for number in range(3):
            arguments = remote_call(7, 1, 3, number.to_bytes(4, "big"))
            self.stream.send(numbered(number, call(2, 5, arguments)))
        self.half_close()
        (port,) = self.serving.reactor.sockets
        for made, address in port.sent:
            self.assertFalse(self.stream.is_closed)
            port.receive(success(xid_of(made), b""), address)
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], [0, 1, 2])
        self.assertTrue(self.stream.is_closed)

    def test_no_reply(self) -> None:
        """Those that get no reply are waited for no longer than that is open."""
        self.stream.send(mark(b"junk") + numbered(1, call(2, 5, remote_call(8, 1, 3))))
        self.stream.send(numbered(2, call(2, 5, remote_call(7, 1, 3))))
        self.half_close()
        self.serving.reactor.advance(TIMEOUT * 0.9)
        self.assertFalse(self.stream.is_closed)
        self.serving.reactor.advance(TIMEOUT * 0.2)
        self.assertEqual(self.stream.replies(), [])
        self.assertTrue(self.stream.is_closed)

    def test_not_reading(self) -> None:
        """Calls that wait until the peer reads are answered then."""
        self.stream.protocol.pauseProducing()
        self.stream.send(numbered(1) + numbered(2, NULL))
        self.half_close()
        self.assertFalse(self.stream.is_closed)
        self.stream.protocol.resumeProducing()
        self.assertEqual([xid_of(reply) for reply in self.stream.replies()], [1, 2])
        self.assertTrue(self.stream.is_closed)

    def test_gone(self) -> None:
        """One that goes altogether meanwhile is not closed once more."""
        self.stream.send(numbered(0, call(2, 5, remote_call(7, 1, 3))))
        self.half_close()
        self.stream.close()
        (port,) = self.serving.reactor.sockets
        ((made, address),) = port.sent
        port.receive(success(xid_of(made), b""), address)
        self.assertFalse(self.stream.is_closed)


class LimitTests(StreamTestCase):
    """Idle streams, and too many of them."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        self.serving.reactor.pump([IDLE / SWEEPS / 5] * round(seconds / (IDLE / SWEEPS / 5)))

    def test_idle(self) -> None:
        """A stream without a call is closed after its time, not before and not much later."""
        self.pass_time(IDLE * 0.99)
        self.assertFalse(self.stream.is_closed)
        self.pass_time(IDLE * (0.01 + 1.1 / SWEEPS))
        self.assertTrue(self.stream.is_closed)

    def test_idle_within_a_record(self) -> None:
        """Bytes that complete no call do not keep it open."""
        self.stream.send(b"\x80\0\1\0")
        for _ in range(3 * SWEEPS):
            self.stream.send(b"x")
            self.pass_time(IDLE / SWEEPS)
        self.assertTrue(self.stream.is_closed)

    def test_busy(self) -> None:
        """Calls do, known ones and others, even if they deserve no answer."""
        streams = [self.stream, Stream(self.factory), Stream(self.factory)]
        for _ in range(4):
            for stream, message in zip(streams, (GETPORT, call(2, 6), b"junk"), strict=True):
                stream.send(mark(message))
            self.pass_time(IDLE * 0.75)
        self.assertEqual([stream.is_closed for stream in streams], [False] * 3)

    def test_never_reading(self) -> None:
        """A peer that does not read its replies is idle."""
        self.stream.protocol.pauseProducing()
        self.stream.send(mark(GETPORT) * 9)
        self.pass_time(2 * IDLE)
        self.assertTrue(self.stream.is_closed)

    def test_many_idle(self) -> None:
        """Very many idle streams are closed in several turns; one that is used meanwhile is not."""
        turns = WatchedTurns(self.serving.reactor)
        factory = PortmapStreamFactory(
            self.serving.call_server, self.serving.reactor, turns, IDLE, MAX_STREAMS
        )
        factory.startFactory()
        self.addCleanup(factory.stopFactory)
        streams = [Stream(factory) for _ in range(20)]
        self.patch(stream_module, "TURN", 0.0)

        def use() -> None:
            """Use a stream that is about to be closed."""
            next(stream for stream in streams if not stream.is_closed).send(mark(NULL))

        turns.watch = use
        self.pass_time(IDLE * (1 + 1.1 / SWEEPS))
        self.assertEqual(sum(not stream.is_closed for stream in streams), 1)
        self.assertGreaterEqual(turns.added, 19)

    def test_share(self) -> None:
        """Another network has a share; beyond it, its own stream that was idle longest goes."""
        factory = self.made(limit=4 * LIMIT)
        for network in (["192.0.2.1"], ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"]):
            other = Stream(factory, "192.0.2.2")
            greedy = [Stream(factory, network[n % len(network)]) for n in range(LIMIT)]
            greedy[0].ask(GETPORT)
            greedy.append(Stream(factory, network[0]))
            closed = [stream.is_closed for stream in greedy]
            self.assertEqual(closed, [False, True] + [False] * (LIMIT - 1))
            self.assertEqual(greedy[-1].ask(GETPORT), xdr.uint(9))
            self.assertFalse(other.is_closed)
            for stream in (*greedy, other):
                stream.close()

    def test_unknown_users(self) -> None:
        """When half are taken, callers of this host whose user is not known share one share."""
        factory = self.made(limit=4 * LIMIT)
        before = [Stream(factory) for _ in range(2 * LIMIT)]
        own = [Stream(factory) for _ in range(LIMIT + 1)]
        self.assertFalse(any(stream.is_closed for stream in before))
        self.assertEqual([stream.is_closed for stream in own], [True] + [False] * LIMIT)

    def test_limit(self) -> None:
        """For a further stream, the one that was idle longest goes, with a line in the log."""
        streams = [self.stream, *(Stream(self.factory, f"192.0.2.{n}") for n in range(LIMIT - 1))]
        self.stream.ask(GETPORT)
        with capturedLogs() as events:
            further = Stream(self.factory, "192.0.2.99")
        self.assertEqual(further.ask(GETPORT), xdr.uint(9))
        closed = [stream.is_closed for stream in streams]
        self.assertEqual(closed, [False, True] + [False] * (LIMIT - 2))
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "a connection of 192.0.2.0 port 40000 over tcp is closed: "
                "too many streams, and it was idle longest"
            ],
        )

    def test_slow_senders(self) -> None:
        """Bytes that complete no call do not make a stream a used one."""
        slow = [Stream(self.factory, f"192.0.2.{n}") for n in range(LIMIT)]
        for stream in slow:
            stream.send(mark(GETPORT)[:9])
        self.stream.ask(GETPORT)
        for number in range(100):
            further = Stream(self.factory, f"198.51.100.{number}")
            self.assertEqual(further.ask(GETPORT), xdr.uint(9))
        self.assertTrue(all(stream.is_closed for stream in slow))

    def test_stop(self) -> None:
        """When its listening socket ends, so do all of its streams, and its clock."""
        factory = self.made()
        before = len(self.serving.reactor.getDelayedCalls())
        factory.startFactory()
        stream = Stream(factory)
        factory.stopFactory()
        self.assertTrue(stream.is_closed)
        self.assertEqual(len(self.serving.reactor.getDelayedCalls()), before)

    def test_excluded(self) -> None:
        """Hosts that may not ask are not accepted; this host always is."""
        policy = Policy(allowed=(ALLOWED,))
        factory = self.made(Serving(policy))
        self.assertFalse(Stream(factory, "192.0.2.7").is_accepted)
        self.assertFalse(Stream(factory, "2001:db8::7").is_accepted)
        self.assertTrue(Stream(factory, "10.1.2.3").is_accepted)
        self.assertTrue(Stream(factory, "127.0.0.1").is_accepted)


class CredentialTests(SynchronousTestCase):
    """The credentials of the process at the other end of a UNIX stream."""

    def test_credentials(self) -> None:
        """The kernel tells process, user and group."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            found = peer_credentials(ours)
        self.assertEqual(found, (os.getpid(), os.geteuid(), os.getegid()))


class StreamProperties(StreamTestCase):
    """What holds for all streams."""

    @PROPERTY
    @given(
        st.lists(st.sampled_from((GETPORT, NULL, call(2, 99), call(2, 4))), max_size=8),
        st.lists(st.integers(0, 500), max_size=6),
        st.lists(st.booleans(), min_size=7, max_size=7),
    )
    def test_any_split(self, messages: list[bytes], cuts: list[int], pauses: list[bool]) -> None:
        """In any split, read or not read in between, each call has its reply, in order."""
        stream = Stream(self.factory)
        data = b"".join(numbered(number, message) for number, message in enumerate(messages))
        edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        for (start, end), pause in zip(pairwise(edges), pauses, strict=False):
            if pause:
                stream.protocol.pauseProducing()
            stream.send(data[start:end])
            stream.protocol.resumeProducing()
        found = [xid_of(reply) for reply in stream.replies()]
        stream.close()
        self.assertEqual(found, list(range(len(messages))))
