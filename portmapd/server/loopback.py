"""Sockets that hear the loopback interface alone."""

import socket
from ipaddress import ip_address

#: The loopback interface has this index in every network namespace.
LOOPBACK_INDEX = 1


def confine(skt: socket.socket, host: str) -> bool:
    """Have the socket of a loopback address hear the loopback interface alone.

    Where the kernel's ``route_localnet`` is on, other hosts reach these addresses, and can send
    from them.

    :param host: the address that the socket is for.
    :return: whether that was done. It is not for other addresses, nor without the right to do it.
    """
    if not ip_address(host.partition("%")[0]).is_loopback:
        return False
    name = socket.if_indextoname(LOOPBACK_INDEX).encode()
    try:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
    except PermissionError:
        return False
    return True
