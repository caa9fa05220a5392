"""The sockets of this host, queried from the kernel over netlink (``sock_diag(7)``)."""

import socket
from collections.abc import Iterator
from struct import Struct, unpack_from

#: A local address: the port in network byte order, then the address.
Local = bytes

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3

_HEADER = Struct("=IHHII")
#: ``struct inet_diag_req_v2``: what to list, then the identity of a socket, here all zero.
_REQUEST = Struct("=BBBxI48x")
#: Where the local port, and the local address, are in a reply.
_PORT = slice(_HEADER.size + 4, _HEADER.size + 6)
_ADDRESS = _HEADER.size + 8
#: How many bytes are received at a time.
_BUFFER = 1 << 18

#: Masks of states: any, for protocols without states; and that of TCP sockets that listen.
ANY_STATE = 0xFFFF_FFFF
LISTEN = 1 << 10


def local_addresses(family: int, protocol: int, states: int) -> list[Local]:
    """The local addresses of the sockets in this network namespace.

    :param family: AF_INET or AF_INET6.
    :param protocol: IPPROTO_UDP or IPPROTO_TCP.
    :param states: only sockets in one of these states; a mask.
    :raises OSError: the kernel does not tell.
    """
    size = 4 if family == socket.AF_INET else 16
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        request = _REQUEST.pack(family, protocol, 0, states)
        head = _HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0
        netlink.send(_HEADER.pack(*head) + request)
        return [m[_PORT] + m[_ADDRESS : _ADDRESS + size] for m in _replies(netlink)]


def _replies(netlink: socket.socket) -> Iterator[bytes]:
    while True:
        data = netlink.recv(_BUFFER)
        at = 0
        while at < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (code,) = unpack_from("=i", data, at + _HEADER.size)
                raise OSError(-code, "the kernel does not tell of its sockets")
            yield data[at : at + length]
            at += (length + 3) & ~3
