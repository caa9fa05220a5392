"""Who is at the other end of a UNIX socket."""

import socket
from struct import Struct
from typing import NamedTuple

_UCRED = Struct("=iII")


class Credentials(NamedTuple):
    """Who connected a UNIX socket; a later setuid or fork changes nothing of it."""

    pid: int
    uid: int
    gid: int


def peer_credentials(skt: socket.socket) -> Credentials:
    """The credentials of the process that connected *skt*, as the kernel tells them."""
    data = skt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(data))
