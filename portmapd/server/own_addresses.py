"""Which addresses are this host's own, as the kernel's routes say (``rtnetlink(7)``)."""

import socket
from contextlib import suppress
from ipaddress import ip_address
from struct import Struct, pack

from portmapd.server.netlink import HEADER, ask

_GET_ROUTE = 26
#: ``struct rtmsg``: the family, the length of the destination in bits, and the type of a route.
_ROUTE = Struct("=BBxxxxxBxxxx")
_LOCAL = 2
#: Attributes of a route: its destination, and the interface to look on.
_DESTINATION, _INTERFACE = 1, 4


def is_own_address(host: str) -> bool:
    """Whether *host* is a loopback address or another address of this host, at this moment.

    Both ends of a TCP connection have answered each other, so a peer with such an address is on
    this host. The source of a datagram proves nothing.

    :param host: an IPv4 or IPv6 address, with its scope.
    """
    address, _, scope = host.partition("%")
    if ip_address(address).is_loopback:
        return True
    # An interface may have gone since, and a sandbox may have no netlink.
    with suppress(OSError):
        return _route_type(address, socket.if_nametoindex(scope) if scope else 0) == _LOCAL
    return False


def _route_type(address: str, interface: int) -> int:
    """The type of the route to *address*.

    :param interface: the index of the interface to look on; 0: any one.
    :raises OSError: there is no route.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    request = _ROUTE.pack(family, 8 * len(packed), 0) + _attribute(_DESTINATION, packed)
    if interface:
        request += _attribute(_INTERFACE, pack("=I", interface))
    reply = ask(socket.NETLINK_ROUTE, _GET_ROUTE, request)
    return int(_ROUTE.unpack_from(reply, HEADER.size)[2])


def _attribute(kind: int, data: bytes) -> bytes:
    return pack("=HH", 4 + len(data), kind) + data
