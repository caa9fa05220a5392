"""Program 100000 over streams: TCP and the rpcbind socket."""

import socket
from collections import deque
from struct import Struct
from typing import Any

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from portmapd.errors import BrokenStream
from portmapd.net.answering import Answering
from portmapd.oncrpc.address import LOCAL, TCP, TCP6
from portmapd.oncrpc.message import XID
from portmapd.oncrpc.record import RecordReader, mark, record_mark
from portmapd.portmapper.caller import Audience, Caller

#: A stream without a whole record for so long is closed, in seconds.
IDLE = 60.0
#: How often that is looked after within that time.
SWEEPS = 4
#: The most streams of one listening socket.
MAX_STREAMS = 1_024
#: Replies are gathered up to about so many bytes before they are written.
CHUNK = 65_536

#: Where the parts of a record stand: its xid behind its mark, and the rest of its call.
_XID = slice(4, 4 + XID)
_CALL = slice(4 + XID, None)

_UCRED = Struct("=iII")


@implementer(IPushProducer)
class PortmapStream(Protocol):
    """One stream of calls.

    Calls may be pipelined; they are answered in order, except those that are forwarded. While the
    peer does not read its replies, nothing is read from it.
    """

    factory: "PortmapFactory"
    transport: Any
    #: The factory's sweep in which a record came last.
    sweep: int

    def __init__(self) -> None:
        self._reader = RecordReader()
        self._waiting: deque[bytes] = deque()
        self._broken = ""
        self._paused = False
        #: Is there nothing of a call, and no call, that came and is not answered yet?
        self._at_rest = True

    def connectionMade(self) -> None:
        self.factory.streams.add(self)
        self.sweep = self.factory.sweep
        self._caller = _caller(self.transport, self.factory.answering)
        caller = self._caller
        self._known = self.factory.answering.shelf(caller.netid, caller.audience, caller.reached)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Serve the calls that *data* completes."""
        known = self._known.get(data[_CALL])
        if known is not None and self._at_rest and data.startswith(known.asked):
            known.hits += 1
            self.sweep = self.factory.sweep
            self.transport.write(known.mark + data[_XID] + known.reply)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            self._waiting.extend(self._reader.feed(data))
        except BrokenStream as fault:
            self._broken = str(fault)
        self._serve()

    def _serve(self) -> None:
        if self._waiting:
            self.sweep = self.factory.sweep
        while self._waiting and not self._paused:
            self.transport.write(self._gather())
        self._at_rest = not self._waiting and self._reader.is_between
        if self._broken and not self._waiting:
            self.factory.answering.complain(self._caller, self._broken)
            self._broken = ""
            self.transport.loseConnection()

    def _gather(self) -> bytes:
        """The replies to the calls that wait, as many as make a chunk."""
        replies: list[bytes] = []
        size = 0
        while self._waiting and size < CHUNK:
            message = self._waiting.popleft()
            known = self._known.get(message[XID:])
            if known is not None:
                known.hits += 1
                replies += (known.mark, message[:XID], known.reply)
                size += known.size
                continue
            reply = self.factory.answering.answer(message, self._caller, self._respond)
            if reply is not None:
                replies += (record_mark(reply), reply)
                size += len(reply)
        return b"".join(replies)

    def _respond(self, reply: bytes) -> None:
        """Send a reply that took its time."""
        self.transport.write(mark(reply))

    def pauseProducing(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self._serve()
        if not self._paused:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self._waiting.clear()

    def connectionLost(self, reason: object = None) -> None:
        self.factory.streams.discard(self)


class PortmapFactory(Factory):
    """The streams of one listening socket.

    :param answering: serves the messages.
    :param clock: measures idle time.
    :param idle: a stream without a whole record for so many seconds is closed.
    :param limit: the most streams; further ones are closed at once.
    """

    noisy = False

    def __init__(
        self,
        answering: Answering,
        clock: IReactorTime,
        idle: float = IDLE,
        limit: int = MAX_STREAMS,
    ) -> None:
        self.answering = answering
        self.streams: set[PortmapStream] = set()
        self.sweep = 0
        self._limit = limit
        self._idle = idle
        self._sweeping = LoopingCall(self._close_idle)
        self._sweeping.clock = clock

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.streams) >= self._limit:
            return None
        host = getattr(addr, "host", None)
        if host is not None and self.answering.audience(host) is Audience.EXCLUDED:
            return None
        stream = PortmapStream()
        stream.factory = self
        return stream

    def startFactory(self) -> None:
        self._sweeping.start(self._idle / SWEEPS, now=False)

    def stopFactory(self) -> None:
        self._sweeping.stop()
        for stream in tuple(self.streams):
            stream.transport.abortConnection()

    def _close_idle(self) -> None:
        self.sweep += 1
        for stream in tuple(self.streams):
            if self.sweep - stream.sweep > SWEEPS:
                stream.transport.abortConnection()


def _caller(transport: Any, answering: Answering) -> Caller:
    peer, ours = transport.getPeer(), transport.getHost()
    if not hasattr(peer, "host"):
        uid = peer_credentials(transport.getHandle())[1]
        return Caller(LOCAL, Audience.LOCAL, uid=uid)
    netid = TCP6 if ":" in peer.host else TCP
    reached = ours.host.partition("%")[0]
    return Caller(netid, answering.audience(peer.host), peer.host, peer.port, reached)


def peer_credentials(skt: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid of the process that connected a UNIX socket, as the kernel tells them."""
    size = _UCRED.size
    pid, uid, gid = _UCRED.unpack(skt.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid
