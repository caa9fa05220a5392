"""How large a reply may be.

It has to fit a datagram if it is sent over UDP, and there a stranger gets no large reply to a small
request.
"""

from portmapd.errors import AuthRefused, CallRefused, SystemFailure
from portmapd.oncrpc.message import AUTH_TOOWEAK, MAX_DATAGRAM, refusal, xid_of
from portmapd.portmapper.access import Policy, Reply, permits
from portmapd.portmapper.caller import Caller


def fits_datagram(caller: Caller, size: int) -> bool:
    """Whether the transport of *caller* carries a reply of that size, in bytes."""
    return caller.netid.protocol != "udp" or size <= MAX_DATAGRAM


def too_large(policy: Policy, caller: Caller, request_size: int, size: int) -> CallRefused | None:
    """The error that a caller gets instead of a reply of that size; None if it may be sent.

    :param request_size: the size of the request, in bytes.
    :param size: the size of the whole reply, or the least that it has.
    """
    if not permits(policy, caller, Reply(request_size, size)):
        return AuthRefused(AUTH_TOOWEAK, "the reply is larger than the request")
    if not fits_datagram(caller, size):
        return SystemFailure("the reply does not fit a datagram")
    return None


def bounded_reply(policy: Policy, caller: Caller, request_size: int, reply: bytes) -> bytes | None:
    """The reply to send instead of one that is too large.

    :param request_size: the size of the request, in bytes.
    :param reply: the whole reply.
    :return: *reply* if it may be sent; else an error, or None if that is too large as well.
    """
    fault = too_large(policy, caller, request_size, len(reply))
    if fault is None:
        return reply
    return error_reply(policy, caller, request_size, xid_of(reply), fault)


def error_reply(
    policy: Policy, caller: Caller, request_size: int, xid: int, fault: CallRefused
) -> bytes | None:
    """The reply that tells of *fault*; None if that may not be sent either."""
    error = refusal(xid, fault)
    return error if permits(policy, caller, Reply(request_size, len(error))) else None
