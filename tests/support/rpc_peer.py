"""The port mapper's end of a client's connections, in memory."""

from typing import Any

from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from portmapd.oncrpc.message import Call, decode_call, success
from portmapd.oncrpc.record import RecordReader, mark


class Peer:
    """The port mapper's end of the connections that a client makes."""

    def __init__(self, reactor: MemoryReactorClock) -> None:
        self._reactor = reactor
        self._protocols: list[Any] = []
        self._reader = RecordReader()

    def accept(self) -> StringTransport:
        """Let the connection that was asked for last be made."""
        factory: Any = self._reactor.tcpClients[-1][2]
        protocol = factory.buildProtocol(None)
        self.transport = StringTransport()
        self._protocols.append(protocol)
        protocol.makeConnection(self.transport)
        return self.transport

    def refuse(self) -> None:
        """Let it fail."""
        factory: Any = self._reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(ConnectError(string="No way there")))

    def lose(self) -> None:
        """Close the connection."""
        self._protocols[-1].connectionLost(Failure(ConnectionDone()))

    def calls(self) -> list[Call]:
        """The calls that came since the last look."""
        data = self.transport.value()
        self.transport.clear()
        return [decode_call(record) for record in self._reader.feed(data)]

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self._protocols[-1].dataReceived(data)

    def answer(self, results: bytes) -> Call:
        """Answer the only call that came, and give it."""
        (call,) = self.calls()
        self.send(mark(success(call.xid, results)))
        return call
