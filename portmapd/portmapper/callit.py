"""CALLIT, BCAST and INDIRECT: which call of another program is made, and how it is answered."""

from collections.abc import Callable

from attrs import frozen

from portmapd.errors import AuthRefused, ProgramUnavailable
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import AUTH_TOOWEAK, Credential
from portmapd.oncrpc.netid import UDP, UDP6, split_address
from portmapd.portmapper.access import Forward, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.procedure import Context, Relay, Silence
from portmapd.portmapper.statistics import Remote
from portmapd.registry.mapping import Mapping

#: Where a service that listens on any address is called.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@frozen
class RemoteCall:
    """``struct call_args``, or ``rpcb_rmtcallargs``: what is to be called."""

    program: int
    version: int
    procedure: int
    arguments: bytes


def read_remote_call(reader: xdr.Reader) -> RemoteCall:
    """Take the arguments of a forwarded call off *reader*."""
    return RemoteCall(reader.uint(), reader.uint(), reader.uint(), reader.opaque())


def encode_remote_call(call: RemoteCall) -> bytes:
    """The inverse of :func:`read_remote_call`."""
    numbers = (call.program, call.version, call.procedure)
    return b"".join(map(xdr.uint, numbers)) + xdr.opaque(call.arguments)


def relay(
    context: Context,
    caller: Caller,
    credential: Credential,
    call: RemoteCall,
    encode: Callable[[Mapping, bytes], bytes],
    indirect: bool = False,
) -> Relay:
    """The call to be made for *caller*, with its credential.

    :param encode: makes the caller's results of the mapping that was called and its results.
    :param indirect: failures are answered with their status, not with silence (RFC 1833, 2.2.1).
    :raises Silence: the call is not forwarded, and that is not said.
    :raises AuthRefused: the caller may not have it called.
    :raises ProgramUnavailable: it is not registered over UDP.
    """
    subject = Remote(call.program, call.version, call.procedure, UDP.name, indirect)
    if not permits(context.policy, caller, Forward(call.program, call.procedure)):
        if indirect:
            raise AuthRefused(AUTH_TOOWEAK, "that call is not forwarded")
        raise Silence(subject)
    mapping = _service(context, caller, call)
    if mapping is None:
        if indirect:
            raise ProgramUnavailable("the program is not registered over UDP")
        raise Silence(subject)
    host, port = split_address(mapping.address)
    return Relay(
        _LOOPBACK.get(host, host),
        port,
        call.program,
        call.version,
        call.procedure,
        credential,
        call.arguments,
        lambda results: encode(mapping, results),
        subject,
    )


def _service(context: Context, caller: Caller, call: RemoteCall) -> Mapping | None:
    """A service of the caller's own protocol family is preferred."""
    netids = (UDP6, UDP) if caller.netid.family == "inet6" else (UDP, UDP6)
    found = (context.registry.mappings.get(call.program, call.version, n.name) for n in netids)
    return next((m for m in found if m is not None), None)
