"""Program 100000 over UDP."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from ipaddress import ip_address

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import ISystemHandle, IUDPTransport
from twisted.internet.protocol import DatagramProtocol

from portmapd.errors import ConfigurationError
from portmapd.oncrpc.netid import UDP, UDP6
from portmapd.portmapper.caller import Caller
from portmapd.server.call_forwarder import Respond
from portmapd.server.call_server import BaseCallServer
from portmapd.server.interface_filter import hear_address


class IPacketInfoTransport(IUDPTransport):
    """A UDP transport that knows which address of this host each datagram reached.

    Its replies leave from that address, and it keeps the scope of IPv6 addresses. It gives requests
    to :meth:`PortmapDatagramProtocol.serve`. Twisted's own UDP transport does not do that.
    """


class PortmapDatagramProtocol(DatagramProtocol):
    """Answers datagrams.

    On a transport that does not provide :class:`IPacketInfoTransport` it must be bound to the one
    address that its callers reach. If that is a loopback address, the socket hears what comes over
    the loopback interface for that address, and nothing else; so it may be bound to the wildcard
    address, too. Its callers are on this host; at any other address nobody is.

    :param call_server: serves the messages.
    :param address: the IPv4 or IPv6 address that the transport is to be bound to; None: whichever
        it is bound to.
    :raises ConfigurationError: *address* is no such address.
    """

    noisy = False
    transport: IUDPTransport | None

    def __init__(self, call_server: BaseCallServer, address: str | None = None) -> None:
        if address is not None:
            _check_address(address)
        self.call_server = call_server
        self.address = address
        self._is_closed = False
        #: Does the kernel vouch that every caller is on this host?
        self._hears_loopback = False

    def makeConnection(self, transport: IUDPTransport) -> None:
        """Learn the address that the transport is bound to.

        :raises ConfigurationError: callers at that address would be answered wrongly; the message
            says what to do. The transport is closed.
        """
        if IPacketInfoTransport.providedBy(transport):
            # An address may have two of them, each of which sends its own replies.
            self.transport = None
        super().makeConnection(transport)
        host = transport.getHost().host
        try:
            host = self._check(transport, host)
        except ConfigurationError:
            transport.stopListening()
            raise
        self.netid = UDP6 if ":" in host else UDP
        self._reached = host.partition("%")[0]
        self._traffic = self.call_server.traffic(self.netid)

    def _check(self, transport: IUDPTransport, host: str) -> str:
        """The address that callers reach, on a port that is bound to *host*."""
        is_plain = not IPacketInfoTransport.providedBy(transport)
        handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
        skt = handle if is_plain and isinstance(handle, socket.socket) else None
        if self.address is not None and not _is_same(self.address, host):
            if skt is None or not _covers(host, self.address):
                raise ConfigurationError(
                    f"the UDP port is bound to {host}, and not to {self.address} as it is to be: "
                    f"give listenUDP interface={self.address!r}"
                )
            # A wildcard port, as listenUDP makes it, serves one loopback address as well.
            host = self.address
        if is_plain:
            _check_plain(host)
        if skt is not None and ip_address(host).is_loopback:
            _confine(skt, host)
            self._hears_loopback = True
        return host

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        host, port = addr
        self._traffic.received += len(datagram)
        caller = self.call_server.caller(
            self.netid, host, port, self._reached, self._hears_loopback
        )
        reply = self.serve(datagram, caller, partial(self._respond, addr))
        self._respond(addr, reply)

    def serve(self, message: bytes, caller: Caller, respond: Respond) -> bytes | None:
        """Serve a message; see :meth:`BaseCallServer.serve`."""
        return None if self._is_closed else self.call_server.serve(message, caller, respond)

    def close(self) -> None:
        """Serve nothing any more; the port is its owner's to close."""
        self._is_closed = True

    def _respond(self, address: tuple[str, int], reply: bytes | None) -> None:
        """Send one reply, if there is one; callers over UDP ask again for one that is lost."""
        if self.transport is None or not reply:
            return
        try:
            self.transport.write(reply, address)
            self._traffic.sent += len(reply)
        except (OSError, MessageLengthError) as error:
            self.call_server.reply_lost(address, error)


def _covers(host: str, address: str) -> bool:
    """Is *host* the wildcard address of the loopback address *address*?"""
    bound, wanted = ip_address(host.partition("%")[0]), ip_address(address)
    return bound.is_unspecified and wanted.is_loopback and bound.version == wanted.version


def _confine(skt: socket.socket, host: str) -> None:
    """Have a bound socket hear what comes over loopback for *host*, and nothing else."""
    hear_address(skt, host)
    # What came before may be from elsewhere; callers ask again.
    with suppress(BlockingIOError):
        while True:
            skt.recv(1, socket.MSG_DONTWAIT)


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
