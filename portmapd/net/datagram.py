"""Program 100000 over UDP."""

import socket
from functools import partial
from struct import Struct
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port
from twisted.logger import Logger

from portmapd.net.answering import Answering
from portmapd.net.answers import Shelf
from portmapd.oncrpc.address import UDP, UDP6, Netid
from portmapd.portmapper.caller import Caller

#: The largest request that is taken, in bytes: any datagram.
MAX_REQUEST = 65_535
#: How many datagrams are served before other sockets have their turn.
BATCH = 64
#: Room for requests that arrive while the process is busy, in bytes; the kernel's default loses
#: some in any stall.
RECEIVE_BUFFER = 4 << 20
#: The most hosts whose shelf is remembered by a socket.
MAX_PEERS = 4_096

#: Linux's own numbers, which the socket module does not have.
_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
_PKTINFO = Struct("=i4s4s")
_PKTINFO6 = Struct("=16si")

#: Room for one control message with an ``in6_pktinfo``.
_CONTROL = socket.CMSG_SPACE(_PKTINFO6.size)

#: Where rpcbind's IPv6 callers broadcast to: the link's RPC group.
RPC_GROUP = socket.inet_pton(socket.AF_INET6, "ff02::202")


class PortmapDatagram(DatagramProtocol):
    """Answers datagrams over any transport of Twisted's, for applications that have one.

    Its callers must have reached *reached*: a socket on a wildcard address needs
    :class:`DatagramPort`, which learns that from each datagram.

    :param answering: serves the messages.
    :param reached: the address that the transport is bound to.
    """

    def __init__(self, answering: Answering, reached: str) -> None:
        self.answering = answering
        self.reached = reached
        self.netid = UDP6 if ":" in reached else UDP

    def caller(self, address: Any, reached: str) -> Caller:
        """The caller at *address*, who asked *reached*."""
        host, port = address[:2]
        audience = self.answering.audience(host)
        return Caller(self.netid, audience, host, port, reached)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        caller = self.caller(addr, self.reached)
        known = self.answering.shelf(caller.netid, caller.audience, caller.reached)
        answer = known.get(datagram[4:])
        if answer is not None:
            answer.hits += 1
            reply: bytes | None = datagram[:4] + answer.reply
        else:
            reply = self.answering.answer(datagram, caller, partial(self._respond, addr))
        if reply is not None:
            self._respond(addr, reply)

    def _respond(self, address: Any, reply: bytes) -> None:
        if self.transport is not None:
            self.transport.write(reply, address)


class DatagramPort(Port):  # type: ignore[misc] # Twisted's udp module is not annotated
    """A UDP socket that serves program 100000, as fast as the interpreter allows.

    Replies leave from the address that was asked, and to the very address that asked, with its
    scope.
    """

    protocol: PortmapDatagram
    _log = Logger()

    def __init__(self, port: int, protocol: PortmapDatagram, reactor: Any) -> None:
        super().__init__(port, protocol, protocol.reached, MAX_REQUEST, reactor)
        self._shelves: dict[Any, Shelf] = {}
        wildcard = protocol.reached == protocol.netid.wildcard
        self.doRead = self._serve_wildcard if wildcard else self._serve

    def createInternetSocket(self) -> socket.socket:
        skt: socket.socket = super().createInternetSocket()
        if self.addressFamily == socket.AF_INET6:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            skt.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            skt.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        _enlarge(skt)
        return skt

    def _serve(self) -> None:
        """Serve a batch from a socket that one address reaches."""
        receive, send, shelves = self.socket.recvfrom, self.socket.sendto, self._shelves
        for _ in range(BATCH):
            try:
                message, address = receive(MAX_REQUEST)
                try:
                    answer = shelves[address[0]][message[4:]]
                except KeyError:
                    self._miss(message, address, self.interface, address[0], b"")
                else:
                    answer.hits += 1
                    send(message[:4] + answer.reply, address)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)

    def _serve_wildcard(self) -> None:
        """Serve a batch from a socket that several addresses reach."""
        receive, shelves = self.socket.recvmsg, self._shelves
        for _ in range(BATCH):
            try:
                message, control, _, address = receive(MAX_REQUEST, _CONTROL)
                info = control[0][2] if control else b""
                key = address[0], info
                try:
                    answer = shelves[key][message[4:]]
                except KeyError:
                    self._miss(message, address, _reached(info), key, info)
                else:
                    answer.hits += 1
                    self._send(message[:4] + answer.reply, address, info)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)

    def _miss(self, message: bytes, address: Any, reached: str, key: Any, info: bytes) -> None:
        caller = self.protocol.caller(address, reached)
        self._remember(key, caller)
        respond = partial(self._respond, address, info)
        reply = self.protocol.answering.answer(message, caller, respond)
        if reply is not None:
            self._send(reply, address, info)

    def _remember(self, key: Any, caller: Caller) -> None:
        if key not in self._shelves:
            if len(self._shelves) >= MAX_PEERS:
                self._shelves.clear()
            self._shelves[key] = self.protocol.answering.shelf(
                caller.netid, caller.audience, caller.reached
            )

    def _respond(self, address: Any, info: bytes, reply: bytes) -> None:
        """Send a reply that took its time."""
        if not self.connected:
            return
        try:
            self._send(reply, address, info)
        except OSError as error:
            self._failed(error)

    def _send(self, reply: bytes, address: Any, info: bytes) -> None:
        if info:
            self.socket.sendmsg((reply,), (_from(info),), 0, address)
        else:
            self.socket.sendto(reply, address)

    def _failed(self, error: OSError) -> None:
        """A peer that cannot be reached, or a full buffer: callers over UDP ask again."""
        self._log.debug("a datagram was lost: {error}", error=error)


def _reached(info: bytes) -> str:
    """The address of ours that a datagram with that ``in_pktinfo`` or ``in6_pktinfo`` asked."""
    if len(info) == _PKTINFO.size:
        return socket.inet_ntop(socket.AF_INET, _PKTINFO.unpack(info)[1])
    return socket.inet_ntop(socket.AF_INET6, _PKTINFO6.unpack(info)[0])


def _from(info: bytes) -> tuple[int, int, bytes]:
    """The control message that has a reply leave from the address that was asked."""
    if len(info) == _PKTINFO.size:
        _, local, _ = _PKTINFO.unpack(info)
        return socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, local, bytes(4))
    local, interface = _PKTINFO6.unpack(info)
    if local[0] == 0xFF:
        local = bytes(16)
    return socket.IPPROTO_IPV6, _IPV6_PKTINFO, _PKTINFO6.pack(local, interface)


def _enlarge(skt: socket.socket) -> None:
    try:
        skt.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def netid_of(interface: str) -> Netid:
    """The UDP netid for sockets bound to *interface*, an IPv4 or IPv6 address."""
    return UDP6 if ":" in interface else UDP
