"""From calls to replies: every status of RFC 5531, results that come later, and limits."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import (
    AuthRefused,
    CallRefused,
    GarbageArguments,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    RpcMismatch,
    SystemFailure,
)
from portmapd.oncrpc.message import (
    AUTH_TOOWEAK,
    Call,
    Credential,
    SysCredential,
    decode_reply,
    encode_call,
    sys_credential,
)
from portmapd.oncrpc.netid import TCP, UDP
from portmapd.oncrpc.xdr import uint
from portmapd.portmapper.caller import Audience, Caller
from portmapd.rpc import BYTES, OPAQUE, UINT, VOID, Procedure, Program, Request, Type
from portmapd.rpc.call_server import MAX_CALLS, SHARES, TIMEOUT, ProgramServer
from portmapd.server.rate_limited_log import MAX_LINES, RateLimitedLog
from tests.support.rpc_samples import PROPERTY, loopback, remote

PROGRAM, VERSION = 0x2000_0001, 3
XID = 77


class Colour(IntEnum):
    """An enumeration, which raises ValueError for what is none of it."""

    RED = 0


class Weak(AuthRefused):
    """An application's own refusal."""


COLOUR = Type(lambda reader: Colour(reader.uint()), uint)


class ServerTestCase(SynchronousTestCase):
    """A server in memory.

    :ivar waiting: give the results of LATER and of its coroutine.
    :ivar requests: the requests that LOOK was called with.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting: list[Deferred[Any]] = []
        self.requests: list[Request] = []
        self.responses: list[bytes | None] = []
        self.server = ProgramServer((self.program(),), self.clock, RateLimitedLog(self.clock))

    def program(self) -> Program:
        """What is served."""
        return Program(
            *("sample", PROGRAM, VERSION),
            Procedure("DOUBLE", 1, UINT, UINT, lambda value, request: 2 * value),
            Procedure("FAIL", 2, UINT, UINT, lambda value, request: 1 // value),
            Procedure("REFUSE", 3, VOID, VOID, self.refuse),
            Procedure("FILL", 4, UINT, OPAQUE, lambda size, request: bytes(size)),
            Procedure("LATER", 5, VOID, UINT, self.wait),
            Procedure("COROUTINE", 6, VOID, UINT, self.wait_in_coroutine),
            Procedure("LOOK", 7, BYTES, VOID, lambda data, request: self.requests.append(request)),
            Procedure("COLOUR", 8, COLOUR, VOID, lambda colour, request: None),
            Procedure("SOON", 9, UINT, UINT, lambda value, request: succeed(value)),
        )

    def refuse(self, arguments: None, request: Request) -> None:
        """Refuse the call, with a class of our own."""
        raise Weak(AUTH_TOOWEAK)

    def wait(self, arguments: None, request: Request) -> Deferred[int]:
        """Results that come later."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def give(self, value: object) -> None:
        """Give these results to every call that waits."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            # Nobody waits for the results of a call that was refused.
            each.addErrback(lambda failure: None)
            if not each.called:
                each.callback(value)

    async def wait_in_coroutine(self, arguments: None, request: Request) -> int:
        """Results of a coroutine."""
        return await self.wait(None, request) + 1

    def serve(
        self,
        procedure: int,
        arguments: bytes = b"",
        caller: Caller | None = None,
        xid: int = XID,
        **fields: Any,
    ) -> bytes | None:
        """The reply to a call."""
        numbers = {"program": PROGRAM, "version": VERSION} | fields
        message = encode_call(Call(xid, procedure=procedure, arguments=arguments, **numbers))
        return self.server.serve(message, caller or loopback(TCP), self.responses.append)

    def results(self, *arguments: Any, **fields: Any) -> bytes:
        """The results of a call that succeeds."""
        reply = self.serve(*arguments, **fields)
        assert reply
        self.assertEqual(reply[:4], uint(XID))
        return decode_reply(reply)

    def refusal(self, *arguments: Any, **fields: Any) -> CallRefused:
        """The status of a call that fails."""
        error = self.assertRaises(CallRefused, self.results, *arguments, **fields)
        assert isinstance(error, CallRefused)
        return error


class StatusTests(ServerTestCase):
    """Each call is replied to with its status (RFC 5531, 9)."""

    def test_success(self) -> None:
        """The results are those of the procedure; procedure 0 does nothing."""
        self.assertEqual(self.results(1, uint(21)), uint(42))
        self.assertEqual(self.results(0), b"")
        self.assertEqual(self.results(9, uint(3)), uint(3))

    def test_unavailable(self) -> None:
        """What is not served is said to be not; of versions, which ones are."""
        self.assertIsInstance(self.refusal(0, program=PROGRAM + 1), ProgramUnavailable)
        self.assertIsInstance(self.refusal(99), ProcedureUnavailable)
        mismatch = self.refusal(0, version=VERSION + 1)
        assert isinstance(mismatch, ProgramMismatch)
        self.assertEqual((mismatch.low, mismatch.high), (VERSION, VERSION))

    def test_garbage(self) -> None:
        """Arguments that cannot be read, or are none of an application's type, are GARBAGE_ARGS."""
        for procedure, arguments in ((1, b""), (8, uint(5))):
            with capturedLogs() as logged:
                self.assertIsInstance(self.refusal(procedure, arguments), GarbageArguments)
            self.assertEqual([event["event"] for event in logged], ["malformed"])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failure(self) -> None:
        """A procedure that raises is SYSTEM_ERR, and one traceback in the log."""
        self.assertIsInstance(self.refusal(2, uint(0)), SystemFailure)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.results(1, uint(1)), uint(2))

    def test_many_failures(self) -> None:
        """A caller cannot fill the log with them."""
        for _ in range(3 * MAX_LINES):
            self.refusal(2, uint(0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), MAX_LINES)

    def test_failure_among_malformed_calls(self) -> None:
        """Malformed calls of strangers do not hide it."""
        for _ in range(10 * MAX_LINES):
            self.refusal(1, b"", remote(TCP))
        self.refusal(2, uint(0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_wrong_results(self) -> None:
        """Results that are none of their type are a failure of the procedure."""
        self.assertIsInstance(self.refusal(1, uint(1 << 31)), SystemFailure)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_refused(self) -> None:
        """A procedure refuses a call by the error that is its status."""
        refused = self.refusal(3)
        assert isinstance(refused, AuthRefused)
        self.assertEqual(refused.stat, AUTH_TOOWEAK)

    def test_too_large(self) -> None:
        """A reply that no datagram carries is an error over UDP, and whole over TCP."""
        size = uint(65_536)
        with capturedLogs() as logged:
            self.assertIsInstance(self.refusal(4, size, loopback(UDP)), SystemFailure)
        self.assertIn("FILL: the reply of 65564 bytes", formatEvent(logged[0]) or "")
        self.assertEqual(len(self.results(4, size)), 65_540)

    def test_rpc_version(self) -> None:
        """Another version of RPC is a status, too; what is no call gets nothing."""
        message = bytearray(encode_call(Call(XID, PROGRAM, VERSION, 0)))
        message[11] = 3
        reply = self.server.serve(bytes(message), loopback(), self.fail)
        assert reply
        self.assertRaises(RpcMismatch, decode_reply, reply)
        self.assertIsNone(self.server.serve(b"abc", loopback(), self.fail))

    def test_excluded(self) -> None:
        """A forged source gets nothing."""
        self.assertIsNone(self.serve(0, caller=remote(audience=Audience.EXCLUDED)))

    def test_credentials(self) -> None:
        """Procedures see who calls: what the network tells, and what the caller says."""
        said = sys_credential(1000, 100, (7, 8), "example", 5)
        self.results(7, b"rest", credential=said)
        self.results(7, b"", remote(), credential=Credential())
        first, second = self.requests
        self.assertEqual(first.call.credential.sys, SysCredential(5, "example", 1000, 100, (7, 8)))
        self.assertIsNone(second.call.credential.sys)
        self.assertEqual((second.caller.host, second.caller.port), ("192.0.2.7", 999))

    @PROPERTY
    @given(st.binary(max_size=80), st.integers(0, 10))
    def test_any_arguments(self, arguments: bytes, procedure: int) -> None:
        """Any arguments have a reply, or wait for one; nothing is raised."""
        if procedure in (5, 6):
            return
        self.assertNotEqual(self.serve(procedure, arguments), b"")
        self.flushLoggedErrors()


class LaterTests(ServerTestCase):
    """Results that come later."""

    def test_reply(self) -> None:
        """The reply is sent when they come, from a Deferred or a coroutine."""
        self.assertEqual([self.serve(5), self.serve(6, xid=XID + 1)], [b"", b""])
        self.assertEqual(self.responses, [])
        self.give(7)
        self.assertEqual([decode_reply(each or b"") for each in self.responses], [uint(7), uint(8)])

    def test_failure(self) -> None:
        """What fails later is SYSTEM_ERR, and one traceback."""
        self.serve(6)
        self.give("seven")
        self.assertRaises(SystemFailure, decode_reply, self.responses[0])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_retransmission(self) -> None:
        """A call that is sent again while it is served is not made again."""
        caller = loopback(UDP)
        self.assertEqual(self.serve(5, caller=caller), b"")
        self.assertIsNone(self.serve(5, caller=caller))
        self.assertEqual(len(self.waiting), 1)
        self.give(7)
        self.assertEqual(len(self.responses), 1)

    def test_timeout(self) -> None:
        """A call that takes too long is cancelled: SYSTEM_ERR."""
        self.serve(5)
        self.clock.advance(TIMEOUT)
        self.assertRaises(SystemFailure, decode_reply, self.responses[0])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_limit(self) -> None:
        """One host may have a quarter of the calls that are waited for; others have the rest."""
        for xid in range(1_000, 1_000 + MAX_CALLS // SHARES):
            self.assertEqual(self.serve(5, xid=xid), b"")
        self.assertIsInstance(self.refusal(5), SystemFailure)
        self.assertIsInstance(self.refusal(6), SystemFailure)
        self.assertEqual(self.results(1, uint(1)), uint(2))
        self.assertEqual(self.serve(5, caller=remote(TCP)), b"")
        self.give(1)
        self.assertEqual(len(self.responses), MAX_CALLS // SHARES + 1)
        self.assertEqual(self.serve(5), b"")

    def test_cancel(self) -> None:
        """A server that stops cancels what it waits for, and replies to nobody."""
        self.serve(5)
        self.serve(6, xid=XID + 1)
        self.server.cancel()
        self.assertEqual(self.responses, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])
