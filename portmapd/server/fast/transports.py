"""Listening stream sockets and their transports."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.logger import Logger

from portmapd.server.fast.bind import bind_to_loopback, prepare_socket
from portmapd.server.fast.epoll_group import EpollGroup
from portmapd.server.interface_filter import is_loopback
from portmapd.server.unix_port import UnixPort

#: The most connections that the kernel keeps while the process is busy.
BACKLOG = 1_024
#: The most connections accepted in one turn.
ACCEPTS = 4
_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class DirectWrite(tcp.Connection):
    """Writes at once what the socket takes, and has the reactor write what is left."""

    producer: Any

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        return self.protocol.dataReceived(data) if data else main.CONNECTION_DONE

    def readConnectionLost(self, reason: Any) -> None:
        # To ask so is faster than the base class is, when ten thousand connections end at once.
        if IHalfCloseableProtocol.providedBy(self.protocol):
            super().readConnectionLost(reason)
        else:
            self.connectionLost(reason)

    @property
    def is_passable(self) -> bool:
        """Whether it is neither lost nor about to be."""
        return bool(self.connected) and not self._aborting

    @property
    def unsent(self) -> bytes:
        """What was written and is not sent yet."""
        return b"".join([self.dataBuffer[self.offset :], *self._tempDataBuffer])

    def queue(self, data: bytes) -> None:
        """Have *data* sent when the reactor runs, and not before."""
        super().write(data)

    def write(self, data: bytes) -> None:
        if data and self.connected and not (self.dataBuffer or self._tempDataLen):
            # The base class gets the same error where it can handle it.
            with suppress(OSError):
                data = data[self.socket.send(data) :]
        if data:
            super().write(data)


class TcpStream(DirectWrite, tcp.Server):
    """The transport of one TCP connection."""


class LimitedAccept(tcp.Port):
    """A listening socket that accepts a few connections in a turn, however many there are."""

    def doRead(self) -> None:
        self.numberAccepts = min(self.numberAccepts, ACCEPTS)
        super().doRead()

    @property
    def descriptors(self) -> list[int]:
        """Its socket."""
        return [self.fileno()]


class TcpPort(LimitedAccept):
    """A listening TCP socket, of one address family alone.

    :param listening: one that listens there already; None: it is made.
    """

    transport = TcpStream
    _preexistingSocket: Any

    def __init__(
        self,
        port: int,
        factory: IProtocolFactory,
        interface: str,
        reactor: EpollGroup,
        listening: socket.socket | None = None,
    ) -> None:
        super().__init__(port, factory, BACKLOG, interface, reactor)
        self._preexistingSocket = listening
        if listening is not None:
            # That would end it for the others that have it, too.
            self._shouldShutdown = False
            if is_loopback(interface):
                bind_to_loopback(listening)

    def adopt(self, skt: socket.socket, protocol: IProtocol | None = None) -> IProtocol | None:
        """Serve a connection that another process has accepted, once the reactor runs.

        :return: its protocol; None: it is not served, and closed.
        :raises OSError: its peer is gone.
        """
        host, _ = socket.getnameinfo(skt.getpeername(), _NUMERIC)
        address = (host, *skt.getpeername()[1:])
        return _adopt(self, skt, self._buildAddr(address), address, protocol)

    def createInternetSocket(self) -> socket.socket:
        skt: socket.socket = super().createInternetSocket()
        prepare_socket(skt, self.interface)
        if is_loopback(self.interface):
            bind_to_loopback(skt)
        return skt


class UnixStream(DirectWrite, tcp.Server):
    """The transport of one UNIX stream; file descriptors that a peer passes are not received."""

    #: A connection's turn is short, because others wait.
    bufferSize = 16_384
    logstr = "UNIX"
    repstr = "<a UNIX stream>"

    def __init__(
        self,
        skt: socket.socket,
        protocol: IProtocol,
        client: object,
        server: object,
        serial: int,
        reactor: EpollGroup,
    ) -> None:
        # tcp.Server would make log texts that are not used, for each of ten thousand connections.
        tcp.Connection.__init__(self, skt, protocol, reactor)
        self.startReading()
        self.connected = True

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(None)

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(None)


class FastUnixPort(LimitedAccept, UnixPort):
    """A listening UNIX socket whose connections are served by the group."""

    transport: Any = UnixStream
    reactor: EpollGroup
    _log = Logger()

    def __init__(
        self,
        path: str,
        factory: IProtocolFactory,
        reactor: EpollGroup,
        listening: socket.socket | None = None,
    ) -> None:
        super().__init__(path, factory, BACKLOG, reactor, listening)

    def doRead(self) -> None:
        """Accept one connection, and serve it at once: most clients have sent something by then.

        The base class looks for more connections at once, buffers logs, and reports what it cannot
        accept. That takes longer than all the rest of a connection.
        """
        try:
            skt, _ = self.socket.accept()
        except BlockingIOError:
            return
        except OSError:
            super().doRead()
            return
        try:
            self._connect(skt)
        except Exception:
            self._log.failure("a connection could not be served")
            skt.close()

    def adopt(self, skt: socket.socket, protocol: IProtocol | None = None) -> IProtocol | None:
        """Serve a connection that another process has accepted; see :meth:`TcpPort.adopt`."""
        return _adopt(self, skt, None, None, protocol)

    def _connect(self, skt: socket.socket) -> None:
        protocol = self.factory.buildProtocol(None)
        if protocol is None:
            skt.close()
            return
        transport = self.transport(skt, protocol, None, self, 0, self.reactor)
        protocol.makeConnection(transport)
        if transport.connected:
            self.reactor.serve(transport)


def _adopt(
    port: Any, skt: socket.socket, address: Any, client: Any, protocol: IProtocol | None
) -> IProtocol | None:
    """Serve a connection on a port.

    :param protocol: serves it; None: the factory makes one.
    """
    if protocol is None:
        protocol = port.factory.buildProtocol(address)
    if protocol is None:
        skt.close()
        return None
    port.sessionno += 1
    transport = port.transport(skt, protocol, client, port, port.sessionno, port.reactor)
    protocol.makeConnection(transport)
    return protocol
