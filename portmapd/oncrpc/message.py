"""Call and reply messages of ONC RPC version 2 (RFC 5531, section 9): reading and encoding."""

from collections.abc import Callable
from struct import Struct, unpack

from attrs import frozen

from portmapd.errors import (
    AuthRefused,
    CallRefused,
    GarbageArguments,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    RpcMismatch,
    SystemFailure,
    Unanswerable,
    XdrError,
)
from portmapd.oncrpc import xdr

RPC_VERSION = 2
#: The size of the xid that every message begins with, in bytes.
XID = 4
#: The largest message that a datagram of IPv4 carries, in bytes.
MAX_DATAGRAM = 65_507
CALL, REPLY = 0, 1
MSG_ACCEPTED, MSG_DENIED = 0, 1
SUCCESS, PROG_UNAVAIL, PROG_MISMATCH, PROC_UNAVAIL, GARBAGE_ARGS, SYSTEM_ERR = range(6)
RPC_MISMATCH, AUTH_ERROR = 0, 1
AUTH_NONE, AUTH_SYS = 0, 1
AUTH_BADCRED, AUTH_REJECTEDCRED, AUTH_BADVERF, AUTH_REJECTEDVERF, AUTH_TOOWEAK = range(1, 6)

#: The longest body of a credential or verifier, in bytes (RFC 5531, 8.2).
MAX_AUTH = 400
#: The longest machine name and the most groups of AUTH_SYS (RFC 5531, appendix A).
MAX_MACHINE_NAME = 255
MAX_GROUPS = 16

_PREFIX = Struct(">III")
_HEADER = Struct(">IIIIIIII")
_ACCEPTED = Struct(">IIIIII")


@frozen
class SysCredential:
    """What a caller says of itself with AUTH_SYS (RFC 5531, appendix A); nothing proves it.

    :param stamp: an arbitrary number.
    :param machine: the name of the caller's host.
    :param groups: further group ids.
    """

    stamp: int
    machine: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@frozen
class Credential:
    """Who a caller claims to be (RFC 5531, 8.2).

    :param flavor: AUTH_NONE or AUTH_SYS.
    :param body: the flavor's data, encoded, at most 400 bytes.
    """

    flavor: int = AUTH_NONE
    body: bytes = b""

    @property
    def sys(self) -> SysCredential | None:
        """What AUTH_SYS says; None for another flavor.

        :raises AuthRefused: the body is malformed; that of a call that was read is not.
        """
        if self.flavor != AUTH_SYS:
            return None
        stamp, machine, uid, gid, groups = _sys_fields(self.body)
        name = machine.decode("utf-8", "surrogateescape")
        return SysCredential(stamp, name, uid, gid, unpack(f">{len(groups) // 4}I", groups))


NOBODY = Credential()


def sys_credential(
    uid: int, gid: int, groups: tuple[int, ...] = (), machine: str = "", stamp: int = 0
) -> Credential:
    """Make a credential of flavor AUTH_SYS (RFC 5531, appendix A).

    :param uid: the caller's user id.
    :param gid: the caller's group id.
    :param groups: further group ids, at most 16.
    :param machine: the name of the caller's host, at most 255 bytes.
    :param stamp: an arbitrary number.
    :raises ValueError: there are too many groups, or the name is too long.
    """
    if len(groups) > MAX_GROUPS or len(machine.encode()) > MAX_MACHINE_NAME:
        raise ValueError(f"more than {MAX_GROUPS} groups, or {MAX_MACHINE_NAME} bytes of a name")
    ids = (uid, gid, len(groups), *groups)
    body = xdr.uint(stamp) + xdr.string(machine) + b"".join(map(xdr.uint, ids))
    return Credential(AUTH_SYS, body)


@frozen
class Call:
    """A call to a procedure.

    :param credential: who makes the call.
    :param arguments: the procedure's arguments, encoded.
    """

    xid: int
    program: int
    version: int
    procedure: int
    credential: Credential = NOBODY
    arguments: bytes = b""


def decode_call(message: bytes) -> Call:
    """Read a call.

    :raises Unanswerable: the message is not a call, or ends within the header.
    :raises RpcMismatch: the RPC version is not 2.
    :raises AuthRefused: the credential is neither AUTH_NONE nor a well-formed AUTH_SYS.
    """
    if len(message) < _PREFIX.size:
        raise Unanswerable("shorter than the start of a header")
    _, kind, rpc_version = _PREFIX.unpack_from(message)
    if kind != CALL:
        raise Unanswerable(f"message type {kind} is not a call")
    if rpc_version != RPC_VERSION:
        raise RpcMismatch(f"RPC version {rpc_version}")
    if len(message) < _HEADER.size:
        raise Unanswerable("the header is truncated")
    xid, _, _, program, version, procedure, flavor, size = _HEADER.unpack_from(message)
    if size > MAX_AUTH:
        raise AuthRefused(AUTH_BADCRED, f"a credential of {size} bytes, at most {MAX_AUTH}")
    reader = xdr.Reader(message, _HEADER.size - 4)
    credential = _credential(flavor, reader)
    _skip_verifier(reader)
    return Call(xid, program, version, procedure, credential, reader.rest())


def _credential(flavor: int, reader: xdr.Reader) -> Credential:
    try:
        body = reader.opaque(MAX_AUTH)
    except XdrError as fault:
        raise Unanswerable("the header ends within the credential") from fault
    check = _FLAVORS.get(flavor)
    if check is None:
        raise AuthRefused(AUTH_REJECTEDCRED, f"credential flavor {flavor}")
    check(body)
    return Credential(flavor, body) if flavor or body else NOBODY


def _sys_fields(body: bytes) -> tuple[int, bytes, int, int, bytes]:
    """The stamp, the machine, the uid, the gid and the groups, of which the last are encoded.

    Every call with AUTH_SYS comes this way: nothing is decoded that few ask for.
    """
    reader = xdr.Reader(body)
    try:
        stamp, machine = reader.uint(), reader.opaque(MAX_MACHINE_NAME)
        uid, gid, count = reader.uint(), reader.uint(), reader.uint()
    except XdrError as fault:
        raise AuthRefused(AUTH_BADCRED, f"AUTH_SYS: {fault}") from fault
    groups = reader.rest()
    if count > MAX_GROUPS or len(groups) < 4 * count:
        raise AuthRefused(AUTH_BADCRED, f"AUTH_SYS: {count} groups")
    return stamp, machine, uid, gid, groups[: 4 * count]


def _check_none(body: bytes) -> None:
    """Ignore the body: that of AUTH_NONE is undefined, and should be empty (RFC 5531, 10.1)."""


_FLAVORS: dict[int, Callable[[bytes], object]] = {AUTH_NONE: _check_none, AUTH_SYS: _sys_fields}


def _skip_verifier(reader: xdr.Reader) -> None:
    try:
        reader.uint()
        reader.opaque(xdr.MAX_OPAQUE)
    except XdrError as fault:
        raise Unanswerable("the header ends within the verifier") from fault


def encode_call(call: Call) -> bytes:
    """Encode a call, with a verifier of AUTH_NONE."""
    header = _PREFIX.pack(call.xid, CALL, RPC_VERSION)
    procedure = _PREFIX.pack(call.program, call.version, call.procedure)
    credential = xdr.uint(call.credential.flavor) + xdr.opaque(call.credential.body)
    return header + procedure + credential + bytes(8) + call.arguments


def success(xid: int, results: bytes) -> bytes:
    """Encode the reply that carries *results*, which are encoded already."""
    return _ACCEPTED.pack(xid, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, SUCCESS) + results


def refusal(xid: int, fault: CallRefused) -> bytes:
    """Encode the reply that carries the error status of *fault*; SYSTEM_ERR if that has none."""
    kinds = (kind for kind in type(fault).__mro__ if kind in _REFUSALS)
    return _REFUSALS[next(kinds, SystemFailure)](xid, fault)


def _accepted(status: int) -> Callable[[int, CallRefused], bytes]:
    return lambda xid, _: _ACCEPTED.pack(xid, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, status)


def _program_mismatch(xid: int, fault: CallRefused) -> bytes:
    assert isinstance(fault, ProgramMismatch)
    head = _ACCEPTED.pack(xid, REPLY, MSG_ACCEPTED, AUTH_NONE, 0, PROG_MISMATCH)
    return head + xdr.uint(fault.low) + xdr.uint(fault.high)


def _rpc_mismatch(xid: int, _: CallRefused) -> bytes:
    return _ACCEPTED.pack(xid, REPLY, MSG_DENIED, RPC_MISMATCH, RPC_VERSION, RPC_VERSION)


def _auth_error(xid: int, fault: CallRefused) -> bytes:
    assert isinstance(fault, AuthRefused)
    return _PREFIX.pack(xid, REPLY, MSG_DENIED) + xdr.uint(AUTH_ERROR) + xdr.uint(fault.stat)


_REFUSALS: dict[type[CallRefused], Callable[[int, CallRefused], bytes]] = {
    RpcMismatch: _rpc_mismatch,
    AuthRefused: _auth_error,
    ProgramUnavailable: _accepted(PROG_UNAVAIL),
    ProgramMismatch: _program_mismatch,
    ProcedureUnavailable: _accepted(PROC_UNAVAIL),
    GarbageArguments: _accepted(GARBAGE_ARGS),
    SystemFailure: _accepted(SYSTEM_ERR),
}


def xid_of(message: bytes) -> int:
    """The xid of *message*.

    :raises Unanswerable: the message is shorter than an xid.
    """
    try:
        return xdr.Reader(message).uint()
    except XdrError as fault:
        raise Unanswerable("shorter than an xid") from fault


def decode_reply(message: bytes) -> bytes:
    """Read a reply.

    :return: the results, encoded.
    :raises CallRefused: the reply carries an error status; each status has its class.
    :raises Unanswerable: the message is not a reply, or is truncated.
    """
    reader = xdr.Reader(message)
    try:
        reader.uint()
        if reader.uint() != REPLY:
            raise Unanswerable("the message is not a reply")
        status = reader.uint()
        if status == MSG_DENIED:
            raise _denied(reader)
        if status != MSG_ACCEPTED:
            raise Unanswerable(f"reply status {status} is unknown")
        reader.uint()
        reader.opaque(MAX_AUTH)
        return _accepted_results(reader)
    except XdrError as fault:
        raise Unanswerable("the reply is truncated") from fault


def _denied(reader: xdr.Reader) -> CallRefused:
    status = reader.uint()
    if status == AUTH_ERROR:
        return AuthRefused(reader.uint())
    if status != RPC_MISMATCH:
        raise Unanswerable(f"reject status {status} is unknown")
    return RpcMismatch(f"the server speaks RPC versions {reader.uint()} to {reader.uint()}")


def _accepted_results(reader: xdr.Reader) -> bytes:
    status = reader.uint()
    if status == SUCCESS:
        return reader.rest()
    if status == PROG_MISMATCH:
        raise ProgramMismatch(reader.uint(), reader.uint())
    kind, text = _STATUSES.get(status, (SystemFailure, f"accept status {status} is unknown"))
    raise kind(text)


_STATUSES: dict[int, tuple[type[CallRefused], str]] = {
    PROG_UNAVAIL: (ProgramUnavailable, "the server does not serve that program"),
    PROC_UNAVAIL: (ProcedureUnavailable, "the program has no such procedure"),
    GARBAGE_ARGS: (GarbageArguments, "the server could not decode the arguments"),
    SYSTEM_ERR: (SystemFailure, "the server failed"),
}
