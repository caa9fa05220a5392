"""Calls over UDP."""

from __future__ import annotations

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
from portmapd.client.rpc.wire import (
    FIRST_INTERVAL,
    LONGEST_INTERVAL,
    MAX_DATAGRAM_REPLY,
    ErrorQueue,
    check_size,
)
from portmapd.errors import DaemonUnreachable


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


class _Socket(Port):
    """A UDP socket for one server, which tells its protocol of the network's errors.

    See :class:`~portmapd.client.rpc.wire.ErrorQueue`.
    """

    protocol: DatagramCalls
    _errors: ErrorQueue

    def call(self, host: str, port: int, strict: bool) -> None:
        """Be a socket for *port* on *host*.

        The base class would lose the scope of *host*.

        :param strict: whether the kernel lets only that address's datagrams through.
        """
        numeric = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=numeric)
        self._errors = ErrorQueue(self.socket, found[0][4])
        if strict:
            self.socket.connect(found[0][4])

    def write(self, datagram: bytes, addr: object = None) -> None:
        """Send *datagram* to the server; see :meth:`ErrorQueue.send`."""
        self._errors.send(datagram)

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
        error = self._errors.take()
        if error:
            self.protocol.failed(os.strerror(error))


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
            skt = _Socket(0, protocol, own, MAX_DATAGRAM_REPLY, self._reactor)
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
