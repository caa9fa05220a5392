"""From the bytes of a message to its reply; total: any bytes have an outcome."""

from collections.abc import Iterator

from attrs import frozen

from portmapd.errors import (
    AuthRefused,
    CallRefused,
    GarbageArguments,
    Refusal,
    Unanswerable,
    XdrError,
)
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import MAX_DATAGRAM, decode_call, refusal, success, xid_of
from portmapd.oncrpc.program import PMAP_VERS, PROGRAM, RPCBVERS, RPCBVERS4
from portmapd.oncrpc.table import ProcedureTable
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper import rpcbind, v2
from portmapd.portmapper.access import Ask, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.callit import ForwardedCall, NoReply
from portmapd.portmapper.context import Context, Request
from portmapd.portmapper.procedure import Procedure, Results
from portmapd.portmapper.reply_size import bounded_reply, error_reply, too_large
from portmapd.portmapper.statistics import Count, Lookup, Remote, Tally

#: The size of a reply without results, in bytes.
HEADER = len(success(0, b""))
#: A reply is made whole up to so many bytes, as a datagram has it. Of a longer one, over a stream,
#: the rest is made when the peer takes it.
MAX_WHOLE = MAX_DATAGRAM
#: The dispatch table: version, then procedure.
TABLE: dict[int, dict[int, Procedure]] = {
    PMAP_VERS: v2.PROCEDURES,
    RPCBVERS: rpcbind.VERSION_3,
    RPCBVERS4: rpcbind.VERSION_4,
}

_PROCEDURES = ProcedureTable({PROGRAM: TABLE})


@frozen
class Outcome:
    """What a message leads to.

    :param reply: the reply; None if there is none, or not yet.
    :param rest: further parts of the reply, each made when it is asked for; None if it is whole.
    :param cacheable: counts the reply, which may be given again to the same request of the same
        kind of caller until a mapping changes; None if it must not be.
    :param fault: what is malformed about the message; empty if nothing is.
    :param forwarded: a call that has to be made first, and makes the reply; None if there is none.
    :param refused: why the caller may not do what it asks for; empty if it may.
    """

    reply: bytes | None = None
    cacheable: Count | None = None
    fault: str = ""
    forwarded: ForwardedCall | None = None
    refused: str = ""
    rest: Iterator[bytes] | None = None


class Dispatcher:
    """Program 100000.

    :param context: what its procedures work on.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def dispatch(self, message: bytes, caller: Caller) -> Outcome:
        """Serve one message; it raises nothing, whatever the message is."""
        if not permits(self._context.policy, caller, Ask()):
            return Outcome()
        try:
            outcome = self._serve(Request(decode_call(message), caller, len(message)))
        except Unanswerable as fault:
            outcome = Outcome(fault=str(fault))
        except CallRefused as fault:
            error = refusal(xid_of(message), fault)
            reply = bounded_reply(self._context.policy, caller, len(message), error)
            outcome = Outcome(reply, fault=str(fault))
            self._refuse(fault)
        if outcome.fault:
            self._context.statistics.malformed += 1
        return outcome

    def _serve(self, request: Request) -> Outcome:
        call = request.call
        try:
            procedure = _PROCEDURES.find(call)
            arguments = procedure.decode(Reader(call.arguments))
        except CallRefused as refused:
            self._refuse(refused)
            return Outcome(refusal(call.xid, refused))
        except XdrError as fault:
            self._count(request, success=False)
            garbage = GarbageArguments()
            self._refuse(garbage)
            return Outcome(refusal(call.xid, garbage), fault=f"arguments: {fault}")
        return self._operate(request, procedure, arguments)

    def _operate(self, request: Request, procedure: Procedure, arguments: object) -> Outcome:
        call = request.call
        policy, caller = self._context.policy, request.caller
        if procedure.least is not None:
            least = HEADER + procedure.least(self._context)
            fault = too_large(policy, caller, request.size, least)
            if fault is not None:
                count = self._count(request, success=False)
                error = error_reply(policy, caller, request.size, call.xid, fault)
                return Outcome(error, count if procedure.cacheable else None)
        try:
            results = procedure.operate(self._context, request, arguments)
        except NoReply as silent:
            self._count(request, silent.subject, success=False)
            return Outcome()
        except CallRefused as refused:
            self._count(request, success=False)
            self._refuse(refused)
            why = str(refused) if isinstance(refused, AuthRefused) else ""
            return Outcome(refusal(call.xid, refused), refused=why)
        except Refusal as refused:
            self._count(request, success=False)
            self._refuse(refused)
            return Outcome(success(call.xid, xdr.uint(False)), refused=str(refused))
        if isinstance(results, ForwardedCall):
            return Outcome(forwarded=results)
        count = self._count(request, results.subject, results.success)
        return self._reply(request, results, count if procedure.cacheable else None)

    def _reply(self, request: Request, results: Results, cacheable: Count | None) -> Outcome:
        caller = request.caller
        reply = success(request.call.xid, results.body)
        if results.rest is not None:
            reply += _begin(results.rest)
            if len(reply) > MAX_WHOLE and caller.netid.protocol != "udp":
                return Outcome(reply, rest=results.rest)
        return Outcome(bounded_reply(self._context.policy, caller, request.size, reply), cacheable)

    def _count(
        self, request: Request, subject: Lookup | Remote | None = None, success: bool = True
    ) -> Count:
        call, transport = request.call, request.caller.netid.name
        tally = Tally(call.version, call.procedure, subject, success, transport)
        count = self._context.statistics.count_of(tally)
        count.value += 1
        return count

    def _refuse(self, refused: CallRefused | Refusal) -> None:
        self._context.statistics.refusals[refused.code] += 1


def _begin(parts: Iterator[bytes]) -> bytes:
    """The first parts of results: all of them, or more than a whole reply has."""
    begun: list[bytes] = []
    size = 0
    for part in parts:
        begun.append(part)
        size += len(part)
        if size > MAX_WHOLE:
            break
    return b"".join(begun)
