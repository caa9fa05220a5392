"""The client of program 100000 for Twisted applications."""

from collections.abc import Callable
from ipaddress import ip_address
from struct import error
from typing import Any, Generic, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)

from portmapd.client.datagrams import DatagramTransport
from portmapd.client.stream import StreamTransport
from portmapd.oncrpc.message import NOBODY, XID, Call, Credential, decode_reply, encode_call
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.access import PROGRAM
from portmapd.portmapper.callit import RemoteCall, encode_remote_call
from portmapd.portmapper.rpcbind import Rpcb, encode_rpcb, read_rpcb
from portmapd.portmapper.v2 import (
    CallResult,
    Pmap,
    encode_pmap,
    read_call_result,
    read_nothing,
    read_pmap,
)

#: How long a call may take, in seconds, unless it is said otherwise.
TIMEOUT = 10.0
PORT = 111

T = TypeVar("T")


class Transport(Protocol):
    """A way to one server."""

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make the call that is *tail* behind its xid, and give the message that replies."""

    def close(self) -> Deferred[None]:
        """End what is under way and close what is open."""


@frozen
class _Procedure(Generic[T]):
    """A procedure of program 100000, by its version and number.

    :param read: takes its results off a reader.
    """

    version: int
    number: int
    read: Callable[[Reader], T]

    def results(self, message: bytes) -> T:
        """The results in a reply."""
        return self.read(Reader(decode_reply(message)))


_SET = _Procedure(2, 1, Reader.boolean)
_UNSET = _Procedure(2, 2, Reader.boolean)
_GETPORT = _Procedure(2, 3, Reader.uint)
_DUMP = _Procedure(2, 4, lambda reader: reader.sequence(read_pmap))
_CALLIT = _Procedure(2, 5, read_call_result)
_GETADDR = _Procedure(4, 3, Reader.string)
_DUMP_ADDRESSES = _Procedure(4, 4, lambda reader: reader.sequence(read_rpcb))


class PortmapClient:
    """Asks one port mapper, over one socket that is opened when the first call needs it.

    Many calls may be under way at once. Every method that makes one returns a Deferred, which
    fires with what is said there, or fails with

    - a subclass of :exc:`~portmapd.errors.CallRefused` that says with which status the port
      mapper refused the call (RFC 5531, section 9),
    - :exc:`~portmapd.errors.CallTimedOut`: no answer came in time,
    - :exc:`~portmapd.errors.DaemonUnreachable`: nobody serves there, the network leads nowhere,
      the connection was lost, or the client was closed,
    - :exc:`~portmapd.errors.PeerFault`: the answer was malformed.

    Cancelling the Deferred forgets the call; what the port mapper did is not undone. Over UDP a
    call that is not answered is sent again, so that the port mapper may carry it out twice.

    :param reactor: the application's reactor.
    :param host: IPv4 or IPv6 address of the port mapper; for transport ``local``, the path of its
        rpcbind socket.
    :param port: its port; unused for transport ``local``.
    :param transport: ``udp``, ``tcp`` or ``local``.
    :param timeout: seconds that a call may take, with the making of the connection.
    :param credential: says who calls; the default is AUTH_NONE. See
        :func:`~portmapd.oncrpc.message.sys_credential`.
    :raises ValueError: *host* is no address, *transport* is unknown, or *timeout* is not positive.
    """

    def __init__(
        self,
        reactor: Any,
        host: str = "127.0.0.1",
        port: int = PORT,
        transport: str = "udp",
        timeout: float = TIMEOUT,
        credential: Credential = NOBODY,
    ) -> None:
        if transport not in _TRANSPORTS:
            raise ValueError(f"transport {transport!r} is none of {', '.join(_TRANSPORTS)}")
        if not timeout > 0:
            raise ValueError(f"timeout {timeout} is not a number of seconds above 0")
        self._transport, self._netid = _TRANSPORTS[transport](reactor, host, port, timeout)
        self._timeout = timeout
        self._credential = credential

    def null(self, version: int = 2) -> Deferred[None]:
        """Ask whether that version of program 100000 is served.

        It fires with None if it is, and fails with :exc:`~portmapd.errors.ProgramMismatch` if it
        is not.

        :raises ValueError: the number does not fit 32 bits.
        """
        return self._call(_Procedure(version, 0, read_nothing))

    def set(self, program: int, version: int, protocol: int, port: int) -> Deferred[bool]:
        """Register a program's version (RFC 1833, 3.2).

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :param port: the port that it is served on, 1 to 65535.
        :return: True: it is registered there now. False: it is not, because another port stands
            that is bound or somebody else's, or because a number is not valid.
        :raises ValueError: a number does not fit 32 bits.
        """
        return self._call(_SET, _pmap(program, version, protocol, port))

    def unset(self, program: int, version: int) -> Deferred[bool]:
        """Remove a program's version from every transport.

        :return: True: it is registered on none now. False: it is not the caller's to remove.
        :raises ValueError: a number does not fit 32 bits.
        """
        return self._call(_UNSET, _pmap(program, version))

    def getport(self, program: int, version: int, protocol: int) -> Deferred[int]:
        """Ask for the port of a program's version.

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :return: the port; 0 if the program is not registered for the protocol.
        :raises ValueError: a number does not fit 32 bits.
        """
        return self._call(_GETPORT, _pmap(program, version, protocol))

    def dump(self) -> Deferred[tuple[Pmap, ...]]:
        """Ask for every mapping as version 2 has them: those of IPv4.

        Over UDP, few fit an answer, and a port mapper may refuse callers on other hosts.
        """
        return self._call(_DUMP)

    def dump_addresses(self) -> Deferred[tuple[Rpcb, ...]]:
        """Ask for every mapping as version 4 has them: netids, addresses and owners."""
        return self._call(_DUMP_ADDRESSES)

    def callit(
        self, program: int, version: int, procedure: int, arguments: bytes = b""
    ) -> Deferred[CallResult]:
        """Have the port mapper call another program on its host, over UDP.

        It keeps silent if that fails, so that this fails with
        :exc:`~portmapd.errors.CallTimedOut`.

        :param arguments: the procedure's arguments, encoded.
        :return: the port of the program, and its encoded results.
        :raises ValueError: a number does not fit 32 bits, or the arguments a datagram.
        """
        wanted = RemoteCall(program, version, procedure, arguments)
        return self._call(_CALLIT, _encoded(encode_remote_call, wanted))

    def getaddr(self, program: int, version: int) -> Deferred[str]:
        """Ask for the address of a program's version, on this client's own transport.

        :return: a universal address (RFC 5665, 5.2.3), see
            :func:`~portmapd.oncrpc.netid.split_address`; for transport ``local`` a path; empty
            if the program is not registered there.
        :raises ValueError: a number does not fit 32 bits.
        """
        return self._call(_GETADDR, _encoded(encode_rpcb, Rpcb(program, version, self._netid)))

    def close(self) -> Deferred[None]:
        """End every call under way, and close the socket.

        A later call opens one again.

        :return: fires when it is closed.
        """
        return self._transport.close()

    def _call(self, procedure: _Procedure[T], arguments: bytes = b"") -> Deferred[T]:
        version, number = procedure.version, procedure.number
        call = Call(0, PROGRAM, version, number, self._credential, arguments)
        reply = self._transport.call(_encoded(encode_call, call)[XID:], self._timeout)
        return reply.addCallback(procedure.results)


def _pmap(program: int, version: int, protocol: int = 0, port: int = 0) -> bytes:
    return _encoded(encode_pmap, Pmap(program, version, protocol, port))


def _encoded(encode: Callable[[T], bytes], value: T) -> bytes:
    try:
        return encode(value)
    except error:
        raise ValueError(f"{value}: a number is not in the range 0 to 4294967295") from None


def _datagrams(reactor: Any, host: str, port: int, timeout: float) -> tuple[Transport, str]:
    netid = {4: "udp", 6: "udp6"}[ip_address(host).version]
    return DatagramTransport(reactor, host, port), netid


def _tcp(reactor: Any, host: str, port: int, timeout: float) -> tuple[Transport, str]:
    kind, netid = {4: (TCP4ClientEndpoint, "tcp"), 6: (TCP6ClientEndpoint, "tcp6")}[
        ip_address(host).version
    ]
    endpoint = kind(reactor, host, port, timeout)
    return StreamTransport(reactor, endpoint, f"TCP port {port} of {host}"), netid


def _local(reactor: Any, path: str, port: int, timeout: float) -> tuple[Transport, str]:
    return StreamTransport(reactor, UNIXClientEndpoint(reactor, path, timeout), path), "local"


_TRANSPORTS: dict[str, Callable[[Any, str, int, float], tuple[Transport, str]]] = {
    "udp": _datagrams,
    "tcp": _tcp,
    "local": _local,
}
