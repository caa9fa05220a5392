"""From the bytes of a call to the bytes of its reply, for the procedures of an application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from inspect import iscoroutine
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from portmapd.errors import (
    CallRefused,
    GarbageArguments,
    SystemFailure,
    Unanswerable,
    XdrError,
)
from portmapd.oncrpc.message import decode_call, refusal, success, xid_of
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.context import Request
from portmapd.portmapper.reply_cache import ReplyTable, empty_table
from portmapd.portmapper.reply_size import fits_datagram
from portmapd.rpc.program import Procedure, Program, table_of
from portmapd.server.call_forwarder import Respond
from portmapd.server.call_server import BaseCallServer
from portmapd.server.log_events import PROCEDURE_FAILED
from portmapd.server.rate_limited_log import RateLimitedLog

#: The most calls whose results are waited for. One host may have a quarter of them.
MAX_CALLS = 1_024
SHARES = 4
#: The most of them of one stream; nothing more is read from it meanwhile.
MAX_WAITING = 64
#: How long a call may take, in seconds.
TIMEOUT = 60.0
#: What arguments that are none raise; the type of an application may call ``int`` or an enum.
_GARBAGE = (XdrError, ValueError, RecursionError)


class ProgramServer(BaseCallServer):
    """Serves the calls to an application's programs.

    :param programs: what is served.
    :param clock: measures time.
    :param peer_log: is told who sends malformed messages, and which procedures fail.
    :param timeout: seconds after which a call whose results are waited for is cancelled, and its
        caller gets SYSTEM_ERR; None: never.
    """

    _log = Logger("portmapd")

    def __init__(
        self,
        programs: Iterable[Program],
        clock: IReactorTime,
        peer_log: RateLimitedLog,
        timeout: float | None = TIMEOUT,
    ) -> None:
        super().__init__(Policy(), peer_log)
        self._procedures = table_of(programs)
        self._clock = clock
        self._timeout = timeout
        self._table = empty_table()
        self._is_closing = False
        #: The calls whose results are waited for, by who made them; and how many each host made.
        self._waiting: dict[tuple[Caller, bytes], Deferred[Any]] = {}
        self._hosts: Counter[str] = Counter()

    def table(self, caller: Caller) -> ReplyTable:
        return self._table

    def serve(self, message: bytes, caller: Caller, respond: Respond) -> bytes | None:
        # Of a retransmission nothing comes: the reply to the first call is on its way.
        if caller.audience is Audience.EXCLUDED or (caller, message) in self._waiting:
            return None
        try:
            request = Request(decode_call(message), caller, len(message))
            procedure = self._procedures.find(request.call)
            arguments = self._arguments(procedure, request)
        except Unanswerable as fault:
            self.malformed(caller, str(fault))
            return None
        except CallRefused as refused:
            return refusal(xid_of(message), refused)
        return self._call(procedure, request, arguments, (caller, message), respond)

    def _arguments(self, procedure: Procedure[Any, Any], request: Request) -> Any:
        try:
            return procedure.arguments.read(Reader(request.call.arguments))
        except _GARBAGE as fault:
            self.malformed(request.caller, f"arguments of {procedure.name}: {fault}")
            raise GarbageArguments from None

    def _call(
        self,
        procedure: Procedure[Any, Any],
        request: Request,
        arguments: Any,
        key: tuple[Caller, bytes],
        respond: Respond,
    ) -> bytes | None:
        try:
            results = procedure.handle(arguments, request)
        except Exception:
            return self._failed(procedure, request, Failure())
        if isinstance(results, Deferred) or iscoroutine(results):
            return self._wait(procedure, request, results, key, respond)
        return self._reply(procedure, request, results)

    def _reply(self, procedure: Procedure[Any, Any], request: Request, results: object) -> bytes:
        """The reply that carries *results*, or tells that it cannot."""
        try:
            reply = success(request.call.xid, procedure.results.encode(results))
        except Exception:
            return self._failed(procedure, request, Failure())
        if not fits_datagram(request.caller, len(reply)):
            why = f"the reply of {len(reply)} bytes does not fit a datagram"
            self._peer_log.refused(request.caller, f"{procedure.name}: {why}")
            return refusal(request.call.xid, SystemFailure(why))
        return reply

    def _failed(self, procedure: Procedure[Any, Any], request: Request, failure: Failure) -> bytes:
        """The reply to a call whose procedure raised an exception."""
        call = request.call
        if isinstance(failure.value, CallRefused):
            return refusal(call.xid, failure.value)
        if not self._is_closing and self._peer_log.takes(PROCEDURE_FAILED):
            self._log.failure(
                PROCEDURE_FAILED.text,
                failure,
                event=PROCEDURE_FAILED.name,
                procedure=procedure.name,
                program=call.program,
                version=call.version,
                caller=str(request.caller),
            )
        return refusal(call.xid, SystemFailure())

    def _wait(
        self,
        procedure: Procedure[Any, Any],
        request: Request,
        results: Any,
        key: tuple[Caller, bytes],
        respond: Respond,
    ) -> bytes | None:
        """Wait for *results*, which come later or are there already."""
        host = request.caller.host
        if self._is_full(host):
            _drop(results)
            self._peer_log.refused(request.caller, f"{procedure.name}: too many calls wait")
            return refusal(request.call.xid, SystemFailure())
        reply: Deferred[Any] = Deferred.fromCoroutine(results) if iscoroutine(results) else results
        if self._timeout is not None:
            reply.addTimeout(self._timeout, self._clock)
        reply.addCallbacks(
            partial(self._reply, procedure, request), partial(self._failed, procedure, request)
        )
        if reply.called and not reply.paused:
            return cast("bytes", reply.result)
        self._waiting[key] = reply
        self._hosts[host] += 1
        reply.addCallback(self._respond, key, respond)
        return b""

    def _is_full(self, host: str) -> bool:
        return len(self._waiting) >= MAX_CALLS or self._hosts[host] >= MAX_CALLS // SHARES

    def _respond(self, reply: bytes, key: tuple[Caller, bytes], respond: Respond) -> None:
        if self._waiting.pop(key, None) is None:
            # The server was closed.
            return
        host = key[0].host
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]
        respond(reply)

    def cancel(self) -> None:
        """Cancel every call whose results are waited for; nobody is replied to."""
        waiting, self._waiting = self._waiting, {}
        self._hosts.clear()
        self._is_closing = True
        for reply in waiting.values():
            reply.cancel()
        self._is_closing = False


def _drop(results: Any) -> None:
    """Have nothing done about *results*, which nobody waits for."""
    if iscoroutine(results):
        results.close()
    else:
        results.addErrback(lambda failure: failure.trap(CancelledError))
        results.cancel()
