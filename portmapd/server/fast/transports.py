"""Listening stream sockets and their transports."""

import os
import socket
from contextlib import suppress
from typing import Any

from twisted.internet import main, tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from portmapd.server.fast.bind import bind_to_loopback, prepare_socket
from portmapd.server.fast.epoll_group import EpollGroup
from portmapd.server.interface_filter import is_loopback
from portmapd.server.socket_file import SOCKET_MODE, exact_mode, is_abstract, remove_stale

#: The most connections that the kernel keeps while the process is busy.
BACKLOG = 1_024
_CLOSED = Failure(main.CONNECTION_DONE)
#: The most connections accepted in one turn.
ACCEPTS = 4


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


class TcpPort(LimitedAccept):
    """A listening TCP socket, of one address family alone."""

    transport = TcpStream

    def __init__(
        self, port: int, factory: IProtocolFactory, interface: str, reactor: EpollGroup
    ) -> None:
        super().__init__(port, factory, BACKLOG, interface, reactor)

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


class UnixPort(LimitedAccept, unix.Port):
    """A listening UNIX socket that everyone may connect to, with a path or an abstract one.

    A stale socket at its path is replaced. Its file is removed in the end, unless it is another's
    by then.
    """

    transport: Any = UnixStream
    factory: Any
    reactor: EpollGroup
    _log = Logger()

    def __init__(self, path: str, factory: IProtocolFactory, reactor: EpollGroup) -> None:
        super().__init__(os.fsencode(path), factory, BACKLOG, SOCKET_MODE, reactor)
        self._path = path
        self._inode: int | None = None
        self._made: socket.socket | None = None

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

    def _connect(self, skt: socket.socket) -> None:
        protocol = self.factory.buildProtocol(None)
        if protocol is None:
            skt.close()
            return
        transport = self.transport(skt, protocol, None, self, 0, self.reactor)
        protocol.makeConnection(transport)
        if transport.connected:
            self.reactor.serve(transport)

    def createInternetSocket(self) -> socket.socket:
        if not is_abstract(self._path):
            remove_stale(self._path)
        skt: socket.socket = super().createInternetSocket()
        self._made = skt
        return skt

    def startListening(self) -> None:
        try:
            # The base class changes the mode after bind; until then clients would be refused.
            with exact_mode(self.mode):
                super().startListening()
        except BaseException:
            self._undo()
            raise
        if not is_abstract(self._path):
            self._inode = os.stat(self._path).st_ino

    def _undo(self) -> None:
        """Undo what the base class did before it failed."""
        self.factory.doStop()
        if self._made is not None:
            self._made.close()

    def loseConnection(self, connDone: Any = _CLOSED) -> Any:
        # At once: if the start fails, the reactor may have no later turn.
        self._unlink()
        return super().loseConnection(connDone)

    stopListening = loseConnection

    def connectionLost(self, reason: Any) -> None:
        self._unlink()
        tcp.Port.connectionLost(self, reason)

    def _unlink(self) -> None:
        """Remove the socket's file, unless it is another's by now, or we may not any more."""
        if self._inode is None:
            return
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
