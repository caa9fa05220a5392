"""What calls over every kind of socket have in common: xids, intervals, sizes, errors. Internal."""

from __future__ import annotations

import socket
from secrets import randbits
from struct import Struct
from typing import Any

from portmapd.errors import Unanswerable
from portmapd.oncrpc.host import is_address
from portmapd.oncrpc.message import MAX_DATAGRAM, XID, xid_of

#: After so many seconds without a reply over UDP a call is sent again, then after twice as many,
#: and so on up to the longest interval: a lost datagram costs little, a slow server gets few
#: retransmissions.
FIRST_INTERVAL = 0.5
LONGEST_INTERVAL = 8.0
#: The largest reply that is taken over UDP, in bytes: any datagram.
MAX_DATAGRAM_REPLY = 65_535
#: The longest reply that is taken over a stream, in bytes: a list of more mappings than are taken.
MAX_STREAM_REPLY = 16 << 20
#: The most fragments of a reply; libtirpc's servers split replies at 9,000 bytes.
MAX_FRAGMENTS = 4_096
#: The longest name of a host, in bytes (RFC 1035, 2.3.4), and the most of its addresses that are
#: tried.
MAX_NAME = 253
MAX_ADDRESSES = 16
MAX_PORT = 65_535

# Options and structures of <linux/in.h>, <linux/in6.h> and <linux/errqueue.h>.
_RECVERR: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_MSG_ERRQUEUE = 0x2000
#: The errno with which a ``sock_extended_err`` begins.
_EE_ERRNO = Struct("=I")
#: How much room a ``sock_extended_err`` and an address need, in bytes.
_ERROR_SIZE = 512


def new_xid() -> int:
    """An xid that a process which does not see the call cannot guess."""
    return randbits(32)


def xid_in(message: bytes) -> int | None:
    """The xid of *message*; None if it is shorter than that."""
    try:
        return xid_of(message)
    except Unanswerable:
        return None


def check_size(tail: bytes) -> None:
    """Refuse a call that is too long for UDP.

    :param tail: the call's message less its xid.
    :raises ValueError: the message does not fit a datagram.
    """
    if XID + len(tail) > MAX_DATAGRAM:
        raise ValueError(f"a call of {XID + len(tail)} bytes does not fit a datagram")


def check_host(host: str) -> None:
    """Refuse what is neither an address nor can be the name of a host.

    :raises ValueError: it is empty, too long, or has characters that no name has.
    """
    if is_address(host):
        return
    try:
        name = host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"host {host!r} is neither an address nor a name: {error}") from None
    clean = host.isprintable() and not set(host) & set(" /%:[]@")
    if not (clean and 0 < len(name) <= MAX_NAME):
        raise ValueError(f"host {host!r} is neither an address nor a name")


def check_internet(host: str, port: int) -> None:
    """Refuse what is no host, or no port.

    :raises ValueError: the message says which.
    """
    check_host(host)
    if not 0 < port <= MAX_PORT:
        raise ValueError(f"port {port} is not in the range 1 to {MAX_PORT}")


def host_of(address: Any) -> str:
    """The host of a socket's address, with its interface if it is link-local."""
    host, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return host


class ErrorQueue:
    """The network's errors about one server, on a UDP socket that is not connected.

    The kernel takes an ICMP error about any address for one of the socket, and queues it with its
    address (IP_RECVERR, as in libtirpc). Those about others than the server are ignored, because
    anybody can send them.

    :param skt: the socket.
    :param server: the server's address, as the socket module has it.
    """

    def __init__(self, skt: socket.socket, server: Any) -> None:
        self._socket = skt
        self._server = server
        skt.setsockopt(*_RECVERR[skt.family], 1)

    def take(self) -> int:
        """Empty the queue.

        :return: the errno of an error about the server; 0 if there is none.
        """
        # Reading the option clears it; the queue says more.
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self._of_server(self._queued())

    def send(self, datagram: bytes) -> None:
        """Send *datagram* to the server. One that finds no room is lost like any other.

        :raises OSError: it cannot be sent.
        """
        for _ in range(2):
            try:
                self._socket.sendto(datagram, self._server)
            except BlockingIOError:
                return
            except OSError:
                queued = self._queued()
                if not queued or self._of_server(queued):
                    raise
            else:
                return

    def _of_server(self, errors: list[tuple[Any, int]]) -> int:
        about = (error for address, error in errors if address[:2] == self._server[:2])
        return next(about, 0)

    def _queued(self) -> list[tuple[Any, int]]:
        """Empty the queue of errors: the address that each is about, and its errno."""
        errors: list[tuple[Any, int]] = []
        while True:
            try:
                _, said, _, address = self._socket.recvmsg(0, _ERROR_SIZE, _MSG_ERRQUEUE)
            except OSError:
                return errors
            errors += [(address, *_EE_ERRNO.unpack_from(data)) for _, _, data in said[:1]]
