"""CALLIT by broadcast: the same call to every port mapper on the networks of this host."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from attrs import frozen
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from portmapd.client.rpc.calls import new_xid, xid_in
from portmapd.client.rpc.procedure import CALLIT, CALLIT_ADDRESS
from portmapd.errors import DaemonUnreachable, InvalidMapping, PortmapdError
from portmapd.oncrpc.message import Credential
from portmapd.oncrpc.netid import UDP, UDP6, Netid, parse_address
from portmapd.oncrpc.program import RemoteCall
from portmapd.oncrpc.xdr import uint

#: The multicast group of the port mappers of IPv6 (RFC 1833, 2.2.1).
GROUP = "ff02::202"
#: The most replies by default.
LIMIT = 1_000
#: The call is sent again after so many seconds, then after twice as many, and so on.
FIRST_INTERVAL = 1.0
#: The largest datagram, in bytes, and how many are read before other sockets have their turn.
MAX_REPLY = 65_535
BATCH = 64
MAX_PORT = 65_535

# Messages and structures of <linux/rtnetlink.h>.
_NLMSG_DONE, _NLMSG_ERROR = 3, 2
_RTM_GETADDR = 22
_NLM_F_DUMP_REQUEST = 0x301
_IFA_ADDRESS, _IFA_BROADCAST = 1, 4
_NLMSGHDR = Struct("=IHHII")
_IFADDRMSG = Struct("=BBBBI")
_RTATTR = Struct("=HH")
_NETLINK_SIZE = 1 << 16


@frozen
class BroadcastReply:
    """What one port mapper replied to a broadcast.

    :param host: the address that it replied from; a link-local one with its interface.
    :param port: the UDP port of the program that was called.
    :param results: the program's results, encoded.
    """

    host: str
    port: int
    results: bytes


def broadcast_addresses() -> tuple[list[str], list[int]]:
    """Where a broadcast goes.

    :return: the IPv4 broadcast addresses, and the numbers of the interfaces with a link-local IPv6
        address.
    :raises OSError: the kernel does not tell.
    """
    hosts: dict[str, None] = {}
    interfaces: dict[int, None] = {}
    for family, interface, attributes in _interface_addresses():
        if family == socket.AF_INET and _IFA_BROADCAST in attributes:
            hosts[socket.inet_ntop(family, attributes[_IFA_BROADCAST])] = None
        elif family == socket.AF_INET6 and attributes[_IFA_ADDRESS].startswith(b"\xfe\x80"):
            interfaces[interface] = None
    return list(hosts), list(interfaces)


def _interface_addresses() -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """The family, the interface and the attributes of each address of this host."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as skt:
        size = _NLMSGHDR.size + _IFADDRMSG.size
        header = _NLMSGHDR.pack(size, _RTM_GETADDR, _NLM_F_DUMP_REQUEST, 1, 0)
        skt.send(header + bytes(_IFADDRMSG.size))
        while True:
            data = skt.recv(_NETLINK_SIZE)
            while data:
                length, kind, *_ = _NLMSGHDR.unpack_from(data)
                message, data = data[_NLMSGHDR.size : length], data[length + 3 & ~3 :]
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return
                family, _, _, _, interface = _IFADDRMSG.unpack_from(message)
                yield family, interface, dict(_attributes(message[_IFADDRMSG.size :]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _RTATTR.size:
        length, kind = _RTATTR.unpack_from(data)
        yield kind, data[_RTATTR.size : length]
        data = data[max(length, _RTATTR.size) + 3 & ~3 :]


class _BroadcastSocket(FileDescriptor):
    """A UDP socket that may send to broadcast addresses, and receives from everyone.

    :param received: is called with each datagram and the address that it came from.
    """

    def __init__(
        self, reactor: Any, netid: Netid, received: Callable[[Netid, bytes, str], object]
    ) -> None:
        super().__init__(reactor)
        family = socket.AF_INET if netid is UDP else socket.AF_INET6
        self._netid = netid
        self._received = received
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.startReading()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: bytes, address: Any) -> None:
        """Send a datagram.

        :raises OSError: it cannot be sent there.
        """
        self._socket.sendto(message, address)

    def doRead(self) -> None:
        for _ in range(BATCH):
            try:
                data, address = self._socket.recvfrom(MAX_REPLY)
            except OSError:
                return
            self._received(self._netid, data, _host(address))
            if self._socket.fileno() < 0:
                return

    def close(self) -> None:
        """Close the socket."""
        self.stopReading()
        self._socket.close()


def _host(address: Any) -> str:
    """The host of a socket's address, with its interface if it is link-local."""
    host, scope = str(address[0]), address[3] if len(address) > 2 else 0
    if not scope:
        return host
    try:
        return f"{host}%{socket.if_indextoname(scope)}"
    except OSError:
        # The interface went away.
        return f"{host}%{scope}"


class Broadcast:
    """One broadcast, from its first datagram to its end.

    :param reactor: measures time; it provides IReactorFDSet, too.
    :param port: the port of the port mappers.
    :param call: the call that each of them is to make.
    :param credential: who makes it.
    :param each: is called with each reply as it comes; what it returns is true if no more are
        wanted. None: nobody looks at them before the end.
    :param timeout: when it ends, in seconds.
    :param limit: after how many replies it ends.
    :ivar done: fires with all replies. Cancelling it ends the broadcast.
    :raises ValueError: a number in *call* does not fit 32 bits.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        port: int,
        call: RemoteCall,
        credential: Credential,
        each: Callable[[BroadcastReply], object] | None,
        timeout: float,
        limit: int,
    ) -> None:
        self._reactor = reactor
        self._port = port
        self._each = each
        self._limit = limit
        xid = new_xid()
        #: By its xid, how the results of each call are read.
        self._readers = {xid: _read_address, xid ^ 1: _read_port}
        # Version 3 is what rpcbind prefers, but old port mappers know only version 2.
        self._v3 = uint(xid) + CALLIT_ADDRESS.tail(call, credential)
        self._v2 = uint(xid ^ 1) + CALLIT.tail(call, credential)
        self._replies: dict[str, BroadcastReply] = {}
        self._sockets: dict[Netid, _BroadcastSocket] = {}
        self._timers: dict[str, IDelayedCall] = {}
        self._timeout = timeout
        self.done: Deferred[tuple[BroadcastReply, ...]] = Deferred(lambda _: self._close())

    @property
    def xids(self) -> tuple[int, ...]:
        """The xids of the calls: that of version 3, then that of version 2."""
        return tuple(self._readers)

    def start(self) -> None:
        """Send the call for the first time.

        :raises DaemonUnreachable: it cannot be sent anywhere.
        """
        try:
            self._send(FIRST_INTERVAL)
        except OSError as error:
            self._close()
            raise DaemonUnreachable(f"no broadcast can be sent: {error.strerror}") from error
        self._timers["end"] = self._reactor.callLater(self._timeout, self._finish)

    def _send(self, interval: float) -> None:
        error = OSError(errno.ENETUNREACH, "no interface has a broadcast address")
        sent = 0
        for netid, message, address in self._datagrams():
            try:
                self._opened(netid).send(message, address)
                sent += 1
            except OSError as fault:
                error = fault
        if not sent:
            raise error
        self._timers["again"] = self._reactor.callLater(interval, self._send_again, 2 * interval)

    def _send_again(self, interval: float) -> None:
        try:
            self._send(interval)
        except OSError:
            # The interfaces went away. Replies may still come.
            return

    def _datagrams(self) -> Iterator[tuple[Netid, bytes, Any]]:
        """Each datagram to send, and where to; interfaces may come and go in between."""
        hosts, interfaces = broadcast_addresses()
        for host in hosts:
            yield UDP, self._v3, (host, self._port)
            yield UDP, self._v2, (host, self._port)
        for interface in interfaces:
            yield UDP6, self._v3, (GROUP, self._port, 0, interface)

    def _opened(self, netid: Netid) -> _BroadcastSocket:
        if netid not in self._sockets:
            self._sockets[netid] = _BroadcastSocket(self._reactor, netid, self.received)
        return self._sockets[netid]

    def received(self, netid: Netid, message: bytes, host: str) -> None:
        """Take a datagram in.

        :param netid: that of the socket.
        :param host: where it came from.
        """
        xid = xid_in(message)
        if xid not in self._readers or host in self._replies or self.done.called:
            return
        try:
            port, results = self._readers[xid](netid, message)
        except PortmapdError:
            return
        self._take(BroadcastReply(host, port, results))

    def _take(self, reply: BroadcastReply) -> None:
        self._replies[reply.host] = reply
        try:
            enough = self._each is not None and self._each(reply)
        except Exception as error:
            self.fail(error)
            return
        if enough or len(self._replies) >= self._limit:
            self._finish()

    def fail(self, error: Exception) -> None:
        """End with *error*, unless it has ended."""
        self._close()
        if not self.done.called:
            self.done.errback(error)

    def _finish(self) -> None:
        self._close()
        self.done.callback(tuple(self._replies.values()))

    def _close(self) -> None:
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()


def _read_address(netid: Netid, message: bytes) -> tuple[int, bytes]:
    result = CALLIT_ADDRESS.results(message)
    return parse_address(netid, result.address).port, result.results


def _read_port(netid: Netid, message: bytes) -> tuple[int, bytes]:
    result = CALLIT.results(message)
    if not 0 < result.port <= MAX_PORT:
        raise InvalidMapping(f"port {result.port}")
    return result.port, result.results
