"""CALLIT by broadcast: the same call to every port mapper on the networks of this host."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from portmapd.client.rpc.broadcast_call import (
    FIRST_INTERVAL,
    BroadcastCall,
    BroadcastReply,
    open_socket,
    waiting_datagrams,
)
from portmapd.errors import DaemonUnreachable
from portmapd.oncrpc.message import Credential
from portmapd.oncrpc.netid import Netid
from portmapd.oncrpc.program import RemoteCall


class _BroadcastSocket(FileDescriptor):
    """A UDP socket that may send to broadcast addresses, and receives from everyone.

    :param received: is called with each datagram and the host that it came from.
    """

    def __init__(
        self, reactor: Any, netid: Netid, received: Callable[[Netid, bytes, str], object]
    ) -> None:
        super().__init__(reactor)
        self._netid = netid
        self._received = received
        self._socket: socket.socket = open_socket(netid)
        self.startReading()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: bytes, address: Any) -> None:
        """Send a datagram.

        :raises OSError: it cannot be sent there.
        """
        self._socket.sendto(message, address)

    def doRead(self) -> None:
        for data, host in waiting_datagrams(self._socket):
            self._received(self._netid, data, host)
            if self._socket.fileno() < 0:
                return

    def close(self) -> None:
        """Close the socket."""
        self.stopReading()
        self._socket.close()


class Broadcast:
    """One broadcast, from its first datagram to its end.

    :param reactor: measures time; it provides IReactorFDSet, too.
    :param port: the port of the port mappers.
    :param call: the call that each of them is to make.
    :param credential: who makes it.
    :param each: is called with each reply as it comes; what it returns is true if no more are
        wanted. None: nobody looks at them before the end.
    :param timeout: when it ends, in seconds.
    :param limit: after how many replies it ends.
    :ivar done: fires with all replies. Cancelling it ends the broadcast.
    :raises ValueError: a number in *call* does not fit 32 bits.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        port: int,
        call: RemoteCall,
        credential: Credential,
        each: Callable[[BroadcastReply], object] | None,
        timeout: float,
        limit: int,
    ) -> None:
        self._reactor = reactor
        self._call = BroadcastCall(port, call, credential, each, limit)
        self._sockets: dict[Netid, _BroadcastSocket] = {}
        self._timers: dict[str, IDelayedCall] = {}
        self._timeout = timeout
        self.done: Deferred[tuple[BroadcastReply, ...]] = Deferred(lambda _: self._close())

    @property
    def xids(self) -> tuple[int, ...]:
        """The xids of the calls: that of version 3, then that of version 2."""
        return self._call.xids

    def start(self) -> None:
        """Send the call for the first time.

        :raises DaemonUnreachable: it cannot be sent anywhere.
        """
        try:
            self._send(FIRST_INTERVAL)
        except OSError as error:
            self._close()
            raise DaemonUnreachable(f"no broadcast can be sent: {error.strerror}") from error
        self._timers["end"] = self._reactor.callLater(self._timeout, self._finish)

    def _send(self, interval: float) -> None:
        self._call.send(self._send_one)
        self._timers["again"] = self._reactor.callLater(interval, self._send_again, 2 * interval)

    def _send_one(self, netid: Netid, message: bytes, address: Any) -> None:
        if netid not in self._sockets:
            self._sockets[netid] = _BroadcastSocket(self._reactor, netid, self.received)
        self._sockets[netid].send(message, address)

    def _send_again(self, interval: float) -> None:
        try:
            self._send(interval)
        except OSError:
            # The interfaces went away. Replies may still come.
            return

    def received(self, netid: Netid, message: bytes, host: str) -> None:
        """Take a datagram in; see :meth:`BroadcastCall.received`."""
        if self.done.called:
            return
        try:
            ends = self._call.received(netid, message, host)
        except Exception as error:
            self.fail(error)
        else:
            if ends:
                self._finish()

    def fail(self, error: Exception) -> None:
        """End with *error*, unless it has ended."""
        self._close()
        if not self.done.called:
            self.done.errback(error)

    def _finish(self) -> None:
        self._close()
        self.done.callback(self._call.replies)

    def _close(self) -> None:
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()
