"""Calls and replies: pairs of bytes and objects, both ways, and what is refused."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import (
    AuthRefused,
    CallRefused,
    GarbageArguments,
    PortmapdError,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    RpcMismatch,
    SystemFailure,
    Unanswerable,
)
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import (
    AUTH_BADCRED,
    AUTH_REJECTEDCRED,
    AUTH_SYS,
    AUTH_TOOWEAK,
    MAX_AUTH,
    NOBODY,
    Call,
    Credential,
    decode_call,
    decode_reply,
    encode_call,
    refusal,
    success,
    sys_credential,
    xid_of,
)
from tests.support.rpc_samples import PROPERTY, UINTS


def words(*values: int) -> bytes:
    """XDR integers, one behind the other."""
    return b"".join(map(xdr.uint, values))


def sys_body(name: bytes = b"host", groups: int = 2, announced: int | None = None) -> bytes:
    """The body of an AUTH_SYS credential."""
    stamp, uid, gid = 0x5C5C, 104, 65534
    head = words(stamp) + xdr.opaque(name) + words(uid, gid)
    return head + words(groups if announced is None else announced) + bytes(4 * groups)


def header(flavor: int, body: bytes, verifier: bytes = bytes(8)) -> bytes:
    """A call's header with that credential."""
    return words(7, 0, 2, 100000, 2, 0, flavor) + xdr.opaque(body) + verifier


GETPORT = Call(0x11223344, 100000, 2, 3, NOBODY, words(100005, 3, 17, 0))
SIGNED = Call(1, 100000, 4, 12, Credential(AUTH_SYS, sys_body()), b"")

CALLS = [
    (
        GETPORT,
        "11223344 00000000 00000002 000186a0 00000002 00000003"
        "00000000 00000000 00000000 00000000 000186a5 00000003 00000011 00000000",
    ),
    (
        SIGNED,
        "00000001 00000000 00000002 000186a0 00000004 0000000c"
        "00000001 00000020 00005c5c 00000004 686f7374 00000068 0000fffe 00000002"
        "00000000 00000000 00000000 00000000",
    ),
]

#: Every refusal and its reply to xid 0x11223344.
REFUSALS: list[tuple[CallRefused, str]] = [
    (RpcMismatch(), "11223344 00000001 00000001 00000000 00000002 00000002"),
    (AuthRefused(AUTH_BADCRED), "11223344 00000001 00000001 00000001 00000001"),
    (AuthRefused(AUTH_TOOWEAK), "11223344 00000001 00000001 00000001 00000005"),
    (ProgramUnavailable(), "11223344 00000001 00000000 00000000 00000000 00000001"),
    (
        ProgramMismatch(2, 4),
        "11223344 00000001 00000000 00000000 00000000 00000002 00000002 00000004",
    ),
    (ProcedureUnavailable(), "11223344 00000001 00000000 00000000 00000000 00000003"),
    (GarbageArguments(), "11223344 00000001 00000000 00000000 00000000 00000004"),
    (SystemFailure(), "11223344 00000001 00000000 00000000 00000000 00000005"),
]

SUCCESS = "11223344 00000001 00000000 00000000 00000000 00000000 0000006f"


class CallTests(SynchronousTestCase):
    """Calls, both ways."""

    def test_encode(self) -> None:
        """Calls become their bytes."""
        for call, data in CALLS:
            self.assertEqual(encode_call(call), bytes.fromhex(data))

    def test_decode(self) -> None:
        """Bytes become their calls; all behind the header is arguments."""
        for call, data in CALLS:
            self.assertEqual(decode_call(bytes.fromhex(data)), call)
            longer = evolve(call, arguments=call.arguments + b"more")
            self.assertEqual(decode_call(bytes.fromhex(data) + b"more"), longer)

    def test_truncated(self) -> None:
        """A call that ends within its header is unanswerable, behind it has fewer arguments."""
        for call, data in CALLS:
            whole = bytes.fromhex(data)
            head = len(whole) - len(call.arguments)
            for end in range(head):
                self.assertRaises(Unanswerable, decode_call, whole[:end])
            for end in range(head, len(whole)):
                self.assertEqual(decode_call(whole[:end]).arguments, whole[head:end])

    def test_no_call(self) -> None:
        """Replies, and message types that do not exist, are unanswerable."""
        whole = encode_call(GETPORT)
        for kind in (1, 2, 0xFFFF_FFFF):
            changed = whole[:4] + words(kind) + whole[8:]
            self.assertRaises(Unanswerable, decode_call, changed)

    def test_rpc_version(self) -> None:
        """Another RPC version is refused, even if nothing follows it."""
        whole = encode_call(GETPORT)
        for version in (0, 1, 3, 0xFFFF_FFFF):
            for rest in (whole[12:], b""):
                message = whole[:8] + words(version) + rest
                self.assertRaises(RpcMismatch, decode_call, message)

    def test_program_of_any_kind(self) -> None:
        """Programs, versions and procedures are not looked at here."""
        call = Call(0, 0xFFFF_FFFF, 0, 0xFFFF_FFFF)
        self.assertEqual(decode_call(encode_call(call)), call)


class CredentialTests(SynchronousTestCase):
    """Which credentials and verifiers are taken."""

    def refused(self, message: bytes) -> int:
        """The status that *message* is refused with."""
        fault = self.assertRaises(AuthRefused, decode_call, message)
        assert isinstance(fault, AuthRefused)
        return fault.stat

    def test_nobody(self) -> None:
        """AUTH_NONE is taken, whatever it carries."""
        self.assertIs(decode_call(header(0, b"")).credential, NOBODY)
        body = b"x" * MAX_AUTH
        self.assertEqual(decode_call(header(0, body)).credential, Credential(0, body))

    def test_sys(self) -> None:
        """AUTH_SYS is taken with names and groups of every allowed size."""
        for name in (b"", b"h", b"h" * 255):
            body = sys_body(name)
            self.assertEqual(decode_call(header(1, body)).credential, Credential(1, body))
        for groups in (0, 1, 16):
            body = sys_body(b"", groups)
            self.assertEqual(decode_call(header(1, body)).credential, Credential(1, body))

    def test_sys_encoded(self) -> None:
        """A credential for a user is one that is taken."""
        made = sys_credential(104, 65534, (0, 0), "host", 0x5C5C)
        self.assertEqual(made, SIGNED.credential)
        largest = sys_credential(1, 2, tuple(range(16)), "h" * 255)
        self.assertEqual(decode_call(header(1, largest.body)).credential, largest)

    def test_sys_not_encoded(self) -> None:
        """A credential that nobody would take is not made."""
        self.assertRaises(ValueError, sys_credential, 1, 2, tuple(range(17)))
        self.assertRaises(ValueError, sys_credential, 1, 2, (), "h" * 256)
        self.assertRaises(ValueError, sys_credential, 1, 2, (), "é" * 128)

    def test_sys_truncated(self) -> None:
        """AUTH_SYS whose body ends early is a bad credential, wherever it ends."""
        whole = sys_body()
        for end in range(len(whole)):
            self.assertEqual(self.refused(header(1, whole[:end])), AUTH_BADCRED)

    def test_sys_limits(self) -> None:
        """Longer names and more groups than RFC 5531 allows are a bad credential."""
        for body in (sys_body(b"h" * 256), sys_body(b"", 17), sys_body(b"", 2, 0xFFFF_FFFF)):
            self.assertEqual(self.refused(header(1, body)), AUTH_BADCRED)

    def test_size(self) -> None:
        """A credential of more than 400 bytes is bad, be it there or only announced."""
        for flavor in (0, 1, 6):
            self.assertEqual(self.refused(header(flavor, bytes(MAX_AUTH + 1))), AUTH_BADCRED)
            announced = words(7, 0, 2, 100000, 2, 0, flavor, 0xFFFF_FFFF)
            self.assertEqual(self.refused(announced), AUTH_BADCRED)

    def test_flavors(self) -> None:
        """Other flavors are rejected."""
        for flavor in (2, 3, 6, 0xFFFF_FFFF):
            self.assertEqual(self.refused(header(flavor, b"")), AUTH_REJECTEDCRED)

    def test_verifier(self) -> None:
        """Verifiers are passed over, be they empty or not."""
        verifier = words(6) + xdr.opaque(b"verified")
        self.assertEqual(decode_call(header(0, b"", verifier) + b"args").arguments, b"args")

    def test_verifier_too_long(self) -> None:
        """A verifier that announces more than there is makes a call unanswerable."""
        for size in (1, 400, 0xFFFF_FFFF):
            self.assertRaises(Unanswerable, decode_call, header(0, b"", words(0, size)))


class ReplyTests(SynchronousTestCase):
    """Replies, both ways."""

    def test_success(self) -> None:
        """Results travel in a success."""
        self.assertEqual(success(0x11223344, words(111)), bytes.fromhex(SUCCESS))
        self.assertEqual(decode_reply(bytes.fromhex(SUCCESS)), words(111))

    def test_refusals_encoded(self) -> None:
        """Every refusal becomes its bytes."""
        for fault, data in REFUSALS:
            self.assertEqual(refusal(0x11223344, fault), bytes.fromhex(data))

    def test_refusals_decoded(self) -> None:
        """Bytes become the same refusal again, with all that it says."""
        for fault, data in REFUSALS:
            found = self.assertRaises(type(fault), decode_reply, bytes.fromhex(data))
            self.assertEqual(vars(found), vars(fault))

    def test_every_refusal_is_here(self) -> None:
        """The table above leaves no status out."""
        self.assertEqual({type(fault) for fault, _ in REFUSALS}, set(CallRefused.__subclasses__()))

    def test_truncated(self) -> None:
        """A reply that ends within its header is unanswerable, wherever it ends."""
        for data in (SUCCESS[: -len(" 0000006f")], *(data for _, data in REFUSALS)):
            whole = bytes.fromhex(data)
            for end in range(len(whole)):
                self.assertRaises(Unanswerable, decode_reply, whole[:end])

    def test_verifier(self) -> None:
        """A reply's verifier is passed over, up to 400 bytes."""
        for size in (0, 8, 400):
            reply = words(1, 1, 0, 6) + xdr.opaque(bytes(size)) + words(0) + b"results!"
            self.assertEqual(decode_reply(reply), b"results!")
        reply = words(1, 1, 0, 6) + xdr.opaque(bytes(404)) + words(0)
        self.assertRaises(Unanswerable, decode_reply, reply)

    def test_no_reply(self) -> None:
        """Calls, and statuses of replies that do not exist, are unanswerable."""
        self.assertRaises(Unanswerable, decode_reply, encode_call(GETPORT))
        self.assertRaises(Unanswerable, decode_reply, words(1, 1, 2, 0, 0, 0))

    def test_unknown_status(self) -> None:
        """An accept status that does not exist is a failure of the server."""
        self.assertRaises(SystemFailure, decode_reply, words(1, 1, 0, 0, 0, 6))

    def test_unknown_rejection(self) -> None:
        """A reject status that does not exist is unanswerable."""
        self.assertRaises(Unanswerable, decode_reply, words(1, 1, 1, 2, 5, 5))

    def test_messages(self) -> None:
        """Refusals of a reply say what they mean."""
        for fault, data in REFUSALS:
            found = self.assertRaises(type(fault), decode_reply, bytes.fromhex(data))
            self.assertNotEqual(str(found), "")


class XidTests(SynchronousTestCase):
    """The transaction id."""

    def test_xid(self) -> None:
        """It is the first four bytes."""
        self.assertEqual(xid_of(b"\x11\x22\x33\x44rest"), 0x11223344)

    def test_truncated(self) -> None:
        """Shorter messages have none."""
        for size in range(4):
            self.assertRaises(Unanswerable, xid_of, bytes(size))


CREDENTIALS = st.one_of(
    st.just(NOBODY),
    st.builds(Credential, st.just(0), st.binary(min_size=1, max_size=MAX_AUTH)),
    st.builds(
        lambda name, groups: Credential(AUTH_SYS, sys_body(name, groups)),
        st.binary(max_size=255),
        st.integers(0, 16),
    ),
)


class MessageProperties(SynchronousTestCase):
    """What holds for all calls and all bytes."""

    @PROPERTY
    @given(st.builds(Call, UINTS, UINTS, UINTS, UINTS, CREDENTIALS, st.binary(max_size=60)))
    def test_calls_round_trip(self, call: Call) -> None:
        """Every call is decoded as it was encoded."""
        self.assertEqual(decode_call(encode_call(call)), call)

    @PROPERTY
    @given(UINTS, st.binary(max_size=60))
    def test_results_round_trip(self, xid: int, results: bytes) -> None:
        """All results are decoded as they were encoded, behind their xid."""
        self.assertEqual(decode_reply(success(xid, results)), results)
        self.assertEqual(xid_of(success(xid, results)), xid)

    @PROPERTY
    @given(
        st.binary(max_size=80) | st.lists(st.integers(0, 6), max_size=14).map(lambda v: words(*v))
    )
    def test_decode_call_is_total(self, message: bytes) -> None:
        """Any bytes are a call, or refused in the words of errors.py."""
        try:
            decode_call(message)
        except (Unanswerable, CallRefused):
            pass

    @PROPERTY
    @given(
        st.binary(max_size=80) | st.lists(st.integers(0, 6), max_size=14).map(lambda v: words(*v))
    )
    def test_decode_reply_is_total(self, message: bytes) -> None:
        """Any bytes are a reply, or refused in the words of errors.py."""
        try:
            decode_reply(message)
        except PortmapdError:
            pass
