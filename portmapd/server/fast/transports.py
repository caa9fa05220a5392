"""Listening stream sockets and their transports."""

import os
import socket
import stat
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from twisted.internet import main, tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

#: Connections that the kernel keeps for us while we are busy.
BACKLOG = 1_024
_CLOSED = Failure(main.CONNECTION_DONE)
#: The most connections taken in one turn.
ACCEPTS = 4
#: The loopback interface has this index in every network namespace.
LOOPBACK_INDEX = 1


def confine(skt: socket.socket, host: str) -> bool:
    """Have a socket for a loopback address hear the loopback interface alone.

    With the kernel's ``route_localnet`` switched on, other hosts reach these addresses, from them.

    :return: was it done? It is not for other addresses, nor where we lack the right to.
    """
    if not ip_address(host.partition("%")[0]).is_loopback:
        return False
    name = socket.if_indextoname(LOOPBACK_INDEX).encode()
    try:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
    except PermissionError:
        return False
    return True


class DirectWrite(tcp.Connection):
    """Writes at once what the socket takes; the reactor is asked only about what is left."""

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
        # The base class asks first whether the protocol would go on writing; none of ours does.
        self.connectionLost(reason)

    def write(self, data: bytes) -> None:
        if data and self.connected and not (self.dataBuffer or self._tempDataLen):
            # The base class meets the same error where it can deal with it.
            with suppress(OSError):
                data = data[self.socket.send(data) :]
        if data:
            super().write(data)

    def rest(self) -> None:
        """Have the producer go on in a later turn, as if the peer had to catch up first."""
        self.producerPaused = True
        self.startWriting()
        self.producer.pauseProducing()


class TcpStream(DirectWrite, tcp.Server):
    """The transport of one TCP connection."""


class LimitedAccept(tcp.Port):
    """A listening socket that takes a few connections in a turn, however many there are."""

    def doRead(self) -> None:
        self.numberAccepts = min(self.numberAccepts, ACCEPTS)
        super().doRead()


class TcpPort(LimitedAccept):
    """A listening TCP socket, of one address family alone."""

    transport = TcpStream

    def __init__(self, port: int, factory: IProtocolFactory, interface: str, reactor: Any) -> None:
        super().__init__(port, factory, BACKLOG, interface, reactor)

    def createInternetSocket(self) -> socket.socket:
        skt: socket.socket = super().createInternetSocket()
        confine(skt, self.interface)
        if self.addressFamily == socket.AF_INET6:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return skt


class UnixStream(DirectWrite, tcp.Server):
    """The transport of one UNIX stream; file descriptors that a peer passes are not received."""

    #: A turn of one connection is short, for others wait.
    bufferSize = 16_384
    logstr = "UNIX"
    repstr = "<a UNIX stream>"

    def __init__(
        self, skt: socket.socket, protocol: Any, client: Any, server: Any, serial: int, reactor: Any
    ) -> None:
        # Not what tcp.Server makes of these: there may be ten thousand of us, and nobody reads it.
        tcp.Connection.__init__(self, skt, protocol, reactor)
        self.startReading()
        self.connected = True

    def getPeer(self) -> Any:
        return UNIXAddress(None)

    def getHost(self) -> Any:
        return UNIXAddress(None)


class UnixPort(LimitedAccept, unix.Port):
    """A listening UNIX socket that everyone may connect to.

    A stale socket file in its place is replaced.
    """

    transport: Any = UnixStream
    factory: Any
    reactor: Any
    _log = Logger()

    def doRead(self) -> None:
        """Take one connection, and what it says: most clients have said it by now.

        The base class looks for more connections at once, buffers logs and reports what it
        cannot accept, which takes longer than all that we do with a connection.
        """
        try:
            skt, _ = self.socket.accept()
        except BlockingIOError:
            return
        except OSError:
            super().doRead()
            return
        try:
            self._welcome(skt)
        except Exception:
            self._log.failure("a connection could not be served")
            skt.close()

    def _welcome(self, skt: socket.socket) -> None:
        protocol = self.factory.buildProtocol(None)
        if protocol is None:
            skt.close()
            return
        transport = self.transport(skt, protocol, None, self, 0, self.reactor)
        protocol.makeConnection(transport)
        if transport.connected:
            self.reactor.serve(transport)

    def __init__(self, path: str, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(os.fsencode(path), factory, BACKLOG, reactor=reactor)
        self._path = path
        self._inode: int | None = None
        self._made: socket.socket | None = None

    def createInternetSocket(self) -> socket.socket:
        _remove_stale(self._path)
        skt: socket.socket = super().createInternetSocket()
        self._made = skt
        return skt

    def startListening(self) -> None:
        # The base class changes the mode after bind; until then clients would be refused.
        mask = os.umask(0o777 & ~self.mode)
        try:
            super().startListening()
        except BaseException:
            self._undo()
            raise
        finally:
            os.umask(mask)
        self._inode = os.stat(self._path).st_ino

    def _undo(self) -> None:
        """End what the base class has begun by the time it fails."""
        self.factory.doStop()
        if self._made is not None:
            self._made.close()

    def loseConnection(self, connDone: Any = _CLOSED) -> Any:
        # At once: where the start fails, there is no later turn in which it could be done.
        self._unlink()
        return super().loseConnection(connDone)

    stopListening = loseConnection

    def connectionLost(self, reason: Any) -> None:
        self._unlink()
        tcp.Port.connectionLost(self, reason)

    def _unlink(self) -> None:
        """Remove the socket's file, unless it is another's by now, or we may not any more."""
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)


def _remove_stale(path: str) -> None:
    """Remove the socket at *path* if nobody listens there.

    :raises CannotListenError: somebody does, or something else is at that path.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise CannotListenError(None, path, FileExistsError("it is not a socket"))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise CannotListenError(None, path, error) from error
        else:
            raise CannotListenError(None, path, FileExistsError("another process serves there"))
