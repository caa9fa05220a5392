"""The credentials of the process at the other end of a UNIX stream."""

import socket
from struct import Struct
from typing import NamedTuple

from twisted.internet.interfaces import ISystemHandle

from portmapd.errors import ConfigurationError

_UCRED = Struct("=iII")


class Credentials(NamedTuple):
    """Who connected a UNIX stream; a later setuid or fork does not change it."""

    pid: int
    uid: int
    gid: int


def peer_socket(transport: object) -> socket.socket:
    """The socket of a UNIX stream's transport, which the kernel can be asked about.

    :raises ConfigurationError: it is no UNIX stream.
    """
    handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
    if not isinstance(handle, socket.socket) or handle.family != socket.AF_UNIX:
        raise ConfigurationError(
            "only a UNIX socket tells which user and process connected: listen on a "
            "UNIXServerEndpoint, with no TLS or other wrapper"
        )
    return handle


def peer_credentials(skt: socket.socket) -> Credentials:
    """The credentials of the process that connected *skt*, as the kernel knows them."""
    data = skt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(data))
