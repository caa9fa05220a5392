"""Calls over UDP."""

import errno
import os
import socket
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port

from portmapd.client.rpc.calls import Calls
from portmapd.errors import DaemonUnreachable
from portmapd.oncrpc.message import MAX_DATAGRAM, XID
from portmapd.oncrpc.xdr import uint

#: After so many seconds without a reply a call is sent again, then after twice as many, and so on
#: up to the longest interval: a lost datagram costs little, a slow server gets few retransmissions.
FIRST_INTERVAL = 0.5
LONGEST_INTERVAL = 8.0

#: The largest reply that is taken, in bytes: any datagram.
MAX_REPLY = 65_535


class DatagramCalls(DatagramProtocol):
    """Calls over a socket that is connected to one server.

    The kernel lets no other datagrams through than the server's; the xid tells which call one of
    them replies to.

    :param clock: measures time.
    :param where: names the server in errors.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, where: str) -> None:
        self.calls = Calls(clock, where)

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call; see :meth:`Calls.begin`.

        :param tail: the call's message less its xid.
        :raises ValueError: the message does not fit a datagram.
        """
        if XID + len(tail) > MAX_DATAGRAM:
            raise ValueError(f"a call of {XID + len(tail)} bytes does not fit a datagram")
        xid, reply = self.calls.begin(timeout)
        self._send(xid, uint(xid) + tail, FIRST_INTERVAL)
        return reply

    def _send(self, xid: int, message: bytes, interval: float) -> None:
        again = partial(self._send, xid, message, min(2 * interval, LONGEST_INTERVAL))
        self.calls.retransmit(xid, interval, again)
        try:
            self.transport.write(message)
        except OSError as error:
            self.failed(error.strerror)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.calls.answer(datagram)

    def connectionRefused(self) -> None:
        self.failed(os.strerror(errno.ECONNREFUSED))

    def failed(self, why: object) -> None:
        """End every call under way: the network said that the server cannot be reached."""
        self.calls.fail(DaemonUnreachable(f"{self.calls.where} cannot be reached: {why}"))


class _Socket(Port):
    """A UDP socket that tells its protocol of every error of the network.

    Some reactors make it readable then; others end its connection.
    """

    protocol: DatagramCalls
    _connectedAddr: tuple[str, int] | None

    def connect(self, host: str, port: int) -> None:
        """Connect to *port* on *host*; the base class would lose the scope of *host*."""
        numeric = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=numeric)
        self._connectedAddr = host, port
        self.socket.connect(found[0][4])

    def doRead(self) -> None:
        try:
            super().doRead()
        except OSError as error:
            self.protocol.failed(error.strerror)

    def connectionLost(self, reason: object = None) -> None:
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        super().connectionLost(reason)
        self.protocol.failed(os.strerror(error))


class DatagramTransport:
    """Calls to one server over one UDP socket, which is opened when it is needed.

    :param reactor: measures time; it provides IReactorFDSet, too, which the socket needs.
    :param host: IPv4 or IPv6 address of the server.
    :param port: its port.
    :param netid: udp or udp6.
    """

    def __init__(self, reactor: IReactorTime, host: str, port: int, netid: str) -> None:
        self.netid = netid
        self._reactor = reactor
        self._host = host
        self._port = port
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
            protocol = DatagramCalls(self._reactor, self._where)
            own = "::" if ":" in self._host else "0.0.0.0"
            skt = _Socket(0, protocol, own, MAX_REPLY, self._reactor)
            skt.startListening()
            try:
                skt.connect(self._host, self._port)
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
        skt.protocol.calls.fail(DaemonUnreachable("the client was closed"))
        return maybeDeferred(skt.stopListening)
