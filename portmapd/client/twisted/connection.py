"""Connections that a client makes: to the daemon, and to services for an application."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from portmapd.client.core.async_connection import AsyncConnection


class ChannelClientProtocol(Protocol):
    """One connection to the daemon's local channel."""

    # It has abortConnection, beside what ITransport has.
    transport: Any

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def connectionMade(self) -> None:
        self._connection.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self._connection.received(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._connection.lost()

    def write(self, data: bytes) -> None:
        """Send *data*."""
        self.transport.write(data)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abortConnection()


class Dialled(Protocol):
    """A connection that no other protocol has yet."""

    transport: Any

    def getsockname(self) -> Any:
        """Return its own address."""
        return self.transport.getHost()

    def getpeername(self) -> Any:
        """Return the address of its peer."""
        return self.transport.getPeer()

    def getsockopt(self, level: int, option: int, size: int) -> Any:
        """Return an option of its socket."""
        return self.transport.getHandle().getsockopt(level, option, size)

    def close(self) -> None:
        """Close it."""
        self.transport.abortConnection()

    def hand_over(self, protocol: Any) -> None:
        """Give it to *protocol*."""
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)


class DialledFactory(Factory):
    """Makes one connection.

    :param user: the factory that the connection is for, which is started and stopped with it;
        None: there is none.
    """

    noisy = False
    protocol = Dialled

    def __init__(self, user: IProtocolFactory | None) -> None:
        self._user = user

    def doStart(self) -> None:
        if self._user is not None:
            self._user.doStart()

    def doStop(self) -> None:
        if self._user is not None:
            self._user.doStop()


class Answer(Protocol):
    """Receives all that comes on a connection.

    :param limit: the most bytes that may come.
    :ivar whole: fires with them.
    """

    def __init__(self, limit: int) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._left = limit
        self._data: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._data.append(data)
        self._left -= len(data)
        if self._left < 0:
            self._end(OSError("the answer is too long"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        is_clean = reason is not None and reason.check(ConnectionDone)
        self._end(None if is_clean else OSError("the connection broke"))

    def _end(self, error: OSError | None) -> None:
        if self.whole.called:
            return
        if error is None:
            self.whole.callback(b"".join(self._data))
        else:
            self.whole.errback(error)
