"""Dispatch: errors, silence, the bound on amplification, what is counted; and that it is total."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import (
    MAX_DATAGRAM,
    NOBODY,
    Credential,
    decode_reply,
    success,
    sys_credential,
    xid_of,
)
from portmapd.oncrpc.netid import NETIDS, TCP, UDP, UDP6
from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.access import Callit, Policy
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.dispatch import TABLE, Outcome
from portmapd.portmapper.statistics import Lookup, Statistics, Tally
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import (
    ADDRESSES,
    CALLERS,
    FEW,
    PROCEDURES,
    PROPERTY,
    UINTS,
    XID,
    PortMapper,
    call,
    local,
    loopback,
    pmap,
    remote,
    remote_call,
    rpcb,
)

HERE = loopback()
STRANGERS = (remote(UDP), remote(UDP6))


def words(*values: int) -> bytes:
    """XDR integers, one behind the other."""
    return b"".join(map(xdr.uint, values))


ACCEPTED = words(XID, 1, 0, 0, 0)
DENIED = words(XID, 1, 1)

#: Message, reply; every error but GARBAGE_ARGS and SYSTEM_ERR, as errors.json has them.
ERRORS = [
    (call(2, 6), ACCEPTED + words(3)),
    (call(3, 9), ACCEPTED + words(3)),
    (call(4, 13), ACCEPTED + words(3)),
    (call(4, 0xFFFF_FFFF), ACCEPTED + words(3)),
    (call(0, 0), ACCEPTED + words(2, 2, 4)),
    (call(1, 0), ACCEPTED + words(2, 2, 4)),
    (call(5, 99), ACCEPTED + words(2, 2, 4)),
    (call(104316, 0), ACCEPTED + words(2, 2, 4)),
    (call(2, 0, program=100001), ACCEPTED + words(1)),
    (call(9, 9, program=0), ACCEPTED + words(1)),
    (words(XID, 0, 1, PROGRAM, 2, 0, 0, 0, 0, 0), DENIED + words(0, 2, 2)),
    (words(XID, 0, 3), DENIED + words(0, 2, 2)),
    (call(2, 0, credential=Credential(1, b"short")), DENIED + words(1, 1)),
    (call(2, 0, credential=Credential(0, bytes(404))), DENIED + words(1, 1)),
    (call(2, 0, credential=Credential(6, b"")), DENIED + words(1, 2)),
]

#: Message, what is said of it: nobody is answered.
SILENT = [
    (b"", "shorter than"),
    (b"\0" * 11, "shorter than"),
    (words(XID, 1, 0, 0, 0, 0), "not a call"),
    (words(XID, 7, 2), "not a call"),
    (call(2, 0)[:20], "truncated"),
    (call(2, 0)[:-4], "verifier"),
    (words(XID, 0, 2, PROGRAM, 2, 0, 0, 8) + b"cred", "credential"),
]

#: The sizes of the arguments that each procedure needs at least, in bytes.
NEEDED = {
    2: {1: 16, 2: 16, 3: 16, 5: 16},
    3: {1: 20, 2: 20, 3: 20, 5: 16, 7: 4, 8: 8},
    4: {1: 20, 2: 20, 3: 20, 5: 16, 7: 4, 8: 8, 9: 20, 10: 16, 11: 20},
}


class ErrorTests(SynchronousTestCase):
    """Errors and silence."""

    def setUp(self) -> None:
        self.mapper = PortMapper()

    def test_errors(self) -> None:
        """Every error that a message deserves is what it is answered, to everyone."""
        for message, reply in ERRORS:
            for caller in (HERE, local(), remote(TCP), remote(UDP, Audience.TRUSTED)):
                self.assertEqual(self.mapper.dispatch(message, caller).reply, reply)

    def test_silence(self) -> None:
        """What is not a call is not answered."""
        for message, said in SILENT:
            outcome = self.mapper.dispatch(message, HERE)
            self.assertEqual(outcome, Outcome(fault=outcome.fault))
            self.assertIn(said, outcome.fault)

    def test_garbage(self) -> None:
        """Arguments that end early are garbage, for every procedure that has any."""
        for version, procedures in PROCEDURES.items():
            for procedure in procedures:
                needed = NEEDED[version].get(procedure, 0)
                for size in range(needed):
                    outcome = self.mapper.dispatch(call(version, procedure, bytes(size)), HERE)
                    self.assertEqual(outcome.reply, ACCEPTED + words(4))
                    self.assertTrue(outcome.fault.startswith("arguments: "))
                outcome = self.mapper.dispatch(call(version, procedure, bytes(needed)), HERE)
                self.assertEqual(outcome.fault, "")

    def test_announced_garbage(self) -> None:
        """Strings that announce more than is taken are garbage."""
        for size in (xdr.MAX_STRING + 1, 0xFFFF_FFFF):
            arguments = words(7, 1, size) + bytes(2000)
            outcome = self.mapper.dispatch(call(4, 3, arguments), HERE)
            self.assertEqual(outcome.reply, ACCEPTED + words(4))

    def test_truncated_anywhere(self) -> None:
        """A call that is cut anywhere changes nothing."""
        arguments = rpcb(7, 1, "udp", "0.0.0.0.0.9", "root")
        whole = call(4, 1, arguments, credential=sys_credential(0, 0, (1, 2), "host"))
        for end in range(len(whole)):
            outcome = self.mapper.dispatch(whole[:end], local())
            self.assertEqual(outcome.reply is None, end < len(whole) - len(arguments))
            self.assertNotEqual(outcome.fault, "")
        self.assertEqual(self.mapper.rows(), [])
        self.assertEqual(self.mapper.statistics.malformed, len(whole))

    def test_table(self) -> None:
        """The table has every procedure of every version, and no other."""
        self.assertEqual(
            {v: set(row) for v, row in TABLE.items()},
            {v: set(procedures) for v, procedures in PROCEDURES.items()},
        )

    def test_excluded(self) -> None:
        """Who may not ask is met with silence, even about errors."""
        excluded = remote(UDP, Audience.EXCLUDED)
        for message in [call(2, 0), *(m for m, _ in ERRORS), *(m for m, _ in SILENT)]:
            self.assertEqual(self.mapper.dispatch(message, excluded), Outcome())
        self.assertEqual(self.mapper.statistics.malformed, 0)


class CountingTests(SynchronousTestCase):
    """What is counted, and what may be kept."""

    def setUp(self) -> None:
        self.mapper = PortMapper()

    def test_malformed(self) -> None:
        """Malformed messages are counted, and nothing else is."""
        messages = [m for m, _ in SILENT] + [call(2, 3, bytes(7)), words(XID, 0, 3)]
        for message in messages:
            self.mapper.dispatch(message, HERE)
        for message in (call(2, 0), call(2, 99), call(9, 0), call(2, 0, program=7)):
            self.assertEqual(self.mapper.dispatch(message, HERE).fault, "")
        self.assertEqual(self.mapper.statistics.malformed, len(messages))

    def test_calls(self) -> None:
        """Every call of a procedure that exists is counted, well-formed or not."""
        for message in (call(2, 3, pmap(7, 1)), call(2, 3, bytes(7)), call(2, 3, b"")):
            self.mapper.dispatch(message, HERE)
        for message in (call(2, 99), call(9, 3), call(2, 3, program=7)):
            self.mapper.dispatch(message, HERE)
        self.assertEqual(self.mapper.statistics.calls(2, 3), 3)
        self.assertEqual(self.mapper.statistics.calls(9, 3), 0)

    def test_cacheable(self) -> None:
        """Replies that stay the same until a mapping changes come with their count."""
        cacheable = {
            (version, procedure)
            for version, needed in PROCEDURES.items()
            for procedure in needed
            if self.mapper.dispatch(call(version, procedure, bytes(20)), HERE).cacheable
        }
        self.assertEqual(
            cacheable,
            {(2, 0), (2, 3), (2, 4)}
            | {(version, procedure) for version in (3, 4) for procedure in (0, 3, 4, 7, 8)}
            | {(4, 9), (4, 11)},
        )

    def test_cacheable_count(self) -> None:
        """It is the count that the first one was counted in."""
        outcome = self.mapper.dispatch(call(2, 3, pmap(7, 1)), HERE)
        tally = Tally(2, 3, Lookup(7, 1, "udp"), success=False, transport="udp")
        assert outcome.cacheable is not None
        self.assertIs(outcome.cacheable, self.mapper.statistics.count_of(tally))
        self.assertEqual(outcome.cacheable.value, 1)

    def test_errors_are_not_cacheable(self) -> None:
        """Errors are not kept: they may be of any kind, and need not be fast."""
        for message, _ in ERRORS:
            self.assertIsNone(self.mapper.dispatch(message, HERE).cacheable)
        self.assertIsNone(self.mapper.dispatch(call(2, 3), HERE).cacheable)


class SizeTests(SynchronousTestCase):
    """How large a reply may be."""

    def setUp(self) -> None:
        self.mapper = PortMapper(Policy(insecure=True, callit=Callit.ALL))
        self.mapper.registry.map(
            *(mapping(7, n, "udp", "192.0.2.200.255.255") for n in range(4000)),
            *(mapping(7, n, "udp6", "2001:db8::ffff:1.255.255") for n in range(10)),
        )

    def test_amplification(self) -> None:
        """No procedure answers a stranger over UDP with more than it sent, or 80 bytes."""
        arguments = (
            *(bytes(size) for size in range(0, 160, 4)),
            rpcb(7, 1),
            pmap(7, 1),
            rpcb(7, 1, "udp", "192.0.2.9.0.9"),
            xdr.string("::1.0.1"),
            remote_call(7, 1, 0),
        )
        for caller in STRANGERS:
            for version, procedures in PROCEDURES.items():
                for procedure in procedures:
                    for data in arguments:
                        message = call(version, procedure, data)
                        reply = self.mapper.dispatch(message, caller).reply
                        self.assertLessEqual(len(reply or b""), max(len(message), 80))

    def test_address(self) -> None:
        """A stranger gets an address, however short its question, and however long the address."""
        longest = ".".join((":".join(["fff1"] * 8), "255", "255"))
        self.mapper.registry.map(mapping(8, 1, "udp6", longest))
        for procedure in (3, 9):
            reply = self.mapper.dispatch(call(4, procedure, rpcb(8, 1)), remote(UDP6)).reply
            self.assertEqual(reply, ACCEPTED + words(0) + xdr.string(longest))
        message = call(4, 5, remote_call(8, 1, 0))
        forwarded = self.mapper.dispatch(message, remote(UDP6)).forwarded
        assert forwarded is not None
        reply = forwarded.reply(success(XID, b""))
        assert reply is not None
        self.assertEqual(len(reply), 80)
        self.assertEqual(decode_reply(reply), xdr.string(longest) + xdr.opaque(b""))

    def test_amplification_by_errors(self) -> None:
        """Errors are no larger either, however short the message is."""
        for message, _ in ERRORS:
            for end in range(len(message) + 1):
                for caller in STRANGERS:
                    reply = self.mapper.dispatch(message[:end], caller).reply
                    self.assertLessEqual(len(reply or b""), max(end, 80))

    def test_too_large(self) -> None:
        """What would be larger is an AUTH_ERROR, and is counted."""
        for caller in STRANGERS:
            outcome = self.mapper.dispatch(call(4, 4), caller)
            self.assertEqual(outcome.reply, DENIED + words(1, 5))
        self.assertEqual(self.mapper.statistics.calls(4, 4), 2)

    def test_too_large_is_not_made(self) -> None:
        """A reply that may not be sent is not even encoded: it takes long."""
        self.patch(Statistics, "encode", lambda statistics: self.fail("it is encoded"))
        for caller in STRANGERS:
            reply = self.mapper.dispatch(call(4, 12), caller).reply
            self.assertEqual(reply, DENIED + words(1, 5))
        self.assertEqual(self.mapper.statistics.calls(4, 12), 2)

    def test_short_mismatch(self) -> None:
        """A bare prefix of another RPC version gets the error that says so, which is small."""
        prefix = words(XID, 0, 3)
        for size in (12, 19, 20, 23, 24):
            outcome = self.mapper.dispatch(prefix.ljust(size, b"\0"), remote(UDP))
            self.assertEqual(outcome.reply, DENIED + words(0, 2, 2))
            self.assertNotEqual(outcome.fault, "")

    def test_padded_request(self) -> None:
        """Who sends as much as it wants to get is answered in full."""
        caller = remote(UDP)
        message = call(4, 3, rpcb(7, 1) + bytes(40))
        results = xdr.string("192.0.2.200.255.255")
        self.assertEqual(self.mapper.dispatch(message, caller).reply, ACCEPTED + words(0) + results)

    def test_datagram(self) -> None:
        """What does not fit a datagram is a SYSTEM_ERR over UDP, and whole elsewhere."""
        for caller in (loopback(UDP), loopback(UDP6), remote(UDP, Audience.TRUSTED)):
            self.assertEqual(self.mapper.dispatch(call(4, 4), caller).reply, ACCEPTED + words(5))
        for caller in (loopback(TCP), local()):
            reply = self.mapper.dispatch(call(4, 4), caller).reply
            assert reply is not None
            self.assertGreater(len(reply), MAX_DATAGRAM)


CREDENTIALS = st.one_of(
    st.just(NOBODY),
    st.builds(sys_credential, UINTS, UINTS),
    st.builds(Credential, st.integers(0, 2), st.binary(max_size=24)),
)

ARGUMENTS = st.one_of(
    st.binary(max_size=64),
    st.lists(FEW, max_size=10).map(lambda values: words(*values)),
    st.builds(pmap, FEW, FEW, st.sampled_from((6, 17, 99)), st.integers(0, 70_000)),
    st.builds(
        lambda program, version, where, more: rpcb(program, version, where[0].name, where[1], more),
        FEW,
        FEW,
        ADDRESSES,
        st.text(max_size=5),
    ),
    st.builds(rpcb, FEW, FEW, st.sampled_from(("", *NETIDS)), st.text(max_size=30)),
    st.builds(remote_call, FEW, FEW, FEW, st.binary(max_size=40)),
    ADDRESSES.map(lambda where: xdr.string(where[1])),
)

CALLS = st.builds(
    call,
    st.sampled_from((0, 2, 3, 4, 5)),
    st.integers(0, 14),
    ARGUMENTS,
    st.sampled_from((PROGRAM, PROGRAM, PROGRAM, 7)),
    CREDENTIALS,
)

POLICIES = st.builds(
    Policy,
    insecure=st.booleans(),
    callit=st.sampled_from(Callit),
)


def changed(message: bytes, at: int, byte: int) -> bytes:
    """*message* with one byte overwritten."""
    at %= len(message)
    return message[:at] + bytes((byte,)) + message[at + 1 :]


MESSAGES = st.one_of(
    st.binary(max_size=100),
    CALLS,
    st.builds(lambda message, end: message[:end], CALLS, st.integers(0, 100)),
    st.builds(changed, CALLS, st.integers(0, 200), st.integers(0, 255)),
)


class DispatchProperties(SynchronousTestCase):
    """What holds for all bytes and all callers."""

    def check(self, mapper: PortMapper, message: bytes, caller: Caller) -> None:
        """Dispatch one message; what comes of it is in order, whatever it is."""
        outcome = mapper.dispatch(message, caller)
        if outcome.forwarded is not None:
            self.assertEqual(outcome, Outcome(forwarded=outcome.forwarded))
            self.assertEqual(xid_of(outcome.forwarded.message(5)), 5)
            reply = outcome.forwarded.reply(message)
        else:
            reply = outcome.reply
        if reply is None:
            return
        self.assertEqual(reply[:8], message[:4] + words(1))
        self.assertEqual(len(reply) % 4, 0)
        self.assertIsNot(caller.audience, Audience.EXCLUDED)
        if caller.audience is Audience.STRANGER and caller.netid.protocol == "udp":
            self.assertLessEqual(len(reply), len(message))

    @PROPERTY
    @given(st.lists(st.tuples(MESSAGES, st.sampled_from(CALLERS)), max_size=12), POLICIES)
    def test_total(self, messages: list[tuple[bytes, Caller]], policy: Policy) -> None:
        """Any messages of any callers, one after the other, give their reply or silence."""
        mapper = PortMapper(policy)
        for message, caller in messages:
            self.check(mapper, message, caller)

    @PROPERTY
    @given(st.binary(max_size=120), st.sampled_from(CALLERS))
    def test_total_on_bytes(self, message: bytes, caller: Caller) -> None:
        """Any bytes do so."""
        self.check(PortMapper(), message, caller)

    @PROPERTY
    @given(
        st.sampled_from([(v, p) for v, procedures in PROCEDURES.items() for p in procedures]),
        st.binary(max_size=120),
        st.sampled_from(CALLERS),
    )
    def test_total_on_arguments(
        self, kind: tuple[int, int], arguments: bytes, caller: Caller
    ) -> None:
        """Any arguments behind a well-formed header do so, for every procedure."""
        self.check(PortMapper(), call(*kind, arguments), caller)

    @PROPERTY
    @given(CALLS, st.sampled_from(CALLERS))
    def test_cacheable(self, message: bytes, caller: Caller) -> None:
        """A cacheable reply is the same the next time."""
        mapper = PortMapper()
        mapper.registry.map(*(mapping(n, 1, "udp", "0.0.0.0.0.9") for n in (1, 2, 3)))
        first = mapper.dispatch(message, caller)
        if first.cacheable is not None:
            mapper.now += 100
            self.assertEqual(mapper.dispatch(message, caller), first)
