"""Forwarded calls: bounded in number and time, each answer for its own caller alone."""

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import SystemFailure
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import decode_call, decode_reply, success, xid_of
from portmapd.oncrpc.netid import TCP
from portmapd.portmapper.caller import Caller
from portmapd.registry.mapping import mapping
from portmapd.server.call_forwarder import (
    MAX_CALLS,
    MAX_OF_CALLER,
    MAX_OF_SERVICE,
    MAX_OF_SILENT,
    SILENT_TIMEOUT,
    TIMEOUT,
)
from tests.support.rpc_samples import XID, call, local, loopback, remote_call
from tests.support.rpc_server import MemoryPort, Serving

CALLIT, INDIRECT = (2, 5), (4, 10)
SERVICE = ("127.0.0.1", 2049)


class ForwardingTestCase(SynchronousTestCase):
    """A port mapper that knows a program over UDP.

    :ivar replies: what callers were sent.
    """

    def setUp(self) -> None:
        self.serving = Serving()
        self.reactor = self.serving.reactor
        self.serving.registry.map(mapping(7, 1, "udp", "0.0.0.0.8.1"))
        self.replies: list[bytes] = []
        #: How many calls ended without a reply.
        self.silent = 0

    def ask(
        self,
        arguments: bytes = b"",
        kind: tuple[int, int] = CALLIT,
        caller: Caller | None = None,
        program: int = 7,
    ) -> None:
        """Have the program called."""
        message = call(*kind, remote_call(program, 1, 3, arguments))
        reply = self.serving.call_server.serve(message, caller or loopback(), self.respond)
        self.assertFalse(reply)

    def respond(self, reply: bytes | None) -> None:
        """Take a reply."""
        if reply is None:
            self.silent += 1
        else:
            self.replies.append(reply)

    @property
    def port(self) -> MemoryPort:
        """The socket that calls leave from."""
        (port,) = self.reactor.sockets
        return port

    def xids(self) -> list[int]:
        """The xids of the calls that left."""
        return [xid_of(message) for message, _ in self.port.sent]

    def answer(self, xid: int, results: bytes = b"done", where: tuple[str, int] = SERVICE) -> None:
        """Have a service answer."""
        self.port.receive(success(xid, results), where)


class CallTests(ForwardingTestCase):
    """Calls and answers."""

    def test_call(self) -> None:
        """The call goes where the service is, and its results to who asked."""
        self.ask(b"argument")
        ((message, where),) = self.port.sent
        self.assertEqual(where, SERVICE)
        made = decode_call(message)
        self.assertEqual((made.program, made.version, made.procedure), (7, 1, 3))
        self.assertEqual(made.arguments, b"argument")
        self.assertEqual(self.replies, [])
        self.answer(made.xid)
        (reply,) = self.replies
        self.assertEqual(xid_of(reply), XID)
        self.assertEqual(decode_reply(reply), xdr.uint(2049) + xdr.opaque(b"done"))

    def test_once(self) -> None:
        """Of several answers, the first counts."""
        self.ask()
        for _ in range(3):
            self.answer(self.xids()[0])
        self.assertEqual(len(self.replies), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_each_its_own(self) -> None:
        """Calls that are under way together do not mix, in whichever order they are answered."""
        for number in range(5):
            self.ask(bytes((number,)) * 4, caller=loopback(port=5000 + number))
        xids = self.xids()
        self.assertEqual(len(set(xids)), 5)
        for number in (3, 0, 4, 1, 2):
            self.answer(xids[number], bytes((number,)))
        results = [decode_reply(reply) for reply in self.replies]
        expected = [xdr.uint(2049) + xdr.opaque(bytes((n,))) for n in (3, 0, 4, 1, 2)]
        self.assertEqual(results, expected)

    def test_xids_are_ours(self) -> None:
        """The caller's xid, which it may have chosen, is not the call's."""
        xids = []
        for _ in range(4):
            self.ask()
            xids.append(self.xids()[-1])
            self.answer(xids[-1])
        self.assertEqual(len(set(xids)), 4)

    def test_forged(self) -> None:
        """Answers from elsewhere, with other xids, or that are none, are not answers."""
        self.ask()
        (xid,) = self.xids()
        self.answer(xid, where=("127.0.0.1", 2050))
        self.answer(xid, where=("127.0.0.2", 2049))
        self.answer(xid ^ 1)
        self.port.receive(b"abc", SERVICE)
        self.port.receive(b"", SERVICE)
        self.assertEqual(self.replies, [])
        self.answer(xid)
        self.assertEqual(len(self.replies), 1)

    def test_failed(self) -> None:
        """An answer that is junk ends the call: CALLIT in silence, INDIRECT with SYSTEM_ERR."""
        self.ask()
        self.ask(kind=INDIRECT)
        for xid in self.xids():
            self.port.receive(xdr.uint(xid) + b"junk", SERVICE)
        (reply,) = self.replies
        self.assertRaises(SystemFailure, decode_reply, reply)

    def test_source(self) -> None:
        """Calls leave from an address that only this host reaches, one socket a family."""
        self.serving.registry.map(mapping(8, 1, "udp6", "::.8.1"))
        for _ in range(2):
            for program in (7, 8):
                self.ask(caller=loopback(TCP, 5000 + len(self.reactor.sockets)), program=program)
        interfaces = [port.interface for port in self.reactor.sockets]
        self.assertEqual(interfaces, ["127.0.0.1", "::1"])


class BoundTests(ForwardingTestCase):
    """What calls may take."""

    def test_timeout(self) -> None:
        """A call that is not answered in time has failed; a late answer is none."""
        self.ask()
        self.ask(kind=INDIRECT)
        self.reactor.advance(TIMEOUT * 0.99)
        self.assertEqual(self.replies, [])
        self.reactor.advance(TIMEOUT * 0.02)
        (reply,) = self.replies
        self.assertRaises(SystemFailure, decode_reply, reply)
        self.assertEqual(self.silent, 1)
        for xid in self.xids():
            self.answer(xid)
        self.assertEqual(len(self.replies), 1)

    def test_retransmission(self) -> None:
        """A caller that asks again meanwhile has no second call made, and one reply."""
        for _ in range(3):
            self.ask()
        self.assertEqual(len(self.port.sent), 1)
        self.answer(self.xids()[0])
        self.assertEqual(len(self.replies), 1)

    def test_same_question_of_others(self) -> None:
        """The same question of another caller is another question."""
        self.ask(caller=loopback(port=5000))
        self.ask(caller=loopback(port=5001))
        self.assertEqual(len(self.port.sent), 2)

    def test_asked_again(self) -> None:
        """So is one that was answered, or timed out, before."""
        self.ask()
        self.answer(self.xids()[0])
        self.ask()
        self.reactor.advance(TIMEOUT)
        self.ask()
        self.assertEqual(len(self.port.sent), 3)

    def fill(self, count: int, caller: Caller, program: int = 7, start: int = 0) -> None:
        """Have the program called so many times, each time with other arguments."""
        for number in range(start, start + count):
            self.ask(number.to_bytes(4, "big"), caller=caller, program=program)

    def test_most_to_a_service(self) -> None:
        """A service is sent only so many calls; each that ends makes room for one."""
        self.fill(MAX_OF_SERVICE + 5, loopback())
        self.assertEqual(len(self.port.sent), MAX_OF_SERVICE)
        self.answer(self.xids()[0])
        self.fill(5, loopback(), start=1_000)
        self.assertEqual(len(self.port.sent), MAX_OF_SERVICE + 1)
        self.assertEqual(len(self.reactor.getDelayedCalls()), MAX_OF_SERVICE)

    def test_most_of_a_caller(self) -> None:
        """One host has only so many calls under way, one user of this host as many, and others
        have room.
        """
        for program in (8, 9):
            self.serving.registry.map(mapping(program, 1, "udp", f"0.0.0.0.8.{program}"))
        for program in (7, 8, 9):
            self.fill(MAX_OF_SERVICE, loopback(), program)
        self.assertEqual(len(self.port.sent), MAX_OF_CALLER)
        self.fill(MAX_OF_SERVICE, local(500), 9, start=1_000)
        self.assertEqual(len(self.port.sent), MAX_CALLS)
        self.fill(1, local(501), 9, start=2_000)
        self.assertEqual(len(self.port.sent), MAX_CALLS)

    def test_silent_service(self) -> None:
        """A service that does not answer is waited for less, and has less room, until it does."""
        self.ask()
        self.reactor.advance(TIMEOUT)
        self.port.sent.clear()
        self.fill(MAX_OF_SERVICE, loopback())
        self.assertEqual(len(self.port.sent), MAX_OF_SILENT)
        self.reactor.advance(SILENT_TIMEOUT)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.ask()
        self.answer(self.xids()[-1])
        self.port.sent.clear()
        self.fill(MAX_OF_SERVICE, loopback())
        self.assertEqual(len(self.port.sent), MAX_OF_SERVICE)

    def test_unsendable(self) -> None:
        """A call that cannot be sent has failed at once, whatever the reason."""
        self.ask()
        self.answer(self.xids()[0])
        self.replies.clear()
        for fault in (OSError(101, "Network is unreachable"), MessageLengthError("too long")):
            self.port.fault = fault
            self.ask(kind=INDIRECT)
            self.assertRaises(SystemFailure, decode_reply, self.replies.pop())
            self.ask()
            self.assertEqual(self.replies, [])
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_socket(self) -> None:
        """So has one that no socket can be had for; the next one tries again."""
        self.reactor.fault = CannotListenError("127.0.0.1", 0, OSError(24, "Too many open files"))
        self.ask(kind=INDIRECT)
        self.assertRaises(SystemFailure, decode_reply, self.replies.pop())
        self.reactor.fault = None
        self.ask()
        self.assertEqual(len(self.port.sent), 1)

    def test_stop(self) -> None:
        """At the end, calls are dropped, timers stopped and sockets closed."""
        self.ask()
        self.ask(kind=INDIRECT)
        port, xids = self.port, self.xids()
        self.serving.forwarder.stop()
        self.assertTrue(port.stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        for xid in xids:
            port.receive(success(xid, b""), SERVICE)
        self.assertEqual(self.replies, [])
