"""Servers that answer as a test tells them, in the test's own process."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import deferLater

from portmapd.oncrpc.message import decode_call, success
from portmapd.oncrpc.record import RecordReader, mark

Send = Callable[[bytes], object]
#: Is given a call, and what sends a reply to its caller.
Respond = Callable[[bytes, Send], object]


class Peer:
    """What a server was asked.

    :ivar port: the port that it is served on.
    :ivar calls: every call so far.
    :ivar callers: the host and port of each.
    """

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self.port = 0
        self.calls: list[bytes] = []
        self.callers: list[tuple[str, int]] = []

    def take(self, call: bytes, caller: tuple[str, int], send: Send) -> None:
        """Take a call in, and respond to it."""
        self.calls.append(call)
        self.callers.append(caller)
        self._respond(call, send)

    async def called(self, times: int) -> None:
        """Wait until it was called that often."""
        while len(self.calls) < times:
            await deferLater(reactor, 0.01)


def echo(call: bytes, send: Send) -> None:
    """Respond with the arguments as results."""
    read = decode_call(call)
    send(success(read.xid, read.arguments))


def silent(call: bytes, send: Send) -> None:
    """Respond with nothing."""


class _Datagrams(DatagramProtocol):
    transport: Any

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._peer.take(datagram, addr, lambda reply: self.transport.write(reply, addr))


class _Stream(Protocol):
    transport: Any
    factory: "_Streams"

    def connectionMade(self) -> None:
        self._reader = RecordReader()
        self.factory.streams.append(self)

    def dataReceived(self, data: bytes) -> None:
        caller = self.transport.getPeer()
        for call in self._reader.feed(data):
            if self.transport.disconnecting:
                return
            self.factory.peer.take(call, (caller.host, caller.port), self._send)

    def _send(self, reply: bytes) -> None:
        self.transport.write(mark(reply) if self.factory.framed else reply)
        if self.factory.closes:
            self.transport.loseConnection()


class _Streams(Factory):
    noisy = False

    def __init__(self, peer: Peer, framed: bool, closes: bool) -> None:
        self.peer = peer
        self.framed = framed
        self.closes = closes
        self.streams: list[_Stream] = []

    def buildProtocol(self, addr: Any) -> Any:
        stream = _Stream()
        stream.factory = self
        return stream


@asynccontextmanager
async def peering(
    transport: str,
    respond: Respond,
    host: str = "127.0.0.1",
    framed: bool = True,
    closes: bool = False,
) -> AsyncIterator[Peer]:
    """Run a server in the block.

    :param transport: ``udp`` or ``tcp``.
    :param framed: does it mark its records on a stream, as it must?
    :param closes: does it close a stream after each reply?
    """
    peer = Peer(respond)
    factory = _Streams(peer, framed, closes)
    anything: Any = reactor
    if transport == "udp":
        port = anything.listenUDP(0, _Datagrams(peer), host, 65_535)
    else:
        port = anything.listenTCP(0, factory, interface=host)
    peer.port = port.getHost().port
    try:
        yield peer
    finally:
        await port.stopListening()
        for stream in factory.streams:
            stream.transport.abortConnection()
