"""Which user of this host is at the other end of a TCP connection (``sock_diag(7)``)."""

import socket
from ipaddress import ip_address
from struct import Struct, unpack_from

from attrs import frozen

from portmapd.server.netlink import HEADER, ask
from portmapd.server.sock_diag import ANY_STATE, NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY

#: ``struct inet_diag_req_v2``: any state, and the ports and addresses of one socket.
_QUERY = Struct("=BBxxI2s2s16s16sI8s")
_NO_COOKIE = b"\xff" * 8
#: Where the socket's user and inode are in a reply. An inode of 0: no process has it open.
_UID = HEADER.size + 64


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
    query = _QUERY.pack(family, socket.IPPROTO_TCP, ANY_STATE, *ports, *hosts, 0, _NO_COOKIE)
    try:
        reply = ask(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, query)
    except OSError:
        return None
    uid, inode = unpack_from("=II", reply, _UID)
    return uid if inode else None
