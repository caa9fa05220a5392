"""PortmapClient: program 100000 for Twisted applications."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Generic, Literal, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IReactorTime

from portmapd.client.rpc.datagrams import DatagramTransport
from portmapd.client.rpc.stream import StreamTransport
from portmapd.oncrpc.message import NOBODY, XID, Call, Credential, decode_reply, encode_call
from portmapd.oncrpc.program import (
    PMAP_VERS,
    PROGRAM,
    RPCBVERS4,
    CallResult,
    Pmap,
    PmapProcedure,
    RemoteCall,
    Rpcb,
    RpcbProcedure,
    encode_pmap,
    encode_remote_call,
    encode_rpcb,
    read_call_result,
    read_pmap,
    read_rpcb,
    read_void,
)
from portmapd.oncrpc.xdr import Reader

PORT = 111
#: How long a call may take by default, in seconds.
TIMEOUT = 10.0

A = TypeVar("A")
R = TypeVar("R")


class Transport(Protocol):
    """A way to one port mapper.

    :ivar netid: its netid, which GETADDR asks for.
    """

    netid: str

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call.

        :param tail: the call's message less its xid.
        :param timeout: how long it may take, in seconds.
        :return: fires with the message that replies.
        """

    def close(self) -> Deferred[None]:
        """End the calls under way, and close the socket; fires when it is closed."""


@frozen
class _Procedure(Generic[A, R]):
    """A procedure of program 100000.

    :param encode: encodes its arguments.
    :param read: reads its results.
    """

    version: int
    number: int
    encode: Callable[[A], bytes]
    read: Callable[[Reader], R]

    def call(self, arguments: A, credential: Credential) -> bytes:
        """The message of a call, less its xid.

        :raises ValueError: a number in the arguments does not fit 32 bits.
        """
        try:
            encoded = self.encode(arguments)
            call = Call(0, PROGRAM, self.version, self.number, credential, encoded)
            return encode_call(call)[XID:]
        except struct.error:
            what = f"version {self.version}" if arguments is None else arguments
            raise ValueError(f"{what}: a number is not in the range 0 to 4294967295") from None

    def results(self, message: bytes) -> R:
        """The results in a reply."""
        return self.read(Reader(decode_reply(message)))


def _encode_void(arguments: None) -> bytes:
    return b""


def _read_pmaps(reader: Reader) -> tuple[Pmap, ...]:
    return reader.sequence(read_pmap)


def _read_rpcbs(reader: Reader) -> tuple[Rpcb, ...]:
    return reader.sequence(read_rpcb)


def _null(version: int) -> _Procedure[None, None]:
    return _Procedure(version, PmapProcedure.PMAPPROC_NULL, _encode_void, read_void)


_SET = _Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_SET, encode_pmap, Reader.boolean)
_UNSET = _Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_UNSET, encode_pmap, Reader.boolean)
_GETPORT = _Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_GETPORT, encode_pmap, Reader.uint)
_DUMP = _Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_DUMP, _encode_void, _read_pmaps)
_CALLIT = _Procedure(PMAP_VERS, PmapProcedure.PMAPPROC_CALLIT, encode_remote_call, read_call_result)
_GETADDR = _Procedure(RPCBVERS4, RpcbProcedure.RPCBPROC_GETADDR, encode_rpcb, Reader.string)
_DUMP_ADDRESSES = _Procedure(RPCBVERS4, RpcbProcedure.RPCBPROC_DUMP, _encode_void, _read_rpcbs)


class PortmapClient:
    """Asks one port mapper, over one socket that is opened when the first call needs it.

    Many calls may be under way at once. Every method that makes one returns a Deferred. It fires
    with the results, or fails with

    - a subclass of :exc:`~portmapd.errors.CallRefused`: the port mapper refused the call; the
      class tells the status (RFC 5531, section 9),
    - :exc:`~portmapd.errors.CallTimedOut`: no reply came in time,
    - :exc:`~portmapd.errors.DaemonUnreachable`: nobody serves there, there is no route to it, the
      connection was lost, or the client was closed,
    - :exc:`~portmapd.errors.PeerFault`: the reply is malformed,
    - :exc:`ValueError`: a number among the arguments does not fit 32 bits, or the call does not
      fit a datagram; nothing was sent.

    Cancelling the Deferred forgets the call; what the port mapper did is not undone. Over UDP a
    call that gets no reply is sent again, so that the port mapper may carry it out twice.

    :param reactor: the application's reactor. Beside ``IReactorTime`` it provides
        ``IReactorFDSet`` for transport ``udp``, ``IReactorTCP`` for ``tcp``, ``IReactorUNIX`` for
        ``local``.
    :param host: IPv4 or IPv6 address of the port mapper; for transport ``local``, the path of its
        rpcbind socket.
    :param port: its port; unused for transport ``local``.
    :param transport: ``udp``, ``tcp`` or ``local``.
    :param timeout: how long a call may take, in seconds, including the time to connect.
    :param credential: who makes the calls; the default is AUTH_NONE. See
        :func:`~portmapd.oncrpc.message.sys_credential`.
    :raises ValueError: *host* is not an address, *transport* is unknown, or *timeout* is not
        positive.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        host: str = "127.0.0.1",
        port: int = PORT,
        transport: Literal["udp", "tcp", "local"] = "udp",
        timeout: float = TIMEOUT,
        credential: Credential = NOBODY,
    ) -> None:
        if transport not in _TRANSPORTS:
            raise ValueError(f"transport {transport!r} is none of {', '.join(_TRANSPORTS)}")
        if not timeout > 0:
            raise ValueError(f"timeout {timeout} is not a number of seconds above 0")
        self._transport = _TRANSPORTS[transport](reactor, host, port, timeout)
        self._timeout = timeout
        self._credential = credential

    def null(self, version: int = PMAP_VERS) -> Deferred[None]:
        """Ask whether a version of program 100000 is served.

        :return: fires with None if it is, and fails with
            :exc:`~portmapd.errors.ProgramMismatch` if it is not.
        """
        return self._call(_null(version), None)

    def set(self, program: int, version: int, protocol: int, port: int) -> Deferred[bool]:
        """Register a program's version (RFC 1833, 3.2).

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :param port: the port that serves it, 1 to 65535.
        :return: whether it is registered there now. It is not if another port is registered that
            is bound or belongs to somebody else, or if a number is not valid.
        """
        return self._call(_SET, Pmap(program, version, protocol, port))

    def unset(self, program: int, version: int) -> Deferred[bool]:
        """Remove a program's version from every transport.

        :return: whether it is registered on none now; False if the caller may not remove it.
        """
        return self._call(_UNSET, Pmap(program, version))

    def getport(self, program: int, version: int, protocol: int) -> Deferred[int]:
        """Ask for the port of a program's version.

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :return: the port; 0 if the program is not registered for the protocol.
        """
        return self._call(_GETPORT, Pmap(program, version, protocol))

    def dump(self) -> Deferred[tuple[Pmap, ...]]:
        """Ask for every mapping that version 2 knows: those of IPv4.

        Over UDP only a short list fits the reply, and a port mapper may refuse to send it to
        another host.
        """
        return self._call(_DUMP, None)

    def dump_addresses(self) -> Deferred[tuple[Rpcb, ...]]:
        """Ask for every mapping as version 4 knows it, with netid, address and owner."""
        return self._call(_DUMP_ADDRESSES, None)

    def callit(
        self, program: int, version: int, procedure: int, arguments: bytes = b""
    ) -> Deferred[CallResult]:
        """Have the port mapper call another program on its host, over UDP.

        If that fails, the port mapper sends no reply, and this fails with
        :exc:`~portmapd.errors.CallTimedOut`.

        :param arguments: the procedure's arguments, encoded.
        :return: the port of the program, and its encoded results.
        """
        return self._call(_CALLIT, RemoteCall(program, version, procedure, arguments))

    def getaddr(self, program: int, version: int) -> Deferred[str]:
        """Ask for the address of a program's version on this client's own transport.

        :return: a universal address (RFC 5665, 5.2.3), see
            :func:`~portmapd.oncrpc.netid.split_address`; for transport ``local`` a path; empty
            if the program is not registered there.
        """
        return self._call(_GETADDR, Rpcb(program, version, self._transport.netid))

    def close(self) -> Deferred[None]:
        """End every call under way, and close the socket. A later call opens one again.

        :return: fires when it is closed.
        """
        return self._transport.close()

    def _call(self, procedure: _Procedure[A, R], arguments: A) -> Deferred[R]:
        reply = maybeDeferred(self._send, procedure, arguments)
        return reply.addCallback(procedure.results)

    def _send(self, procedure: _Procedure[A, R], arguments: A) -> Deferred[bytes]:
        return self._transport.call(procedure.call(arguments, self._credential), self._timeout)


def _udp(reactor: IReactorTime, host: str, port: int, timeout: float) -> Transport:
    netid = {4: "udp", 6: "udp6"}[ip_address(host).version]
    return DatagramTransport(reactor, host, port, netid)


def _tcp(reactor: IReactorTime, host: str, port: int, timeout: float) -> Transport:
    kind, netid = {4: (TCP4ClientEndpoint, "tcp"), 6: (TCP6ClientEndpoint, "tcp6")}[
        ip_address(host).version
    ]
    endpoint = kind(reactor, host, port, timeout)
    return StreamTransport(reactor, endpoint, f"TCP port {port} of {host}", netid)


def _local(reactor: IReactorTime, path: str, port: int, timeout: float) -> Transport:
    return StreamTransport(reactor, UNIXClientEndpoint(reactor, path, timeout), path, "local")


_TRANSPORTS: dict[str, Callable[[IReactorTime, str, int, float], Transport]] = {
    "udp": _udp,
    "tcp": _tcp,
    "local": _local,
}
