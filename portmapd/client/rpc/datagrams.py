"""Calls over UDP."""

from __future__ import annotations

import os
import socket
from functools import partial
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port

from portmapd.client.rpc.calls import Calls
from portmapd.errors import DaemonUnreachable
from portmapd.oncrpc.message import MAX_DATAGRAM, XID

#: After so many seconds without a reply a call is sent again, then after twice as many, and so on
#: up to the longest interval: a lost datagram costs little, a slow server gets few retransmissions.
FIRST_INTERVAL = 0.5
LONGEST_INTERVAL = 8.0

#: The largest reply that is taken, in bytes: any datagram.
MAX_REPLY = 65_535

# Options and structures of <linux/in.h>, <linux/in6.h> and <linux/errqueue.h>.
_RECVERR = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_MSG_ERRQUEUE = 0x2000
#: The errno with which a ``sock_extended_err`` begins.
_EE_ERRNO = Struct("=I")
#: How much room a ``sock_extended_err`` and an address need, in bytes.
_ERROR_SIZE = 512


class DatagramCalls(DatagramProtocol):
    """Calls over a socket of their own to one server.

    The xid tells which call a datagram replies to. It has to come from the port that was called,
    but may come from another address: a host with several addresses may reply from any of them.

    :param clock: measures time.
    :param where: names the server in errors.
    :param port: the server's port.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, where: str, port: int) -> None:
        self.calls = Calls(clock, where)
        self._port = port

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call; see :meth:`~portmapd.client.rpc.calls.Calls.begin`.

        :raises ValueError: the message does not fit a datagram.
        """
        check_size(tail)
        xid, reply = self.calls.begin(tail, timeout)
        self._send(xid, FIRST_INTERVAL)
        return reply

    def _send(self, xid: int, interval: float) -> None:
        again = partial(self._send, xid, min(2 * interval, LONGEST_INTERVAL))
        self.calls.retransmit(xid, interval, again)
        try:
            self.transport.write(self.calls.message(xid))
        except OSError as error:
            self.failed(error.strerror)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        if addr[1] == self._port:
            self.calls.answer(datagram)

    def failed(self, why: object) -> None:
        """End every call under way: the network said that the server cannot be reached."""
        self.calls.fail_all(DaemonUnreachable(f"{self.calls.where} cannot be reached: {why}"))


def check_size(tail: bytes) -> None:
    """Refuse a call that is too long for UDP.

    :param tail: the call's message less its xid.
    :raises ValueError: the message does not fit a datagram.
    """
    if XID + len(tail) > MAX_DATAGRAM:
        raise ValueError(f"a call of {XID + len(tail)} bytes does not fit a datagram")


class _Socket(Port):
    """A UDP socket for one server, which tells its protocol of the network's errors.

    It need not be connected, so that the kernel takes an ICMP error about any address for one of
    this socket. The kernel queues them with their addresses (IP_RECVERR, as in libtirpc): those
    about others than the server are ignored, because anybody can send them.
    """

    protocol: DatagramCalls
    _server: Any

    def call(self, host: str, port: int, strict: bool) -> None:
        """Be a socket for *port* on *host*.

        The base class would lose the scope of *host*.

        :param strict: whether the kernel lets only that address's datagrams through.
        """
        numeric = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=numeric)
        self._server = found[0][4]
        self.socket.setsockopt(*_RECVERR[self.socket.family], 1)
        if strict:
            self.socket.connect(self._server)

    def write(self, datagram: bytes, addr: object = None) -> None:
        """Send *datagram* to the server. One that finds no room is lost like any other.

        :raises OSError: it cannot be sent.
        """
        for _ in range(2):
            try:
                self.socket.sendto(datagram, self._server)
            except BlockingIOError:
                return
            except OSError:
                queued = self._queued_errors()
                if not queued or self._of_server(queued):
                    raise
            else:
                return

    def doRead(self) -> None:
        try:
            super().doRead()
        except OSError:
            # It is in the queue, with the address that it is about.
            pass
        self._report_errors()

    def connectionLost(self, reason: object = None) -> None:
        """Close the socket; but some reactors end a connection because of an error in the queue.

        :param reason: None if the socket is to be closed.
        """
        if reason is None:
            super().connectionLost(reason)
        else:
            self._report_errors()
            self.startReading()

    def _report_errors(self) -> None:
        # Reading the option clears it; the queue says more.
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        error = self._of_server(self._queued_errors())
        if error:
            self.protocol.failed(os.strerror(error))

    def _of_server(self, errors: list[tuple[Any, int]]) -> int:
        """The errno of an error about the server; 0 if there is none."""
        about = (error for address, error in errors if address[:2] == self._server[:2])
        return next(about, 0)

    def _queued_errors(self) -> list[tuple[Any, int]]:
        """Empty the queue of errors: the address that each is about, and its errno."""
        errors: list[tuple[Any, int]] = []
        while True:
            try:
                _, said, _, address = self.socket.recvmsg(0, _ERROR_SIZE, _MSG_ERRQUEUE)
            except OSError:
                return errors
            errors += [(address, *_EE_ERRNO.unpack_from(data)) for _, _, data in said[:1]]


class DatagramTransport:
    """Calls to one server over one UDP socket, which is opened when it is needed.

    :param reactor: measures time; it provides IReactorFDSet, too, which the socket needs.
    :param host: IPv4 or IPv6 address of the server.
    :param port: its port.
    :param strict: whether only replies from *host* are taken; see :class:`DatagramCalls`.
    """

    def __init__(self, reactor: IReactorTime, host: str, port: int, strict: bool) -> None:
        self.netid = "udp6" if ":" in host else "udp"
        self.host = host
        self._reactor = reactor
        self._port = port
        self._strict = strict
        self._where = f"UDP port {port} of {host}"
        self._socket: _Socket | None = None

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call; see :meth:`DatagramCalls.call`.

        :raises DaemonUnreachable: the socket cannot be opened.
        """
        try:
            skt = self._opened()
        except (OSError, CannotListenError) as error:
            raise DaemonUnreachable(f"{self._where} cannot be reached: {error}") from error
        return skt.protocol.call(tail, timeout)

    def _opened(self) -> _Socket:
        if self._socket is None or not self._socket.connected:
            protocol = DatagramCalls(self._reactor, self._where, self._port)
            own = "::" if ":" in self.host else "0.0.0.0"
            skt = _Socket(0, protocol, own, MAX_REPLY, self._reactor)
            skt.startListening()
            try:
                skt.call(self.host, self._port, self._strict)
            except OSError:
                skt.stopListening()
                raise
            self._socket = skt
        return self._socket

    def close(self) -> Deferred[None]:
        """End every call under way, and close the socket."""
        skt, self._socket = self._socket, None
        if skt is None:
            return succeed(None)
        skt.protocol.calls.fail_all(DaemonUnreachable("the client was closed"))
        return maybeDeferred(skt.stopListening)
