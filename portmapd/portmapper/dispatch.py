"""From the bytes of a message to the bytes of its reply; total."""

from attrs import frozen

from portmapd.errors import (
    AuthRefused,
    CallRefused,
    GarbageArguments,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    SystemFailure,
    Unanswerable,
    XdrError,
)
from portmapd.oncrpc.message import (
    AUTH_TOOWEAK,
    Call,
    decode_call,
    decode_reply,
    encode_call,
    refusal,
    success,
    xid_of,
)
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper import rpcbind, v2
from portmapd.portmapper.access import PROGRAM, Answer, Ask, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.procedure import Context, Procedure, Relay, Silence
from portmapd.portmapper.statistics import Tally

#: The dispatch table: version, then procedure.
TABLE: dict[int, dict[int, Procedure]] = {
    2: v2.PROCEDURES,
    3: rpcbind.VERSION_3,
    4: rpcbind.VERSION_4,
}
LOWEST, HIGHEST = min(TABLE), max(TABLE)

#: The largest datagram that IPv4 carries, in bytes.
MAX_DATAGRAM = 65_507


@frozen
class Outcome:
    """What comes of a message.

    :param reply: the reply; None: silence, or *pending* tells.
    :param lasting: what the same message from the same audience counts as, if it will be given
        the same reply until a mapping changes; None: the reply must not be kept.
    :param fault: what was malformed about the message; empty if nothing was.
    :param pending: a call to be made first; None: there is none.
    """

    reply: bytes | None = None
    lasting: Tally | None = None
    fault: str = ""
    pending: "Pending | None" = None


class Dispatcher:
    """Program 100000.

    :param context: what its procedures work on.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def dispatch(self, message: bytes, caller: Caller) -> Outcome:
        """Serve one message: any bytes give an outcome, never an exception."""
        if not permits(self._context.policy, caller, Ask()):
            return Outcome()
        try:
            outcome = self._serve(decode_call(message), caller, len(message))
        except Unanswerable as fault:
            outcome = Outcome(fault=str(fault))
        except CallRefused as fault:
            xid = xid_of(message)
            reply = _fitting(self._context, caller, len(message), refusal(xid, fault), xid)
            outcome = Outcome(reply, fault=str(fault))
        if outcome.fault:
            self._context.statistics.malformed += 1
        return outcome

    def _serve(self, call: Call, caller: Caller, size: int) -> Outcome:
        try:
            procedure = _procedure(call)
            arguments = procedure.decode(Reader(call.arguments))
        except (ProgramUnavailable, ProgramMismatch, ProcedureUnavailable) as refused:
            return Outcome(refusal(call.xid, refused))
        except XdrError as fault:
            self._count(Tally(call.version, call.procedure, success=False))
            return Outcome(refusal(call.xid, GarbageArguments()), fault=f"arguments: {fault}")
        return self._operate(call, caller, size, procedure, arguments)

    def _operate(
        self, call: Call, caller: Caller, size: int, procedure: Procedure, arguments: object
    ) -> Outcome:
        failed = Tally(call.version, call.procedure, success=False)
        try:
            results = procedure.operate(self._context, caller, call.credential, arguments)
        except Silence as silence:
            self._count(Tally(call.version, call.procedure, silence.subject, success=False))
            return Outcome()
        except CallRefused as refused:
            self._count(failed)
            return Outcome(refusal(call.xid, refused))
        if isinstance(results, Relay):
            return Outcome(pending=Pending(self._context, caller, call, size, results))
        tally = Tally(call.version, call.procedure, results.subject, results.success)
        self._count(tally)
        reply = _fitting(self._context, caller, size, success(call.xid, results.body), call.xid)
        return Outcome(reply, tally if procedure.lasting else None)

    def _count(self, tally: Tally) -> None:
        self._context.statistics.count(tally)


@frozen
class Pending:
    """A call that must be answered before its caller can be."""

    _context: Context
    _caller: Caller
    _call: Call
    _size: int
    relay: Relay

    def message(self, xid: int) -> bytes:
        """The call to be sent to the relay's host and port."""
        relay = self.relay
        return encode_call(
            Call(
                xid,
                relay.program,
                relay.version,
                relay.procedure,
                relay.credential,
                relay.arguments,
            )
        )

    def finish(self, message: bytes | None) -> bytes | None:
        """The reply for the caller; None: silence.

        :param message: what the service answered; None: nothing in time.
        """
        subject = self.relay.subject
        results = _results(message)
        tally = Tally(self._call.version, self._call.procedure, subject, results is not None)
        self._context.statistics.count(tally)
        xid = self._call.xid
        reply = success(xid, self.relay.encode(results)) if results is not None else b""
        if results is None or not _fits(self._caller, reply):
            return refusal(xid, SystemFailure()) if subject.indirect else None
        return _fitting(self._context, self._caller, self._size, reply, xid)


def _results(message: bytes | None) -> bytes | None:
    try:
        return None if message is None else decode_reply(message)
    except (CallRefused, Unanswerable):
        return None


def _procedure(call: Call) -> Procedure:
    if call.program != PROGRAM:
        raise ProgramUnavailable
    procedures = TABLE.get(call.version)
    if procedures is None:
        raise ProgramMismatch(LOWEST, HIGHEST)
    procedure = procedures.get(call.procedure)
    if procedure is None:
        raise ProcedureUnavailable
    return procedure


def _fitting(context: Context, caller: Caller, asked: int, reply: bytes, xid: int) -> bytes | None:
    """*reply*, or an error where it may not, or cannot, be sent; None where that may not either."""
    if not permits(context.policy, caller, Answer(asked, len(reply))):
        reply = refusal(xid, AuthRefused(AUTH_TOOWEAK, "the reply is larger than the request"))
        return reply if permits(context.policy, caller, Answer(asked, len(reply))) else None
    if not _fits(caller, reply):
        return refusal(xid, SystemFailure("the reply does not fit a datagram"))
    return reply


def _fits(caller: Caller, reply: bytes) -> bool:
    return caller.netid.protocol != "udp" or len(reply) <= MAX_DATAGRAM
