"""The UDP socket of program 100000, as fast as the interpreter allows."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from struct import Struct, pack
from sys import byteorder
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.udp import Port
from zope.interface import implementer

from portmapd.oncrpc.netid import UDP6
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.reply_cache import ReplyTable
from portmapd.server.datagram import IPacketInfoTransport, PortmapDatagramProtocol
from portmapd.server.fast.recvmmsg import Batch
from portmapd.server.loopback import LOOPBACK_INDEX, confine

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
_PKTINFO = Struct("=i4s4s")
_PKTINFO6 = Struct("=16si")

_SOCKADDR_IN = Struct("!2xH4s8x")
_SOCKADDR_IN6 = Struct("!2xHI16s4s")
_MULTICAST = 0xFF

#: Where rpcbind's IPv6 callers broadcast to: the link's RPC group.
RPC_GROUP = socket.inet_pton(socket.AF_INET6, "ff02::202")


@implementer(IPacketInfoTransport)
class DatagramPort(Port):
    """A UDP socket that serves program 100000.

    Replies leave from the address that was asked, and go to the very address that asked, with its
    scope.

    :param host: the address to bind, with its scope; a wildcard serves every address.
    :param protocol: serves what no cached reply fits.
    """

    protocol: PortmapDatagramProtocol
    _preexistingSocket: Any

    def __init__(
        self, port: int, protocol: PortmapDatagramProtocol, host: str, reactor: IReactorFDSet
    ) -> None:
        super().__init__(port, protocol, host, MAX_REQUEST, reactor)
        #: Does the socket give packet information? One that hears loopback alone needs none.
        self._informed = True
        self._tables: dict[bytes, ReplyTable] = {}

    def createInternetSocket(self) -> socket.socket:
        """The socket, of one address family alone, with packet information and a large buffer."""
        skt: socket.socket = super().createInternetSocket()
        self._informed = not confine(skt, self.interface)
        if self.addressFamily == socket.AF_INET6:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            skt.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, self._informed)
        else:
            skt.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, self._informed)
        _enlarge(skt)
        return skt

    def startListening(self) -> None:
        # The base class would lose the interface's scope, and leave open what it cannot bind.
        self._preexistingSocket = self._bound()
        self._batch = Batch(self._preexistingSocket, self._informed)
        super().startListening()
        if self.interface == UDP6.wildcard:
            _join(self.socket)

    def _bound(self) -> socket.socket:
        try:
            skt = self.createInternetSocket()
            try:
                skt.bind(_sockaddr(self.interface, self.port))
            except OSError:
                skt.close()
                raise
        except OSError as error:
            raise CannotListenError(self.interface, self.port, error) from error
        return skt

    def doRead(self) -> None:
        self._batch.serve(self._tables, self._miss)

    def _miss(self, message: bytes, name: bytes, info: bytes, key: bytes) -> None:
        """Serve a request that no cached reply fits; the parameters are those of ``Miss``."""
        address = _address(name)
        caller = self._caller(address, info)
        self._remember(key, caller)
        reply = self.protocol.serve(message, caller, partial(self._respond, address, info))
        if reply is not None:
            self._respond(address, info, reply)

    def _caller(self, address: Any, info: bytes) -> Caller:
        reached = _reached(info) if info else self.interface.partition("%")[0]
        return self.protocol.call_server.caller(
            self.protocol.netid, address[0], address[1], reached, _is_from_outside(info)
        )

    def _remember(self, key: bytes, caller: Caller) -> None:
        if key not in self._tables:
            if len(self._tables) >= MAX_PEERS:
                self._tables.clear()
            self._tables[key] = self.protocol.call_server.table(caller)

    def _respond(self, address: Any, info: bytes, reply: bytes) -> None:
        """Send one reply; callers over UDP ask again for one that is lost."""
        if not self.connected:
            return
        control = (_from(info),) if info else ()
        try:
            self.socket.sendmsg((reply,), control, 0, address)
        except OSError as error:
            self.protocol.call_server.reply_lost(address, error)


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


def _is_from_outside(info: bytes) -> bool:
    """Did the datagram come in over another interface than loopback?

    The kernel itself drops an IPv6 datagram that falsely claims to come from ::1. A socket without
    packet information hears loopback alone.
    """
    return len(info) == _PKTINFO.size and _PKTINFO.unpack(info)[0] != LOOPBACK_INDEX


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
    try:
        skt.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def _join(skt: socket.socket) -> None:
    """Receive the broadcasts of IPv6 callers on every interface that can."""
    for index, _ in socket.if_nameindex():
        with suppress(OSError):
            skt.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, RPC_GROUP + pack("=I", index)
            )
