"""CALLIT, BCAST and INDIRECT, as far as they need no socket: which call is made, and its answer."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import (
    AuthRefused,
    CallRefused,
    GarbageArguments,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    SystemFailure,
)
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import (
    AUTH_TOOWEAK,
    NOBODY,
    Call,
    Credential,
    decode_call,
    decode_reply,
    refusal,
    success,
    sys_credential,
    xid_of,
)
from portmapd.oncrpc.netid import TCP, TCP6, UDP, UDP6
from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.access import Callit, Policy
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.callit import ForwardedCall
from portmapd.portmapper.dispatch import Outcome
from portmapd.portmapper.statistics import Remote
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import XID, PortMapper, call, local, loopback, remote, remote_call
from tests.unit.portmapper.test_statistics import decode

HERE = loopback()
ECHO = 7
#: Version, procedure: those that keep silent about failures, and the one that tells.
SILENT = ((2, 5), (3, 5), (4, 5))
INDIRECT = (4, 10)
#: The xid of the forwarded call.
OURS = 0x5555_6666


class CallitTestCase(SynchronousTestCase):
    """A port mapper that knows one program over UDP."""

    policy = Policy()

    def setUp(self) -> None:
        self.mapper = PortMapper(self.policy)
        self.mapper.registry.map(mapping(ECHO, 1, "udp", "0.0.0.0.8.1"))

    def outcome(
        self,
        kind: tuple[int, int] = INDIRECT,
        caller: Caller = HERE,
        program: int = ECHO,
        version: int = 1,
        procedure: int = 3,
        arguments: bytes = b"argument",
        credential: Credential = NOBODY,
    ) -> Outcome:
        """What comes of asking for a call."""
        asked = remote_call(program, version, procedure, arguments)
        return self.mapper.dispatch(call(*kind, asked, credential=credential), caller)

    def forwarded(self, kind: tuple[int, int] = INDIRECT, caller: Caller = HERE) -> ForwardedCall:
        """The call that is to be made."""
        outcome = self.outcome(kind, caller)
        assert outcome.forwarded is not None
        self.assertEqual(outcome, Outcome(forwarded=outcome.forwarded))
        return outcome.forwarded

    def refused(self, outcome: Outcome) -> CallRefused:
        """The refusal that an outcome answers."""
        assert outcome.forwarded is None
        assert outcome.reply is not None
        fault = self.assertRaises(CallRefused, decode_reply, outcome.reply)
        assert isinstance(fault, CallRefused)
        return fault


class MakingTests(CallitTestCase):
    """Which call is made."""

    def test_call(self) -> None:
        """It is what was asked for, with the caller's credential and an xid of ours."""
        credential = sys_credential(104, 100)
        for kind in (*SILENT, INDIRECT):
            outcome = self.outcome(kind, credential=credential)
            assert outcome.forwarded is not None
            self.assertIsNone(outcome.reply)
            made = decode_call(outcome.forwarded.message(OURS))
            self.assertEqual(made, Call(OURS, ECHO, 1, 3, credential, b"argument"))

    def test_unpadded_arguments(self) -> None:
        """Arguments are passed on as they are."""
        outcome = self.outcome(arguments=b"abc")
        assert outcome.forwarded is not None
        self.assertEqual(decode_call(outcome.forwarded.message(OURS)).arguments, b"abc")

    def test_where(self) -> None:
        """A service on any address is called over loopback, any other one at its address."""
        self.mapper.registry.map(
            mapping(8, 1, "udp", "192.0.2.9.0.9"), mapping(9, 1, "udp6", "::.0.10")
        )
        for program, host, port in ((ECHO, "127.0.0.1", 2049), (8, "192.0.2.9", 9), (9, "::1", 10)):
            outcome = self.outcome(program=program)
            assert outcome.forwarded is not None
            found = outcome.forwarded.host, outcome.forwarded.port
            self.assertEqual(found, (host, port))

    def test_spellings(self) -> None:
        """It is called there whichever way the service spelled its address."""
        for netid, address, host in (
            ("udp6", "0:0:0:0:0:0:0:0.8.1", "::1"),
            ("udp6", "0:0:0:0:0:0:0:1.8.1", "::1"),
            ("udp6", "::ffff:0.0.0.0.8.1", "::1"),
            ("udp6", "2001:DB8::7.8.1", "2001:db8::7"),
            ("udp", "::.8.1", "127.0.0.1"),
            ("udp", "::ffff:0.0.0.0.8.1", "127.0.0.1"),
            ("udp", "::ffff:127.0.0.1.8.1", "127.0.0.1"),
        ):
            added = mapping(8, 1, netid, address)
            self.mapper.registry.map(added)
            for kind in (*SILENT, INDIRECT):
                outcome = self.outcome(kind, program=8)
                assert outcome.forwarded is not None
                found = outcome.forwarded.host, outcome.forwarded.port
                self.assertEqual(found, (host, 2049), address)
            self.mapper.registry.unmap(added)

    def test_family(self) -> None:
        """A service is called over its caller's protocol family, else over the other one."""
        self.mapper.registry.map(mapping(ECHO, 1, "udp6", "::1.0.9"))
        for caller, host in (
            (loopback(UDP), "127.0.0.1"),
            (loopback(TCP), "127.0.0.1"),
            (loopback(UDP6), "::1"),
            (loopback(TCP6), "::1"),
            (local(), "127.0.0.1"),
        ):
            self.assertEqual(self.forwarded(caller=caller).host, host)

    def test_udp_only(self) -> None:
        """A program that is not served over UDP cannot be called."""
        self.mapper.registry.map(mapping(8, 1, "tcp", "0.0.0.0.0.9"), mapping(8, 1, "local", "/s"))
        for kind in SILENT:
            self.assertEqual(self.outcome(kind, program=8), Outcome())
        self.assertIsInstance(self.refused(self.outcome(program=8)), ProgramUnavailable)

    def test_this_version_only(self) -> None:
        """No other version stands in."""
        for kind in SILENT:
            self.assertEqual(self.outcome(kind, version=2), Outcome())
        self.assertIsInstance(self.refused(self.outcome(version=2)), ProgramUnavailable)

    def test_not_permitted(self) -> None:
        """Calls that are not forwarded meet silence, or the indirect one an AUTH_ERROR."""
        for program, procedure in ((PROGRAM, 0), (PROGRAM, 3), (100005, 1)):
            for kind in SILENT:
                self.assertEqual(
                    self.outcome(kind, program=program, procedure=procedure), Outcome()
                )
            fault = self.refused(self.outcome(program=program, procedure=procedure))
            assert isinstance(fault, AuthRefused)
            self.assertEqual(fault.stat, AUTH_TOOWEAK)

    def test_from_elsewhere(self) -> None:
        """By default, other hosts have nothing called."""
        for caller in (remote(), remote(TCP), remote(UDP6, Audience.TRUSTED)):
            for kind in SILENT:
                self.assertEqual(self.outcome(kind, caller), Outcome())
            self.assertIsInstance(self.refused(self.outcome(caller=caller)), AuthRefused)

    def test_garbage(self) -> None:
        """Arguments that are cut off make no call."""
        whole = remote_call(ECHO, 1, 3, b"argument")
        for kind in (*SILENT, INDIRECT):
            for end in range(len(whole)):
                outcome = self.mapper.dispatch(call(*kind, whole[:end]), loopback())
                self.assertIsInstance(self.refused(outcome), GarbageArguments)


class NullPolicyTests(CallitTestCase):
    """The policy that forwards procedure 0 for other hosts."""

    policy = Policy(callit=Callit.NULL)

    def test_null_only(self) -> None:
        """They have procedure 0 called, and no other."""
        for kind in SILENT:
            self.assertIsNotNone(self.outcome(kind, remote(), procedure=0).forwarded)
            self.assertEqual(self.outcome(kind, remote(), procedure=1), Outcome())


class ReplyTests(CallitTestCase):
    """The reply to the caller."""

    def test_version_2(self) -> None:
        """Version 2 answers the port and the results."""
        reply = self.forwarded((2, 5)).reply(success(OURS, b"results"))
        assert reply is not None
        self.assertEqual(xid_of(reply), XID)
        self.assertEqual(decode_reply(reply), xdr.uint(2049) + xdr.opaque(b"results"))

    def test_versions_3_and_4(self) -> None:
        """The others answer the address, as the caller can use it, and the results."""
        for kind in ((3, 5), (4, 5), INDIRECT):
            for caller, address in (
                (loopback(UDP), "127.0.0.1.8.1"),
                (evolve(loopback(TCP), reached="127.0.0.9"), "127.0.0.9.8.1"),
                (loopback(UDP6), "0.0.0.0.8.1"),
                (local(), "0.0.0.0.8.1"),
            ):
                reply = self.forwarded(kind, caller).reply(success(OURS, b"results"))
                assert reply is not None
                results = xdr.string(address) + xdr.opaque(b"results")
                self.assertEqual(decode_reply(reply), results)

    def test_failures(self) -> None:
        """A call that fails in any way meets silence, or the indirect one SYSTEM_ERR."""
        faults = (
            ProgramUnavailable(),
            ProgramMismatch(1, 1),
            ProcedureUnavailable(),
            GarbageArguments(),
            SystemFailure(),
            AuthRefused(AUTH_TOOWEAK),
        )
        answers = [refusal(OURS, fault) for fault in faults]
        for answer in (None, b"", b"junk", success(OURS, b"")[:-1], *answers):
            for kind in SILENT:
                self.assertIsNone(self.forwarded(kind).reply(answer))
            reply = self.forwarded().reply(answer)
            assert reply is not None
            self.assertEqual(xid_of(reply), XID)
            self.assertRaises(SystemFailure, decode_reply, reply)

    def test_empty_results(self) -> None:
        """Procedures that answer nothing have answered."""
        reply = self.forwarded((2, 5)).reply(success(OURS, b""))
        assert reply is not None
        self.assertEqual(decode_reply(reply), xdr.uint(2049) + xdr.opaque(b""))

    def test_service_gone_meanwhile(self) -> None:
        """What was called is answered, even if it is not registered any more."""
        forwarded = self.forwarded((2, 5))
        self.mapper.registry.unmap(*self.mapper.registry.mappings)
        self.assertIsNotNone(forwarded.reply(success(OURS, b"results")))

    def test_too_large_for_a_datagram(self) -> None:
        """Results that do not fit a datagram with what goes before them fail, over UDP only."""
        results = success(OURS, bytes(65_483))
        self.assertIsNotNone(self.forwarded((2, 5), loopback(TCP)).reply(results))
        self.assertIsNone(self.forwarded((2, 5), loopback(UDP)).reply(results))
        reply = self.forwarded(INDIRECT, loopback(UDP)).reply(results)
        assert reply is not None
        self.assertRaises(SystemFailure, decode_reply, reply)

    def test_counted(self) -> None:
        """Forwarded calls are counted once they are answered, or fail, or are refused."""
        self.forwarded((2, 5)).reply(success(OURS, b""))
        self.forwarded((2, 5)).reply(None)
        self.outcome((2, 5), version=2)
        self.forwarded(INDIRECT).reply(success(OURS, b""))
        self.forwarded(INDIRECT)
        rows = decode(self.mapper.statistics.encode())
        direct = Remote(ECHO, 1, 3, "udp", indirect=False)
        self.assertEqual(rows[2].calls[5], 3)
        self.assertEqual(rows[2].remotes, {direct: (1, 1), evolve(direct, version=2): (0, 1)})
        self.assertEqual(rows[4].calls[10], 1)
        self.assertEqual(rows[4].remotes, {evolve(direct, indirect=True): (1, 0)})


class AmplificationTests(CallitTestCase):
    """Forwarded calls of other hosts, where they are allowed."""

    policy = Policy(callit=Callit.ALL)

    def test_stranger(self) -> None:
        """To a stranger over UDP, no more comes back than was sent, or 80 bytes."""
        for kind in (*SILENT, INDIRECT):
            for size in range(0, 160, 4):
                message = call(*kind, remote_call(ECHO, 1, 3, b"12345678"))
                outcome = self.mapper.dispatch(message, remote(UDP))
                assert outcome.forwarded is not None
                reply = outcome.forwarded.reply(success(OURS, bytes(size)))
                assert reply is not None
                self.assertLessEqual(len(reply), max(len(message), 80))

    def test_others(self) -> None:
        """Others get all of it."""
        for caller in (remote(TCP), remote(UDP, Audience.TRUSTED), loopback()):
            reply = self.forwarded((2, 5), caller).reply(success(OURS, bytes(8000)))
            assert reply is not None
            self.assertEqual(decode_reply(reply), xdr.uint(2049) + xdr.opaque(bytes(8000)))
