"""The client of program 100000: what it asks, and what it reads in the answers."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

import portmapd.client
from portmapd.client.rpc.client import PortmapClient
from portmapd.errors import (
    AuthRefused,
    CallRefused,
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
        """Neither 0 nor 1 is no answer to SET."""
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


class ArgumentTests(SynchronousTestCase):
    """What cannot be asked is an error with a message: at once from the constructor, else later."""

    def test_construction(self) -> None:
        """Hosts are addresses, transports are known, timeouts are positive."""
        reactor = MemoryReactorClock()
        for arguments, said in (
            ({"host": "localhost"}, "'localhost' does not appear to be an IPv4 or IPv6 address"),
            ({"host": "localhost", "transport": "tcp"}, "does not appear to be"),
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
        )
        for method in methods:
            said = str(self.failureResultOf(method(), ValueError).value)
            self.assertIn("not in the range 0 to 4294967295", said)
        self.assertEqual((reactor.tcpClients, reactor.getDelayedCalls()), ([], []))

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
