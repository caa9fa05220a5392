"""Calls over a stream: TCP or the rpcbind socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from portmapd.client.rpc.calls import Calls
from portmapd.client.rpc.wire import MAX_FRAGMENTS, MAX_STREAM_REPLY, xid_in
from portmapd.errors import BrokenStream, DaemonUnreachable
from portmapd.oncrpc.record import RecordReader, mark


class _ConnectionFactory(Factory):
    """Makes one connection, without lines in the log.

    :param connection: is returned when it is made.
    """

    noisy = False

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> StreamConnection:
        return self._connection


class StreamConnection(Protocol):
    """One connection, from before it is made until it is lost.

    :param owner: whose calls it carries.
    :ivar carried: the xids of the calls that were sent on it and are under way.
    :ivar answered: how many calls were answered on it.
    :ivar closed: fires when it is lost, or could not be made.
    """

    transport: Any

    def __init__(self, owner: StreamTransport) -> None:
        self._owner = owner
        self._reader = RecordReader(MAX_STREAM_REPLY, MAX_FRAGMENTS)
        self._attempt: Deferred[Any] | None = None
        self._is_over = False
        self.carried: dict[int, None] = {}
        self.answered = 0
        self.closed: Deferred[None] = Deferred()

    def connect(self, endpoint: IStreamClientEndpoint) -> None:
        """Begin to make the connection."""
        self._attempt = endpoint.connect(_ConnectionFactory(self))
        self._attempt.addErrback(self._not_made)

    def send(self, xid: int, message: bytes) -> None:
        """Send a call."""
        self.carried[xid] = None
        self.transport.write(mark(message))

    def close(self) -> None:
        """Close the connection, or give up the attempt to make it."""
        if not self.connected:
            assert self._attempt is not None
            self._attempt.cancel()
        elif self.carried:
            self.abort()
        else:
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once. What still comes on it is ignored."""
        self._is_over = True
        self.transport.abortConnection()

    def connectionMade(self) -> None:
        self._owner.made(self)

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            for record in self._reader.feed(data):
                self._owner.received(self, record)
        except BrokenStream as fault:
            self.abort()
            self._owner.broke(self, fault)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take a reply whose final fragment is not marked as that, then end."""
        final = self._reader.end() if reason.check(ConnectionDone) else None
        if final is not None and not self._is_over:
            self._owner.received(self, final)
        self._is_over = True
        self._owner.lost(self)
        self.closed.callback(None)

    def _not_made(self, failure: Failure) -> None:
        self._owner.not_made(self, failure.getErrorMessage().rstrip("."))
        self.closed.callback(None)


class StreamTransport:
    """Calls to one server, pipelined over one connection, which is made when it is needed.

    Some servers close the connection after each reply. Calls that were under way then are sent
    again on a new connection, one at a time until a connection brings a second reply. A connection
    that brought no reply fails its calls.

    A connection on which a call timed out carries no further calls. It is closed once those under
    way on it have ended.

    :param clock: measures time.
    :param endpoint: makes the connection.
    :param where: names the server in errors.
    :param netid: tcp, tcp6 or local.
    :param host: address of the server, or its name; for netid local a path.
    :ivar netid: that of the last connection, once one is made.
    :ivar host: the address that the last connection was made to.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        where: str,
        netid: str,
        host: str,
    ) -> None:
        self.netid = netid
        self.host = host
        self._endpoint = endpoint
        self._where = where
        self._calls = Calls(clock, where, self._given_up)
        self._waiting: dict[int, None] = {}
        self._current: StreamConnection | None = None
        self._connections: set[StreamConnection] = set()
        self._one_at_a_time = False

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call; see :meth:`~portmapd.client.rpc.calls.Calls.begin`."""
        xid, reply = self._calls.begin(tail, timeout)
        self._waiting[xid] = None
        self._send_waiting()
        return reply

    def _send_waiting(self) -> None:
        """Send the calls that wait, as far as they can be sent now."""
        if self._current is None and self._waiting:
            self._connect()
        connection = self._current
        if connection is None or not connection.connected:
            return
        while self._waiting and not (self._one_at_a_time and connection.carried):
            xid = next(iter(self._waiting))
            del self._waiting[xid]
            connection.send(xid, self._calls.message(xid))

    def _connect(self) -> None:
        connection = self._current = StreamConnection(self)
        self._connections.add(connection)
        connection.connect(self._endpoint)

    def made(self, connection: StreamConnection) -> None:
        """*connection* is made."""
        peer = connection.transport.getPeer()
        if isinstance(peer, IPv4Address | IPv6Address):
            self.netid = "tcp" if isinstance(peer, IPv4Address) else "tcp6"
            self.host = peer.host
        self._send_waiting()

    def received(self, connection: StreamConnection, record: bytes) -> None:
        """A reply came."""
        xid = xid_in(record)
        if xid not in connection.carried:
            return
        del connection.carried[xid]
        connection.answered += 1
        self._one_at_a_time &= connection.answered < 2
        self._calls.answer(record)
        self._next(connection)

    def _given_up(self, xid: int, timed_out: bool) -> None:
        """A call ended without a reply."""
        self._waiting.pop(xid, None)
        for connection in tuple(self._connections):
            if xid in connection.carried:
                del connection.carried[xid]
                if timed_out:
                    self._retire(connection)
                self._next(connection)
        if timed_out and not self._waiting and self._current and not self._current.connected:
            self._current.close()

    def _retire(self, connection: StreamConnection) -> None:
        """Send no further calls on *connection*."""
        if self._current is connection:
            self._current = None

    def _next(self, connection: StreamConnection) -> None:
        """Go on after a call on *connection* ended."""
        if connection is not self._current and not connection.carried:
            connection.abort()
        self._send_waiting()

    def broke(self, connection: StreamConnection, fault: BrokenStream) -> None:
        """The framing of *connection* is lost."""
        self._retire(connection)
        self._fail(connection.carried, fault)

    def lost(self, connection: StreamConnection) -> None:
        """*connection* is closed."""
        self._retire(connection)
        self._connections.discard(connection)
        if connection.answered and connection.carried:
            self._one_at_a_time = True
            self._waiting = connection.carried | self._waiting
        else:
            closed = DaemonUnreachable(f"{self._where} closed the connection")
            self._fail(connection.carried, closed)
        self._send_waiting()

    def not_made(self, connection: StreamConnection, why: str) -> None:
        """*connection* could not be made."""
        self._retire(connection)
        self._connections.discard(connection)
        self._fail(self._waiting, DaemonUnreachable(f"{self._where} cannot be reached: {why}"))

    def _fail(self, xids: dict[int, None], why: Exception) -> None:
        failed = tuple(xids)
        xids.clear()
        for xid in failed:
            self._calls.fail(xid, why)

    def close(self) -> Deferred[None]:
        """End every call under way, and the connection or the attempt to make it."""
        connections, self._current = tuple(self._connections), None
        self._waiting = {}
        closed = gatherResults([connection.closed for connection in connections])
        for connection in connections:
            connection.close()
            connection.carried.clear()
        self._calls.fail_all(DaemonUnreachable("the client was closed"))
        return closed.addCallback(lambda _: None)
