"""The client of program 100000: what it asks, and what it reads in the answers."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

import portmapd.client
from portmapd.client.rpc.client import PortmapClient
from portmapd.client.rpc.operations import SLICE
from portmapd.errors import (
    AuthRefused,
    CallRefused,
    CallTimedOut,
    GarbageArguments,
    PeerFault,
    PortmapdError,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    RpcMismatch,
    SystemFailure,
)
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import (
    AUTH_TOOWEAK,
    XID,
    Call,
    decode_call,
    encode_call,
    refusal,
    success,
    sys_credential,
)
from portmapd.oncrpc.program import (
    CallResult,
    Pmap,
    RemoteCall,
    Rpcb,
    encode_call_result,
    encode_pmap,
    encode_rpcb,
    read_remote_call,
)
from portmapd.oncrpc.record import mark
from tests.support.rpc_peer import Peer

REFUSALS: tuple[CallRefused, ...] = (
    RpcMismatch(),
    AuthRefused(AUTH_TOOWEAK),
    ProgramUnavailable(),
    ProgramMismatch(2, 4),
    ProcedureUnavailable(),
    GarbageArguments(),
    SystemFailure(),
)


class ProcedureTests(SynchronousTestCase):
    """Each method: the call that it makes, and what it reads in the answer."""

    #: Method and arguments; version and procedure; encoded arguments; results; their value.
    ROWS: ClassVar[
        list[tuple[Callable[[PortmapClient], Deferred[Any]], Any, bytes, bytes, Any]]
    ] = [
        (lambda c: c.null(), (2, 0), b"", b"", None),
        (lambda c: c.null(4), (4, 0), b"", b"", None),
        (lambda c: c.set(7, 1, 6, 80), (2, 1), encode_pmap(Pmap(7, 1, 6, 80)), xdr.uint(1), True),
        (lambda c: c.set(7, 1, 6, 80), (2, 1), encode_pmap(Pmap(7, 1, 6, 80)), xdr.uint(0), False),
        (lambda c: c.unset(7, 1), (2, 2), encode_pmap(Pmap(7, 1, 0, 0)), xdr.uint(1), True),
        (lambda c: c.getport(7, 1, 17), (2, 3), encode_pmap(Pmap(7, 1, 17, 0)), xdr.uint(9), 9),
        (
            lambda c: c.dump(),
            (2, 4),
            b"",
            xdr.sequence([encode_pmap(Pmap(7, n, 17, 9)) for n in (1, 2)]),
            (Pmap(7, 1, 17, 9), Pmap(7, 2, 17, 9)),
        ),
        (
            lambda c: c.getaddr(7, 1),
            (4, 3),
            encode_rpcb(Rpcb(7, 1, "tcp")),
            xdr.string("192.0.2.1.0.9"),
            "192.0.2.1.0.9",
        ),
        (
            lambda c: c.set_address(7, 1, "udp6", "::.0.9"),
            (4, 1),
            encode_rpcb(Rpcb(7, 1, "udp6", "::.0.9")),
            xdr.uint(1),
            True,
        ),
        (
            lambda c: c.unset_address(7, 1, "local"),
            (4, 2),
            encode_rpcb(Rpcb(7, 1, "local")),
            xdr.uint(0),
            False,
        ),
        (
            lambda c: c.unset_address(7, 1),
            (4, 2),
            encode_rpcb(Rpcb(7, 1)),
            xdr.uint(1),
            True,
        ),
        (
            lambda c: c.dump_addresses(),
            (4, 4),
            b"",
            xdr.sequence([encode_rpcb(Rpcb(7, 1, "udp", "0.0.0.0.0.9", "104"))]),
            (Rpcb(7, 1, "udp", "0.0.0.0.0.9", "104"),),
        ),
        (
            lambda c: c.callit(7, 1, 2, b"abcd"),
            (2, 5),
            Struct(">IIII4s").pack(7, 1, 2, 4, b"abcd"),
            encode_call_result(CallResult(9, b"results")),
            CallResult(9, b"results"),
        ),
    ]

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.credential = sys_credential(1000, 100, (4, 24), "here", 5)
        self.client = PortmapClient(self.reactor, transport="tcp", credential=self.credential)
        self.peer = Peer(self.reactor)
        self.client.null().addErrback(lambda _: None)
        self.peer.accept()
        self.peer.answer(b"")

    def test_calls_and_results(self) -> None:
        """Calls are encoded, and results decoded, as the RFC has them."""
        for method, procedure, arguments, results, value in self.ROWS:
            reply = method(self.client)
            call = self.peer.answer(results)
            version, number = procedure
            expected = Call(call.xid, 100000, version, number, self.credential, arguments)
            self.assertEqual(call, expected)
            self.assertEqual(self.successResultOf(reply), value)

    def test_refusals(self) -> None:
        """Each error status is raised as its own class, with what it says."""
        for refused in REFUSALS:
            reply = self.client.null()
            (call,) = self.peer.calls()
            self.peer.send(mark(refusal(call.xid, refused)))
            error: Any = self.failureResultOf(reply, type(refused)).value
            for name in ("stat", "low", "high"):
                self.assertEqual(getattr(error, name, None), getattr(refused, name, None))

    def test_truncated(self) -> None:
        """An answer that is cut short anywhere is the peer's fault, and never a value."""
        for method, _, _, results, _ in self.ROWS:
            size = len(success(0, results))
            for end in range(XID, size):
                reply = method(self.client)
                (call,) = self.peer.calls()
                self.peer.send(mark(success(call.xid, results)[:end]))
                self.failureResultOf(reply, PeerFault)

    def test_no_boolean(self) -> None:
        """Neither 0 nor 1 is not an answer to SET."""
        reply = self.client.set(7, 1, 17, 9)
        self.peer.answer(xdr.uint(2))
        self.failureResultOf(reply, PeerFault)

    def test_any_bytes(self) -> None:
        """Whatever comes instead of an answer is an error of ours, not a crash."""
        for body in (bytes(60), b"\xff" * 60, bytes(range(60))):
            reply = self.client.dump()
            (call,) = self.peer.calls()
            self.peer.send(mark(xdr.uint(call.xid) + body))
            self.failureResultOf(reply, PortmapdError)


class FallbackTests(SynchronousTestCase):
    """What is asked where the port mapper does not serve the newest version."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = PortmapClient(self.reactor, transport="tcp")
        self.peer = Peer(self.reactor)
        self.client.null().addErrback(lambda _: None)
        self.peer.accept()
        self.peer.answer(b"")

    def refuse(self, refused: CallRefused) -> tuple[int, int]:
        """Refuse the only call; give its version and procedure."""
        (call,) = self.peer.calls()
        self.peer.send(mark(refusal(call.xid, refused)))
        return call.version, call.procedure

    def test_getaddr(self) -> None:
        """GETADDR of version 4, then 3, then GETPORT, whose port is one of the server's address."""
        for refused in (ProgramMismatch(2, 2), ProgramMismatch(1, 4), ProgramUnavailable()):
            reply = self.client.getaddr(7, 1)
            asked = [self.refuse(refused), self.refuse(refused)]
            self.assertEqual(asked, [(4, 3), (3, 3)])
            call = self.peer.answer(xdr.uint(2049))
            self.assertEqual((call.version, call.procedure), (2, 3))
            self.assertEqual(call.arguments, encode_pmap(Pmap(7, 1, 6)))
            # The address of StringTransport's peer.
            self.assertEqual(self.successResultOf(reply), "192.168.1.1.8.1")

    def test_getaddr_version_3(self) -> None:
        """What version 3 answers is the answer."""
        reply = self.client.getaddr(7, 1)
        self.refuse(ProgramMismatch(2, 3))
        self.peer.answer(xdr.string("192.0.2.1.0.9"))
        self.assertEqual(self.successResultOf(reply), "192.0.2.1.0.9")

    def test_not_registered(self) -> None:
        """Neither an empty address of version 4 nor port 0 of version 2 is an address."""
        reply = self.client.getaddr(7, 1)
        self.peer.answer(xdr.string(""))
        self.assertEqual(self.successResultOf(reply), "")
        reply = self.client.getaddr(7, 1)
        for _ in range(2):
            self.refuse(ProgramMismatch(2, 2))
        self.peer.answer(xdr.uint(0))
        self.assertEqual(self.successResultOf(reply), "")

    def test_other_errors_end_it(self) -> None:
        """Any other refusal, and a server that is too new, end it at once."""
        calls: tuple[Callable[[], Deferred[Any]], ...] = (
            lambda: self.client.getaddr(7, 1),
            self.client.dump_addresses,
            lambda: self.client.set_address(7, 1, "udp", "0.0.0.0.0.9"),
            lambda: self.client.unset_address(7, 1),
        )
        for refused in (
            ProcedureUnavailable(),
            AuthRefused(AUTH_TOOWEAK),
            GarbageArguments(),
            SystemFailure(),
            RpcMismatch(),
            ProgramMismatch(5, 6),
        ):
            for call in calls:
                reply = call()
                self.refuse(refused)
                self.failureResultOf(reply, type(refused))
                self.assertEqual(self.peer.calls(), [])

    def test_no_version_at_all(self) -> None:
        """A server without the program says so."""
        reply = self.client.getaddr(7, 1)
        for _ in range(3):
            self.refuse(ProgramUnavailable())
        self.failureResultOf(reply, ProgramUnavailable)

    def test_set_and_unset(self) -> None:
        """Version 3 sets what version 4 cannot; version 2 has no netids."""
        reply = self.client.set_address(7, 1, "tcp6", "::.0.9")
        self.refuse(ProgramMismatch(2, 3))
        call = self.peer.answer(xdr.uint(1))
        self.assertEqual((call.version, call.procedure), (3, 1))
        self.assertTrue(self.successResultOf(reply))
        reply = self.client.unset_address(7, 1)
        for _ in range(2):
            self.refuse(ProgramMismatch(2, 2))
        self.failureResultOf(reply, ProgramMismatch)

    def test_dump(self) -> None:
        """DUMP of version 4, then 3, then 2, whose mappings are told with netids and addresses."""
        reply = self.client.dump_addresses()
        self.assertEqual([self.refuse(ProgramMismatch(2, 2)) for _ in range(2)], [(4, 4), (3, 4)])
        pmaps = [Pmap(7, 1, 17, 2049), Pmap(7, 1, 6, 9), Pmap(7, 1, 132, 9)]
        call = self.peer.answer(xdr.sequence(list(map(encode_pmap, pmaps))))
        self.assertEqual((call.version, call.procedure), (2, 4))
        rows = (
            Rpcb(7, 1, "udp", "0.0.0.0.8.1", "unknown"),
            Rpcb(7, 1, "tcp", "0.0.0.0.0.9", "unknown"),
            Rpcb(7, 1, "132", "0.0.0.0.0.9", "unknown"),
        )
        self.assertEqual(self.successResultOf(reply), rows)

    def test_one_timeout_for_all(self) -> None:
        """The timeout is that of the operation, not of each call in it."""
        reply = self.client.getaddr(7, 1)
        for _ in range(2):
            self.reactor.advance(4)
            self.refuse(ProgramMismatch(2, 2))
        self.assertNoResult(reply)
        self.reactor.advance(2)
        self.failureResultOf(reply, CallTimedOut)


class LongListTests(SynchronousTestCase):
    """Long lists are read in slices."""

    def ask(self, results: bytes) -> tuple[MemoryReactorClock, Deferred[Any]]:
        """Ask for all mappings, and answer with *results*."""
        reactor = MemoryReactorClock()
        client = PortmapClient(reactor, transport="tcp")
        peer = Peer(reactor)
        reply = client.dump()
        peer.accept()
        peer.answer(results)
        return reactor, reply

    def test_slices(self) -> None:
        """A list of several slices is there after further turns of the reactor, whole."""
        pmaps = [Pmap(7, number, 17, 9) for number in range(2 * SLICE + 1)]
        reactor, reply = self.ask(xdr.sequence(list(map(encode_pmap, pmaps))))
        self.assertFalse(reply.called)
        reactor.advance(0)
        self.assertTrue(self.successResultOf(reply) == tuple(pmaps))
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_malformed_later(self) -> None:
        """A list that is malformed behind its first slice fails the call."""
        item = xdr.uint(1) + encode_pmap(Pmap(7, 1, 17, 9))
        reactor, reply = self.ask(item * SLICE + xdr.uint(2))
        reactor.advance(0)
        self.failureResultOf(reply, PeerFault)

    def test_cancelled(self) -> None:
        """Cancelling ends the reading."""
        reactor, reply = self.ask((xdr.uint(1) + bytes(16)) * SLICE * 3 + xdr.uint(0))
        reply.cancel()
        self.failureResultOf(reply, CancelledError)
        self.assertEqual(reactor.getDelayedCalls(), [])


class ArgumentTests(SynchronousTestCase):
    """What cannot be asked is an error with a message: at once from the constructor, else later."""

    def test_construction(self) -> None:
        """Hosts are addresses or names, transports are known, timeouts are positive."""
        reactor = MemoryReactorClock()
        for arguments, said in (
            ({"host": ""}, "host '' is neither an address nor a name"),
            ({"host": "two words", "transport": "tcp"}, "host 'two words' is neither"),
            ({"host": "a\0b"}, "is neither"),
            ({"host": "[::1]"}, "is neither"),
            ({"host": "localhost:111", "transport": "tcp"}, "is neither"),
            ({"host": "192.0.2.0/24"}, "is neither"),
            ({"host": "label" * 13}, "is neither"),
            ({"host": "a..b", "transport": "tcp"}, "is neither"),
            ({"host": ".".join(["label"] * 43)}, "is neither"),
            ({"port": 0}, "port 0 is not in the range 1 to 65535"),
            ({"port": 65536, "transport": "tcp"}, "port 65536 is not in the range"),
            ({"transport": "sctp"}, "transport 'sctp' is none of udp, tcp, local"),
            ({"timeout": 0}, "timeout 0 is not a number of seconds above 0"),
            ({"timeout": float("nan")}, "timeout nan"),
        ):
            keywords: dict[str, Any] = arguments
            error = self.assertRaises(ValueError, PortmapClient, reactor, **keywords)
            self.assertIn(said, str(error))

    def test_numbers(self) -> None:
        """Numbers that do not fit 32 bits fail the Deferred, and nothing is sent."""
        reactor = MemoryReactorClock()
        client = PortmapClient(reactor, transport="tcp")
        big = 1 << 32
        methods: tuple[Callable[[], Deferred[Any]], ...] = (
            lambda: client.null(big),
            lambda: client.set(big, 1, 17, 9),
            lambda: client.unset(1, -1),
            lambda: client.getport(1, 1, big),
            lambda: client.getaddr(big, 1),
            lambda: client.callit(1, 1, big),
            lambda: client.set_address(big, 1, "udp", "0.0.0.0.0.9"),
            lambda: client.unset_address(1, big),
            lambda: client.broadcast(1, 1, big),
        )
        for method in methods:
            said = str(self.failureResultOf(method(), ValueError).value)
            self.assertIn("not in the range 0 to 4294967295", said)
        self.assertEqual((reactor.tcpClients, reactor.getDelayedCalls()), ([], []))

    def test_addresses(self) -> None:
        """Netids and addresses that are none fail the Deferred, and nothing is sent."""
        reactor = MemoryReactorClock()
        client = PortmapClient(reactor, transport="tcp")
        for netid, address, said in (
            ("sctp", "0.0.0.0.0.9", "netid 'sctp' is none of udp, tcp, udp6, tcp6, local"),
            ("", "0.0.0.0.0.9", "netid '' is none of"),
            ("udp", "", "does not end with the two bytes of a port"),
            ("udp", "0.0.0.0.0.0", "has port 0"),
            ("tcp6", "127.0.0.1.0.9", "is not an inet6 address"),
            ("local", "0.0.0.0.0.9", "is not an absolute path"),
        ):
            reply = client.set_address(7, 1, netid, address)
            self.assertIn(said, str(self.failureResultOf(reply, ValueError).value))
        self.failureResultOf(client.unset_address(7, 1, "sctp"), ValueError)
        self.assertEqual((reactor.tcpClients, reactor.getDelayedCalls()), ([], []))

    def test_broadcast(self) -> None:
        """A broadcast that cannot end, or that no datagram carries, fails the Deferred."""
        reactor = MemoryReactorClock()
        client = PortmapClient(reactor)
        for keywords, said in (
            ({"timeout": 0}, "timeout 0 is not a number of seconds above 0"),
            ({"timeout": -1.5}, "timeout -1.5"),
            ({"limit": 0}, "limit 0 is not a number of replies above 0"),
            ({"arguments": bytes(65_536)}, "does not fit a datagram"),
        ):
            options: dict[str, Any] = keywords
            reply = client.broadcast(7, 1, 0, **options)
            self.assertIn(said, str(self.failureResultOf(reply, ValueError).value))
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_too_long(self) -> None:
        """A call that no datagram carries fails its Deferred, too, and no timer is left."""
        reactor = MemoryReactorClock()
        client = PortmapClient(reactor, transport="udp")
        reply = client.callit(7, 1, 1, bytes(65_536))
        said = str(self.failureResultOf(reply, ValueError).value)
        self.assertIn("does not fit a datagram", said)
        self.assertEqual(reactor.getDelayedCalls(), [])
        closed = client.close()
        reactor.advance(0)
        self.successResultOf(closed)

    def test_credential(self) -> None:
        """Too many groups, or too long a name, make no credential."""
        self.assertRaises(ValueError, sys_credential, 0, 0, tuple(range(17)))
        self.assertRaises(ValueError, sys_credential, 0, 0, (), "x" * 256)


class CodecTests(SynchronousTestCase):
    """What only the client encodes, the server reads."""

    def test_credential(self) -> None:
        """The server takes the largest credential there may be."""
        credential = sys_credential(1, 2, tuple(range(16)), "x" * 255)
        call = Call(1, 2, 3, 4, credential, b"arguments.")
        self.assertEqual(decode_call(encode_call(call)), call)

    def test_remote_call(self) -> None:
        """The arguments of CALLIT come back as they went."""
        reader = xdr.Reader(Struct(">IIII3sx").pack(1, 2, 3, 3, b"abc"))
        self.assertEqual(read_remote_call(reader), RemoteCall(1, 2, 3, b"abc"))


class ImportTests(SynchronousTestCase):
    """The package's names come when they are used."""

    def test_lazy(self) -> None:
        """Importing the package imports no Twisted."""
        code = "import portmapd.client, sys; print('twisted' in sys.modules)"
        top = Path(__file__).resolve().parents[4]
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=top
        )
        self.assertEqual(said.stdout, "False\n")

    def test_names(self) -> None:
        """Every name that the package promises is there, and no other."""
        for name in portmapd.client.__all__:
            self.assertTrue(hasattr(portmapd.client, name), name)
        self.assertFalse(hasattr(portmapd.client, "nonsense"))
