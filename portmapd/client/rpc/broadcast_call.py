"""CALLIT by broadcast, without its sockets: what is sent where, which replies count. Internal."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from attrs import frozen

from portmapd.client.rpc.procedure import CALLIT, CALLIT_ADDRESS
from portmapd.client.rpc.wire import (
    MAX_DATAGRAM_REPLY,
    MAX_PORT,
    check_size,
    host_of,
    new_xid,
    xid_in,
)
from portmapd.errors import InvalidMapping, PortmapdError
from portmapd.oncrpc.message import XID, Credential
from portmapd.oncrpc.netid import UDP, UDP6, Netid, parse_address
from portmapd.oncrpc.program import RemoteCall
from portmapd.oncrpc.xdr import uint

#: The multicast group of the port mappers of IPv6 (RFC 1833, 2.2.1).
GROUP = "ff02::202"
#: The most replies by default.
LIMIT = 1_000
#: The call is sent again after so many seconds, then after twice as many, and so on.
FIRST_INTERVAL = 1.0
#: How many datagrams are read before other sockets have their turn.
BATCH = 64

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


def open_socket(netid: Netid) -> socket.socket:
    """A UDP socket that may send to broadcast addresses, and does not block."""
    family = socket.AF_INET if netid is UDP else socket.AF_INET6
    skt = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return skt


def waiting_datagrams(skt: socket.socket) -> Iterator[tuple[bytes, str]]:
    """The datagrams that have come, and the host that each is from; not too many at once."""
    for _ in range(BATCH):
        try:
            data, address = skt.recvfrom(MAX_DATAGRAM_REPLY)
        except OSError:
            return
        yield data, host_of(address)


class BroadcastCall:
    """One call to the port mappers of all networks.

    :param port: the port of the port mappers.
    :param call: the call that each of them is to make.
    :param credential: who makes it.
    :param each: is called with each reply as it comes; what it returns is true if no more are
        wanted. None: nobody looks at them before the end.
    :param limit: after how many replies it ends.
    :raises ValueError: a number in *call* does not fit 32 bits, or *limit* is not positive.
    """

    def __init__(
        self,
        port: int,
        call: RemoteCall,
        credential: Credential,
        each: Callable[[BroadcastReply], object] | None,
        limit: int,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit {limit} is not a number of replies above 0")
        self._port = port
        self._each = each
        self._limit = limit
        xid = new_xid()
        #: By its xid, how the results of each call are read.
        self._readers = {xid: _read_address, xid ^ 1: _read_port}
        # Version 3 is what rpcbind prefers, but old port mappers know only version 2.
        self._v3 = uint(xid) + CALLIT_ADDRESS.tail(call, credential)
        self._v2 = uint(xid ^ 1) + CALLIT.tail(call, credential)
        check_size(self._v2[XID:])
        self._replies: dict[str, BroadcastReply] = {}

    @property
    def xids(self) -> tuple[int, ...]:
        """The xids of the calls: that of version 3, then that of version 2."""
        return tuple(self._readers)

    @property
    def replies(self) -> tuple[BroadcastReply, ...]:
        """The replies that have come."""
        return tuple(self._replies.values())

    def send(self, send: Callable[[Netid, bytes, Any], object]) -> None:
        """Send the call everywhere.

        :param send: sends a datagram of a netid to an address; it raises ``OSError`` if it cannot.
        :raises OSError: it cannot be sent anywhere.
        """
        error = OSError(errno.ENETUNREACH, "no interface has a broadcast address")
        sent = 0
        for netid, message, address in self._datagrams():
            try:
                send(netid, message, address)
                sent += 1
            except OSError as fault:
                error = fault
        if not sent:
            raise error

    def _datagrams(self) -> Iterator[tuple[Netid, bytes, Any]]:
        """Each datagram to send, and where to; interfaces may come and go in between."""
        hosts, interfaces = broadcast_addresses()
        for host in hosts:
            yield UDP, self._v3, (host, self._port)
            yield UDP, self._v2, (host, self._port)
        for interface in interfaces:
            yield UDP6, self._v3, (GROUP, self._port, 0, interface)

    def received(self, netid: Netid, message: bytes, host: str) -> bool:
        """Take a datagram in; what *each* raises is raised.

        :param netid: that of the socket.
        :param host: where it came from.
        :return: whether the broadcast ends.
        """
        xid = xid_in(message)
        if xid not in self._readers or host in self._replies:
            return False
        try:
            port, results = self._readers[xid](netid, message)
        except PortmapdError:
            return False
        reply = self._replies[host] = BroadcastReply(host, port, results)
        enough = self._each is not None and self._each(reply)
        return bool(enough) or len(self._replies) >= self._limit


def _read_address(netid: Netid, message: bytes) -> tuple[int, bytes]:
    result = CALLIT_ADDRESS.results(message)
    return parse_address(netid, result.address).port, result.results


def _read_port(netid: Netid, message: bytes) -> tuple[int, bytes]:
    result = CALLIT.results(message)
    if not 0 < result.port <= MAX_PORT:
        raise InvalidMapping(f"port {result.port}")
    return result.port, result.results
