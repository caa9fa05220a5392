"""Program 100000 over UDP."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import ISystemHandle, IUDPTransport
from twisted.internet.protocol import DatagramProtocol

from portmapd.errors import ConfigurationError
from portmapd.oncrpc.netid import UDP, UDP6
from portmapd.portmapper.caller import Caller
from portmapd.server.call_server import CallServer
from portmapd.server.loopback import confine


class IPacketInfoTransport(IUDPTransport):
    """A UDP transport that knows which address of this host each datagram reached.

    Its replies leave from that address, and it keeps the scope of IPv6 addresses. It gives requests
    to :meth:`PortmapDatagramProtocol.serve`. Twisted's own UDP transport does not do that.
    """


class PortmapDatagramProtocol(DatagramProtocol):
    """Answers datagrams.

    On a transport that does not provide :class:`IPacketInfoTransport` it must be bound to the one
    address that its callers reach.

    :param call_server: serves the messages.
    :param address: the IPv4 or IPv6 address that the transport is to be bound to; None: whichever
        it is bound to.
    :raises ConfigurationError: *address* is no such address.
    """

    noisy = False
    transport: IUDPTransport | None

    def __init__(self, call_server: CallServer, address: str | None = None) -> None:
        if address is not None:
            _check_address(address)
        self.call_server = call_server
        self.address = address
        self._is_closed = False

    def makeConnection(self, transport: IUDPTransport) -> None:
        """Learn the address that the transport is bound to.

        :raises ConfigurationError: callers at that address would be answered wrongly; the message
            says what to do. The transport is closed.
        """
        super().makeConnection(transport)
        host = transport.getHost().host
        try:
            self._check(transport, host)
        except ConfigurationError:
            transport.stopListening()
            raise
        self.netid = UDP6 if ":" in host else UDP
        self._reached = host.partition("%")[0]

    def _check(self, transport: IUDPTransport, host: str) -> None:
        if self.address is not None and not _is_same(self.address, host):
            raise ConfigurationError(
                f"the UDP port is bound to {host}, and not to {self.address} as it is to be: give "
                f"listenUDP interface={self.address!r}"
            )
        if not IPacketInfoTransport.providedBy(transport):
            _check_plain(host)
            # listenUDP does not do it, and takes no options.
            handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
            if isinstance(handle, socket.socket):
                confine(handle, host)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        host, port = addr
        caller = self.call_server.caller(self.netid, host, port, self._reached)
        reply = self.serve(datagram, caller, partial(self._respond, addr))
        if reply is not None:
            self._respond(addr, reply)

    def serve(
        self, message: bytes, caller: Caller, respond: Callable[[bytes], object]
    ) -> bytes | None:
        """Serve a message; see :meth:`CallServer.serve`."""
        return None if self._is_closed else self.call_server.serve(message, caller, respond)

    def close(self) -> None:
        """Serve nothing any more; the port is its owner's to close."""
        self._is_closed = True

    def _respond(self, address: tuple[str, int], reply: bytes) -> None:
        """Send one reply; callers over UDP ask again for one that is lost."""
        if self.transport is None:
            return
        try:
            self.transport.write(reply, address)
        except (OSError, MessageLengthError) as error:
            self.call_server.reply_lost(address, error)


def _check_address(address: str) -> None:
    try:
        ip_address(address)
    except ValueError:
        raise ConfigurationError(
            f"{address!r} is no IPv4 or IPv6 address: give the address that the port is bound to"
        ) from None


def _check_plain(host: str) -> None:
    """Check that a transport without packet information can serve *host*.

    :raises ConfigurationError: it cannot.
    """
    address = ip_address(host.partition("%")[0])
    if address.is_unspecified:
        raise ConfigurationError(
            f"this UDP port is bound to {host}, and cannot tell which address a caller reached: "
            "listen on each address by itself, or use PortmapperService"
        )
    if address.version == 6 and address.is_link_local:
        raise ConfigurationError(
            f"this UDP port is bound to {host}, and loses the scope of link-local callers: "
            "listen on another address, or use PortmapperService"
        )


def _is_same(address: str, other: str) -> bool:
    return ip_address(address.partition("%")[0]) == ip_address(other.partition("%")[0])
