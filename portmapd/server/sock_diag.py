"""The sockets of this host, queried from the kernel over netlink (``sock_diag(7)``).

The kernel lists a table a message at a time, and so do the functions here: between two messages of
a long table, others may have their turn.
"""

import socket
from collections.abc import Iterator
from struct import Struct, unpack_from

from portmapd.server.netlink import BUFFER, DONE, DUMP, ERROR, HEADER, ask, error_of, requested

#: A local address: the port in network byte order, then the address; the path of a UNIX socket.
Local = bytes
#: A bound socket: its local address, and its user; None if the kernel does not tell whose it is.
BoundSocket = tuple[Local, int | None]

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20

#: The size of the end of a table: a header, and a status.
_END = 20
#: ``struct inet_diag_req_v2``: what to list, then the identity of a socket; only its local port is
#: used here, and 0 means any.
_INET_REQUEST = Struct("=BBBxI2s46x")
#: The same for one socket: both ports and both addresses, no interface, and any cookie.
_ONE_REQUEST = Struct("=BB6x2s2s16s16s4xii")
#: Where the local port, the local address and the user are in a reply (``struct inet_diag_msg``).
_PORT = slice(HEADER.size + 4, HEADER.size + 6)
_ADDRESS = HEADER.size + 8
_UID = HEADER.size + 64
#: ``struct unix_diag_req``: the family, the states, and what to tell; no inode, and no cookie.
_UNIX_REQUEST = Struct("=BBxxIIIii")
#: A ``struct unix_diag_msg`` has 16 bytes; attributes follow.
_UNIX_ATTRIBUTES = HEADER.size + 16
_ATTRIBUTE = Struct("=HH")
#: What to tell of a UNIX socket, and the attributes that do (the user since Linux 5.3).
_SHOW_NAME, _SHOW_UID = 0x01, 0x40
_NAME_ATTRIBUTE, _UID_ATTRIBUTE = 0, 7

#: Masks of states: any, for protocols without states; and that of sockets that listen.
ANY_STATE = 0xFFFF_FFFF
LISTEN = 1 << 10


def inet_sockets(
    family: int, protocol: int, states: int, port: bytes = bytes(2)
) -> Iterator[list[BoundSocket]]:
    """The bound sockets in this network namespace, in batches.

    :param family: AF_INET or AF_INET6.
    :param protocol: IPPROTO_UDP or IPPROTO_TCP.
    :param states: only sockets in one of these states; a mask.
    :param port: only sockets at this local port, in network byte order; zero: at any.
    :raises OSError: the kernel does not tell.
    """
    address = slice(_ADDRESS, _ADDRESS + (4 if family == socket.AF_INET else 16))
    request = _INET_REQUEST.pack(family, protocol, 0, states, port)
    for replies in _dump(request):
        yield [(r[_PORT] + r[address], unpack_from("=I", r, _UID)[0]) for r in replies]


def inet_user(family: int, protocol: int, host: bytes, port: bytes) -> int | None:
    """The user of the socket that receives what strangers send to an address.

    It takes the same time however many sockets there are.

    :param family: AF_INET or AF_INET6.
    :param protocol: IPPROTO_UDP or IPPROTO_TCP.
    :param host: the address; the wildcard address finds sockets that are bound to it alone.
    :param port: in network byte order.
    :return: None if there is none, or if it is bound to one interface, or connected.
    :raises OSError: the kernel does not tell.
    """
    here, nowhere = (port, host), (bytes(2), b"")
    # A question about UDP has the two ends in the places of each other: udp_dump_one() says so.
    first, second = (nowhere, here) if protocol == socket.IPPROTO_UDP else (here, nowhere)
    ports, hosts = zip(first, second, strict=True)
    try:
        reply = ask(
            NETLINK_SOCK_DIAG,
            SOCK_DIAG_BY_FAMILY,
            _ONE_REQUEST.pack(family, protocol, *ports, *hosts, -1, -1),
        )
    except FileNotFoundError:
        return None
    user: int = unpack_from("=I", reply, _UID)[0]
    return user


def unix_sockets(path: Local = b"") -> Iterator[list[BoundSocket]]:
    """The UNIX sockets that listen in this network namespace, in batches.

    :param path: only sockets whose path contains this one.
    :raises OSError: the kernel does not tell.
    """
    show = _SHOW_NAME | _SHOW_UID
    request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, LISTEN, 0, show, -1, -1)
    for replies in _dump(request, path):
        yield [_unix_socket(reply) for reply in replies]


def _unix_socket(reply: bytes) -> BoundSocket:
    name, uid, at = b"", None, _UNIX_ATTRIBUTES
    while at < len(reply):
        length, kind = _ATTRIBUTE.unpack_from(reply, at)
        value = reply[at + _ATTRIBUTE.size : at + length]
        if kind == _NAME_ATTRIBUTE:
            name = value.removesuffix(b"\0")
        elif kind == _UID_ATTRIBUTE:
            (uid,) = unpack_from("=I", value)
        at += (length + 3) & ~3
    return name, uid


def _dump(request: bytes, containing: bytes = b"") -> Iterator[list[bytes]]:
    """The replies to a request for a table, in batches.

    :param containing: a batch without these bytes is left out.
    """
    with requested(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, request, DUMP) as netlink:
        is_done = False
        while not is_done:
            data = netlink.recv(BUFFER)
            if _is_end(data) or not containing or containing in data:
                replies, is_done = _split(data)
                yield replies
            else:
                yield []


def _is_end(data: bytes) -> bool:
    """Whether the table ends in a message, or cannot be told."""
    _, kind, _, _, _ = HEADER.unpack_from(data)
    length, last, _, _, _ = HEADER.unpack_from(data, len(data) - _END)
    return kind in (DONE, ERROR) or (length, last) == (_END, DONE)


def _split(data: bytes) -> tuple[list[bytes], bool]:
    """The replies in a message, and whether the table ends there."""
    replies: list[bytes] = []
    at = 0
    while at < len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, at)
        if kind == DONE:
            return replies, True
        if kind == ERROR:
            raise error_of(data, at)
        replies.append(data[at : at + length])
        at += (length + 3) & ~3
    return replies, False
