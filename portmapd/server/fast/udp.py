"""The UDP socket of program 100000, as fast as the interpreter allows."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from struct import Struct
from sys import byteorder
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorFDSet
from twisted.internet.udp import Port
from twisted.logger import Logger
from zope.interface import implementer

from portmapd.errors import ConfigurationError
from portmapd.oncrpc.netid import UDP, UDP6
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.reply_cache import ReplyTable
from portmapd.server.datagram import IPacketInfoTransport, PortmapDatagramProtocol
from portmapd.server.fast.bind import prepare_socket
from portmapd.server.fast.epoll_group import IGroupReactor
from portmapd.server.fast.recvmmsg import Batch
from portmapd.server.fast.rpc_group import RpcGroup
from portmapd.server.interface_filter import (
    hear_loopback,
    hear_others,
    hears_loopback,
    is_loopback,
    steer,
)

#: The largest request that is taken, in bytes: any datagram.
MAX_REQUEST = 65_535
#: Room for requests that arrive while the process is busy, in bytes. The kernel's default is too
#: small for any stall.
RECEIVE_BUFFER = 4 << 20
#: The most callers' hosts whose reply tables a socket remembers.
MAX_PEERS = 4_096

#: Linux's own numbers, which the socket module does not have.
_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
#: The options by which a socket gives packet information.
_PACKET_INFO = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO),
}
_WILDCARDS = UDP.wildcard, UDP6.wildcard
_PKTINFO = Struct("=i4s4s")
_PKTINFO6 = Struct("=16si")

_SOCKADDR_IN = Struct("!2xH4s8x")
_SOCKADDR_IN6 = Struct("!2xHI16s4s")
_MULTICAST = 0xFF


def listen(
    port: int,
    protocol: PortmapDatagramProtocol,
    host: str,
    reactor: IReactorFDSet,
    bound: Sequence[socket.socket] = (),
) -> DividedPort:
    """Serve program 100000 over UDP at one address.

    :param host: the address to bind, with its scope; a wildcard serves every address.
    :param bound: sockets that are bound to it already, in that order: one, or two that share it.
        Empty: they are made.
    :raises CannotListenError: it cannot be bound.
    :raises ConfigurationError: it is bound, and cannot be served like that.
    """
    try:
        sockets = _divided(host, bound) if bound else _bound_sockets(host, port)
    except OSError as error:
        raise CannotListenError(host, port, error) from error
    ports = [DatagramPort(each, protocol, host, reactor) for each in sockets]
    group = None
    if host == UDP6.wildcard:
        group = RpcGroup([each.socket for each in sockets], cast("IGroupReactor", reactor))
    return DividedPort(ports, group)


@implementer(IListeningPort)
class DividedPort:
    """The UDP sockets of one address, as one listening port.

    :param group: keeps them in the group of broadcasts; None: they are in none.
    """

    def __init__(self, ports: list[DatagramPort], group: RpcGroup | None) -> None:
        self._ports = ports
        self._group = group
        self.startListening()

    def startListening(self) -> None:
        for port in self._ports:
            port.startListening()
        if self._group is not None:
            self._group.start()

    def serve(self) -> bool:
        """Serve datagrams that have arrived, for one turn; were there any?"""
        served = [port.serve() for port in self._ports]
        return any(served)

    def stopListening(self) -> Deferred[None]:
        if self._group is not None:
            self._group.stop()
        closed = gatherResults([maybeDeferred(port.stopListening) for port in self._ports])
        return closed.addCallback(lambda _: None)

    def getHost(self) -> IAddress:
        return cast("IAddress", self._ports[0].getHost())

    @property
    def is_open(self) -> bool:
        """Whether it is not closed yet."""
        return any(port.connected for port in self._ports)

    @property
    def descriptors(self) -> list[int]:
        """Its sockets, the one first that was bound first."""
        return [port.fileno() for port in self._ports]


@frozen
class HeardSocket:
    """A UDP socket.

    :param hears_loopback: does it hear the loopback interface alone? Then the kernel vouches that
        its callers are on this host. Otherwise it hears all other interfaces.
    """

    socket: socket.socket
    hears_loopback: bool


def _bound_sockets(host: str, port: int) -> list[HeardSocket]:
    """Bind the sockets of an address: one for callers on this host, one for all others.

    A loopback address is for callers on this host alone.

    :raises OSError: the address cannot be bound.
    """
    if is_loopback(host):
        return [HeardSocket(_bound_socket(host, port, hear_loopback), hears_loopback=True)]
    others = _bound_socket(host, port, hear_others)
    try:
        # Not before it is bound: two port mappers of one user could share the address.
        _share_port(others)
        number = others.getsockname()[1]
        loopback = _bound_socket(host, number, hear_loopback, _share_port)
    except OSError:
        others.close()
        raise
    steer(others)
    return [HeardSocket(others, False), HeardSocket(loopback, True)]


def _divided(host: str, bound: Sequence[socket.socket]) -> list[HeardSocket]:
    """Divide the datagrams between sockets that are bound already, as between those made here.

    :param bound: one socket, to which another is made if the address needs it; or two.
    :raises ConfigurationError: another one cannot be made, or the two do not share the address.
    """
    for skt in bound:
        _adapt(skt, host)
    if is_loopback(host):
        _confine(bound[0])
        return [HeardSocket(bound[0], hears_loopback=True)]
    others, *rest = bound
    # What it heard before is served, too: as from strangers, to which it makes no difference.
    hear_others(others)
    if rest:
        loopback = rest[0]
        _check_shared(others, loopback)
        _confine(loopback)
    else:
        _share_port(others)
        loopback = _second_socket(host, others.getsockname()[1])
    steer(others)
    return [HeardSocket(others, False), HeardSocket(loopback, True)]


def _second_socket(host: str, port: int) -> socket.socket:
    """The socket for callers on this host, at an address that one handed in has."""
    try:
        return _bound_socket(host, port, hear_loopback, _share_port)
    except OSError as error:
        raise ConfigurationError(
            f"one UDP socket at port {port} of {host} was handed in, and a second one, to tell "
            f"callers on this host from others, cannot be made: {error.strerror}; hand in two: "
            "list the address twice, with ReusePort=yes"
        ) from error


def _adapt(skt: socket.socket, host: str) -> None:
    """Give a bound socket the options of those that are made here."""
    # With it, others could share the address, and take what is sent there.
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    if host in _WILDCARDS:
        skt.setsockopt(*_PACKET_INFO[skt.family], 1)
    _enlarge(skt)


def _confine(skt: socket.socket) -> None:
    """Have a bound socket hear the loopback interface alone.

    What it has heard before is dropped, unless it was confined then, too: it may be from elsewhere.
    """
    if hears_loopback(skt):
        return
    hear_loopback(skt)
    with suppress(BlockingIOError):
        while True:
            skt.recv(1, socket.MSG_DONTWAIT)


def _check_shared(*sockets: socket.socket) -> None:
    """Check that the kernel divides what comes in between these sockets.

    :raises ConfigurationError: it does not: one of them would get all.
    """
    if not all(s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for s in sockets):
        raise ConfigurationError(
            "two UDP sockets at one address were handed in that do not share it: set ReusePort=yes"
        )


def _bound_socket(host: str, port: int, *prepare: Callable[[socket.socket], None]) -> socket.socket:
    """A socket, of one address family alone, with a large buffer.

    :param prepare: is called with it before anything can arrive.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    skt = socket.socket(family, socket.SOCK_DGRAM)
    try:
        skt.setblocking(False)
        prepare_socket(skt, host)
        if host in _WILDCARDS:
            # On any other address it is clear which one is asked.
            skt.setsockopt(*_PACKET_INFO[family], 1)
        for each in prepare:
            each(skt)
        _enlarge(skt)
        skt.bind(_sockaddr(host, port))
    except OSError:
        skt.close()
        raise
    return skt


def _share_port(skt: socket.socket) -> None:
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


@implementer(IPacketInfoTransport)
class DatagramPort(Port):
    """One UDP socket of an address.

    Replies leave from the address that was asked, and go to the very address that asked, with its
    scope.

    :param bound: the socket.
    :param protocol: serves what no cached reply fits.
    :param host: the address that it is bound to, with its scope.
    """

    protocol: PortmapDatagramProtocol
    _preexistingSocket: Any
    _log = Logger()

    def __init__(
        self,
        bound: HeardSocket,
        protocol: PortmapDatagramProtocol,
        host: str,
        reactor: IReactorFDSet,
    ) -> None:
        super().__init__(0, protocol, host, MAX_REQUEST, reactor)
        self._preexistingSocket = bound.socket
        self._hears_loopback = bound.hears_loopback
        self._traffic = protocol.call_server.traffic(UDP6 if ":" in host else UDP)
        self._batch = Batch(bound.socket, host in _WILDCARDS, self._traffic)
        self._tables: dict[bytes, ReplyTable] = {}

    def doRead(self) -> None:
        try:
            self._batch.serve(self._tables, self._miss)
        except Exception:
            # There was no memory, say. The reactor would close the socket.
            self._log.failure("datagrams could not be served")

    def serve(self) -> bool:
        """Serve datagrams that have arrived, for one turn; were there any?"""
        if not self.connected or not _is_readable(self.socket):
            return False
        self.doRead()
        return True

    def _miss(self, message: bytes, name: bytes, info: bytes, key: bytes) -> None:
        """Serve a request that no cached reply fits; the parameters are those of ``Miss``."""
        address = _address(name)
        caller = self._caller(address, info)
        self._remember(key, caller)
        reply = self.protocol.serve(message, caller, partial(self._respond, address, info))
        self._respond(address, info, reply)

    def _caller(self, address: Any, info: bytes) -> Caller:
        reached = _reached(info) if info else self.interface.partition("%")[0]
        return self.protocol.call_server.caller(
            self.protocol.netid, address[0], address[1], reached, self._hears_loopback
        )

    def _remember(self, key: bytes, caller: Caller) -> None:
        if key not in self._tables:
            if len(self._tables) >= MAX_PEERS:
                self._tables.clear()
            self._tables[key] = self.protocol.call_server.table(caller)

    def _respond(self, address: Any, info: bytes, reply: bytes | None) -> None:
        """Send one reply, if there is one; callers over UDP ask again for one that is lost."""
        if not (self.connected and reply):
            return
        control = (_from(info),) if info else ()
        try:
            self._traffic.sent += self.socket.sendmsg((reply,), control, 0, address)
        except OSError as error:
            self.protocol.call_server.reply_lost(address, error)


def _is_readable(skt: socket.socket) -> bool:
    poll = select.poll()
    poll.register(skt, select.POLLIN)
    return bool(poll.poll(0))


def _sockaddr(host: str, port: int) -> Any:
    """The address of *port* on *host*, with its scope, as the socket module has it."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]


def _address(name: bytes) -> Any:
    """The address in a ``sockaddr``, as the socket module has it."""
    if len(name) == _SOCKADDR_IN.size:
        port, host = _SOCKADDR_IN.unpack(name)
        return socket.inet_ntop(socket.AF_INET, host), port
    port, flow, host, scope = _SOCKADDR_IN6.unpack(name)
    return socket.inet_ntop(socket.AF_INET6, host), port, flow, int.from_bytes(scope, byteorder)


def _reached(info: bytes) -> str:
    """The address of this host in an ``in_pktinfo`` or ``in6_pktinfo``."""
    if len(info) == _PKTINFO.size:
        return socket.inet_ntop(socket.AF_INET, _PKTINFO.unpack(info)[1])
    return socket.inet_ntop(socket.AF_INET6, _PKTINFO6.unpack(info)[0])


def _from(info: bytes) -> tuple[int, int, bytes]:
    """The control message that makes a reply leave from the address that was asked.

    No datagram can leave from a multicast group: the kernel chooses the address then.
    """
    if len(info) == _PKTINFO.size:
        _, local, _ = _PKTINFO.unpack(info)
        return socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, local, bytes(4))
    local, interface = _PKTINFO6.unpack(info)
    if local[0] == _MULTICAST:
        return socket.IPPROTO_IPV6, _IPV6_PKTINFO, _PKTINFO6.pack(bytes(16), interface)
    return socket.IPPROTO_IPV6, _IPV6_PKTINFO, _PKTINFO6.pack(local, 0)


def _enlarge(skt: socket.socket) -> None:
    if skt.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= RECEIVE_BUFFER:
        # Without the right to, it could only be made smaller.
        return
    try:
        skt.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
