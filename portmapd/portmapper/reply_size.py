"""How large a reply may be.

It has to fit a datagram if it is sent over UDP, and there a stranger gets no large reply to a small
request.
"""

from portmapd.errors import AuthRefused, SystemFailure
from portmapd.oncrpc.message import AUTH_TOOWEAK, MAX_DATAGRAM, refusal, xid_of
from portmapd.portmapper.access import Policy, Reply, permits
from portmapd.portmapper.caller import Caller


def fits_datagram(caller: Caller, reply: bytes) -> bool:
    """Whether the transport of *caller* carries *reply*."""
    return caller.netid.protocol != "udp" or len(reply) <= MAX_DATAGRAM


def bounded_reply(policy: Policy, caller: Caller, request_size: int, reply: bytes) -> bytes | None:
    """The reply to send instead of one that is too large.

    :param request_size: the size of the request, in bytes.
    :param reply: the whole reply.
    :return: *reply* if it may be sent; else an error, or None if that is too large as well.
    """
    if not permits(policy, caller, Reply(request_size, len(reply))):
        too_weak = AuthRefused(AUTH_TOOWEAK, "the reply is larger than the request")
        error = refusal(xid_of(reply), too_weak)
        return error if permits(policy, caller, Reply(request_size, len(error))) else None
    if not fits_datagram(caller, reply):
        return refusal(xid_of(reply), SystemFailure("the reply does not fit a datagram"))
    return reply
