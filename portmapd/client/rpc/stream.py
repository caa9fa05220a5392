"""Calls over a stream: TCP or the rpcbind socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from portmapd.client.rpc.calls import Calls
from portmapd.errors import BrokenStream, DaemonUnreachable
from portmapd.oncrpc.record import RecordReader, mark
from portmapd.oncrpc.xdr import uint

#: The longest reply that is taken, in bytes: DUMP of some 800,000 mappings.
MAX_REPLY = 16 << 20
#: The most fragments of a reply; libtirpc's servers split replies at 9,000 bytes.
MAX_FRAGMENTS = 4_096


class StreamCalls(Protocol):
    """Calls over one connection, from before it is made until it is lost.

    :param clock: measures time.
    :param where: names the server in errors.
    :param ended: is called with this connection once no more calls can be made over it.
    """

    transport: Any

    def __init__(
        self, clock: IReactorTime, where: str, ended: Callable[[StreamCalls], object]
    ) -> None:
        self._calls = Calls(clock, where)
        self._ended = ended
        self._reader = RecordReader(MAX_REPLY, MAX_FRAGMENTS)
        self._unsent: dict[int, bytes] = {}
        self._attempt: Deferred[Any] | None = None
        self._closed: Deferred[None] = Deferred()

    def connect(self, endpoint: IStreamClientEndpoint) -> None:
        """Begin to make the connection."""
        self._attempt = connectProtocol(endpoint, self)
        self._attempt.addErrback(self._not_made)

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call; see :meth:`Calls.begin`.

        :param tail: the call's message less its xid.
        """
        xid, reply = self._calls.begin(timeout)
        record = mark(uint(xid) + tail)
        if self.connected:
            self.transport.write(record)
        else:
            self._unsent[xid] = record
        return reply

    def connectionMade(self) -> None:
        """Send the calls that waited for the connection, unless they have ended."""
        unsent, self._unsent = self._unsent, {}
        self.transport.write(b"".join(r for xid, r in unsent.items() if xid in self._calls))

    def dataReceived(self, data: bytes) -> None:
        try:
            for record in self._reader.feed(data):
                self._calls.answer(record)
        except BrokenStream as fault:
            self._end(fault)
            self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self._end(DaemonUnreachable(f"{self._calls.where} closed the connection"))
        self._closed.callback(None)

    def _not_made(self, failure: Failure) -> None:
        why = failure.getErrorMessage().rstrip(".")
        self._end(DaemonUnreachable(f"{self._calls.where} cannot be reached: {why}"))
        self._closed.callback(None)

    def _end(self, why: Exception) -> None:
        self._ended(self)
        self._calls.fail(why)

    def close(self) -> Deferred[None]:
        """End every call under way, and the connection or the attempt to make it."""
        pending = len(self._calls)
        self._end(DaemonUnreachable("the client was closed"))
        if not self.connected:
            assert self._attempt is not None
            self._attempt.cancel()
        elif pending:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()
        return self._closed


class StreamTransport:
    """Calls to one server, pipelined over one connection, which is made when it is needed.

    :param clock: measures time.
    :param endpoint: makes the connection.
    :param where: names the server in errors.
    :param netid: tcp, tcp6 or local.
    """

    def __init__(
        self, clock: IReactorTime, endpoint: IStreamClientEndpoint, where: str, netid: str
    ) -> None:
        self.netid = netid
        self._clock = clock
        self._endpoint = endpoint
        self._where = where
        self._connection: StreamCalls | None = None

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call; see :meth:`StreamCalls.call`."""
        if self._connection is not None:
            return self._connection.call(tail, timeout)
        connection = self._connection = StreamCalls(self._clock, self._where, self._forget)
        reply = connection.call(tail, timeout)
        connection.connect(self._endpoint)
        return reply

    def _forget(self, connection: StreamCalls) -> None:
        if self._connection is connection:
            self._connection = None

    def close(self) -> Deferred[None]:
        """End every call under way, and the connection."""
        return self._connection.close() if self._connection is not None else succeed(None)
