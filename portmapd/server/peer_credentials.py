"""The credentials of the process at the other end of a UNIX stream."""

import socket
from struct import Struct
from typing import NamedTuple

from twisted.internet.interfaces import ISystemHandle

from portmapd.errors import ConfigurationError

_UCRED = Struct("=iII")
#: What the kernel gives for a socket that is not a UNIX socket: -1, which is no user's number.
_NO_UID = 0xFFFF_FFFF
_NO_UNIX_SOCKET = (
    "only a UNIX socket tells which user and process connected: listen on a UNIXServerEndpoint, "
    "with no TLS or other wrapper"
)


class Credentials(NamedTuple):
    """Who connected a UNIX stream; a later setuid or fork does not change it."""

    pid: int
    uid: int
    gid: int


def peer_socket(transport: object) -> socket.socket:
    """The socket of a stream, which the kernel can be asked about.

    :raises ConfigurationError: the transport has none.
    """
    handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
    if not isinstance(handle, socket.socket):
        raise ConfigurationError(_NO_UNIX_SOCKET)
    return handle


def peer_credentials(skt: socket.socket) -> Credentials:
    """The credentials of the process that connected *skt*, as the kernel knows them.

    :raises ConfigurationError: it does not, because *skt* is not a UNIX socket.
    """
    data = skt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    credentials = Credentials(*_UCRED.unpack(data))
    if credentials.uid == _NO_UID:
        raise ConfigurationError(_NO_UNIX_SOCKET)
    return credentials
