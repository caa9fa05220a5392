"""Which user of this host is at the other end of a TCP connection (``sock_diag(7)``)."""

import socket
from ipaddress import ip_address
from struct import Struct, unpack_from

from attrs import frozen

_NETLINK_SOCK_DIAG = 4
_HEADER = Struct("=IHHII")
_SOCK_DIAG_BY_FAMILY, _REQUEST, _ERROR = 20, 1, 2
#: ``struct inet_diag_req_v2``: any state, and the ports and addresses of one socket.
_QUERY = Struct("=BBxxI2s2s16s16sI8s")
_ANY_STATE = 0xFFFF_FFFF
_NO_COOKIE = b"\xff" * 8
#: Where the socket's user and inode are in a reply. An inode of 0: no process has it open.
_UID = _HEADER.size + 64
_BUFFER = 8_192


@frozen
class Endpoint:
    """One end of a TCP connection.

    :param host: an IPv4 or IPv6 address, without its scope.
    """

    host: str
    port: int


def peer_uid(peer: Endpoint, ours: Endpoint) -> int | None:
    """The user who made the socket of *peer*, which is on this host.

    :param ours: the other end.
    :return: None if no process has the socket open any more, or the kernel does not tell.
    """
    family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
    ports = (end.port.to_bytes(2, "big") for end in (peer, ours))
    hosts = (ip_address(end.host).packed for end in (peer, ours))
    query = _QUERY.pack(family, socket.IPPROTO_TCP, _ANY_STATE, *ports, *hosts, 0, _NO_COOKIE)
    head = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.send(head + query)
            reply = netlink.recv(_BUFFER)
    except OSError:
        return None
    if _HEADER.unpack_from(reply)[1] == _ERROR:
        return None
    uid, inode = unpack_from("=II", reply, _UID)
    return uid if inode else None
