"""CALLIT, BCAST and INDIRECT: the call that is made for a caller, and the reply to that caller."""

from collections.abc import Callable

from attrs import frozen

from portmapd.errors import (
    AuthRefused,
    CallRefused,
    ProgramUnavailable,
    SystemFailure,
    Unanswerable,
)
from portmapd.oncrpc.message import (
    AUTH_TOOWEAK,
    Call,
    decode_reply,
    encode_call,
    refusal,
    success,
)
from portmapd.oncrpc.netid import UDP, UDP6, split_address
from portmapd.oncrpc.program import (
    PMAP_VERS,
    RPCBVERS,
    RPCBVERS4,
    CallResult,
    RemoteCall,
    RpcbCallResult,
    encode_call_result,
    encode_rpcb_call_result,
)
from portmapd.portmapper.access import Forward, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.context import Context, Request
from portmapd.portmapper.reply_size import bounded_reply, fits_datagram
from portmapd.portmapper.statistics import Remote, Tally
from portmapd.registry.mapping import Mapping

#: Where a service on a wildcard address is called.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NoReply(Exception):
    """The request gets no reply.

    :param subject: the call that was not forwarded.
    """

    def __init__(self, subject: Remote) -> None:
        super().__init__()
        self.subject = subject


@frozen
class ForwardedCall:
    """A call over UDP that has to be made before a request can be replied to.

    :param host: IPv4 or IPv6 address of the service that is called.
    :param port: its UDP port.
    """

    host: str
    port: int
    _context: Context
    _request: Request
    _wanted: RemoteCall
    _mapping: Mapping
    _subject: Remote

    def message(self, xid: int) -> bytes:
        """The call to send to the service, with the credential of the caller."""
        wanted, credential = self._wanted, self._request.call.credential
        return encode_call(
            Call(
                xid,
                wanted.program,
                wanted.version,
                wanted.procedure,
                credential,
                wanted.arguments,
            )
        )

    def reply(self, answer: bytes | None) -> bytes | None:
        """Count the call, and make the reply to the request.

        :param answer: the message that the service sent; None if it sent none in time.
        :return: the reply; None if the request gets none.
        """
        results = _results(answer)
        self._count(results is not None)
        if results is None:
            return self._failure()
        return self._success(results)

    def _count(self, succeeded: bool) -> None:
        call, transport = self._request.call, self._request.caller.netid.name
        tally = Tally(call.version, call.procedure, self._subject, succeeded, transport)
        self._context.statistics.count_of(tally).value += 1

    def _success(self, results: bytes) -> bytes | None:
        call, caller = self._request.call, self._request.caller
        body = _ENCODERS[call.version](caller, self._mapping, results)
        reply = success(call.xid, body)
        if not fits_datagram(caller, len(reply)):
            return self._failure()
        return bounded_reply(self._context.policy, caller, self._request.size, reply)

    def _failure(self) -> bytes | None:
        if not self._subject.indirect:
            return None
        return refusal(self._request.call.xid, SystemFailure())


def _results(answer: bytes | None) -> bytes | None:
    try:
        return None if answer is None else decode_reply(answer)
    except (CallRefused, Unanswerable):
        return None


def _encode_port(caller: Caller, service: Mapping, results: bytes) -> bytes:
    return encode_call_result(CallResult(service.port, results))


def _encode_address(caller: Caller, service: Mapping, results: bytes) -> bytes:
    address = caller.reachable_address(service)
    return encode_rpcb_call_result(RpcbCallResult(address, results))


#: How each version encodes the results of a service for the caller.
_ENCODERS: dict[int, Callable[[Caller, Mapping, bytes], bytes]] = {
    PMAP_VERS: _encode_port,
    RPCBVERS: _encode_address,
    RPCBVERS4: _encode_address,
}


def callit(context: Context, request: Request, wanted: RemoteCall) -> ForwardedCall:
    """Serve CALLIT and BCAST: whatever fails, the caller gets no reply (RFC 1833, 2.2.1 and 3.2).

    :raises NoReply: the call is not forwarded.
    """
    subject = _subject(wanted, is_indirect=False)
    try:
        return _forwarded(context, request, wanted, subject)
    except CallRefused:
        raise NoReply(subject) from None


def indirect(context: Context, request: Request, wanted: RemoteCall) -> ForwardedCall:
    """Serve INDIRECT: what fails is replied to with its error status (RFC 1833, 2.2.1).

    :raises AuthRefused: the caller may not have the procedure called.
    :raises ProgramUnavailable: the program is not registered over UDP.
    """
    return _forwarded(context, request, wanted, _subject(wanted, is_indirect=True))


def _subject(wanted: RemoteCall, is_indirect: bool) -> Remote:
    return Remote(wanted.program, wanted.version, wanted.procedure, UDP.name, is_indirect)


def _forwarded(
    context: Context, request: Request, wanted: RemoteCall, subject: Remote
) -> ForwardedCall:
    if not permits(context.policy, request.caller, Forward(wanted.program, wanted.procedure)):
        raise AuthRefused(AUTH_TOOWEAK, "that call is not forwarded")
    mapping = _find_mapping(context, request.caller, wanted)
    if mapping is None:
        raise ProgramUnavailable("the program is not registered over UDP")
    host, port = split_address(mapping.address)
    host = _LOOPBACK.get(host, host)
    return ForwardedCall(host, port, context, request, wanted, mapping, subject)


def _find_mapping(context: Context, caller: Caller, wanted: RemoteCall) -> Mapping | None:
    """The mapping of what is called, in the caller's own protocol family if there is one."""
    netids = (UDP6, UDP) if caller.netid.family == "inet6" else (UDP, UDP6)
    mappings = context.registry.mappings
    found = (mappings.get(wanted.program, wanted.version, n.name) for n in netids)
    return next((m for m in found if m is not None), None)
