"""What sockets need before they are bound to an address."""

import socket
from contextlib import suppress
from ipaddress import ip_address

from portmapd.server.interface_filter import LOOPBACK_INDEX

#: Linux's own numbers, which the socket module does not have.
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78


def prepare_socket(skt: socket.socket, host: str) -> None:
    """Have an internet socket serve its own family alone, also at an address that comes later.

    :param host: the address that it will be bound to, with its scope.
    """
    address = ip_address(host.partition("%")[0])
    # A host without IPv6 is to be recognized by what it does not have.
    comes_later = not (address.is_loopback or address.is_unspecified)
    if address.version == 6:
        skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        skt.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, comes_later)
    else:
        skt.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, comes_later)


def bind_to_loopback(skt: socket.socket) -> None:
    """Have the listening TCP socket of a loopback address serve the loopback interface alone.

    Filters on TCP sockets take a privilege. Kernels before 5.7 want one for this, too; without it,
    callers that the kernel's ``route_localnet`` lets in from elsewhere are strangers all the same.
    """
    name = socket.if_indextoname(LOOPBACK_INDEX).encode()
    with suppress(PermissionError):
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
