"""Program 100000 over streams: TCP and the rpcbind socket."""

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall

from portmapd.oncrpc.message import XID
from portmapd.oncrpc.netid import LOCAL, TCP, TCP6
from portmapd.oncrpc.record import RecordReader, mark
from portmapd.portmapper.caller import Audience, Caller
from portmapd.server.call_server import CallServer
from portmapd.server.peer_credentials import peer_credentials
from portmapd.server.pipelining import PipelinedProtocol
from portmapd.server.quota import Quota

#: A stream without a whole record for so long is closed, in seconds.
IDLE = 60.0
#: How often that is looked after within that time.
SWEEPS = 4
#: The most streams of one listening socket.
MAX_STREAMS = 1_024
#: Where the parts of a record stand: its xid behind its mark, and the rest of its call.
_XID = slice(4, 4 + XID)
_CALL = slice(4 + XID, None)


class PortmapStreamProtocol(PipelinedProtocol[bytes]):
    """One stream of calls. Forwarded calls are answered when their answers come."""

    factory: "PortmapStreamFactory"
    #: The factory's sweep in which a record came last.
    sweep: int

    def __init__(self) -> None:
        self._reader = RecordReader()
        #: Is there nothing of a call, and no call, that came and is not answered yet?
        self._at_rest = True

    def connectionMade(self) -> None:
        self.sweep = self.factory.sweep
        self._caller = caller = _caller(self.transport, self.factory.call_server)
        self.factory.add(self, caller)
        self._known = self.factory.call_server.table(caller)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Serve the calls that *data* completes; most often it is one whole call."""
        known = self._known.find(data[_CALL])
        if known is not None and self._at_rest and data.startswith(known.request_mark):
            known.count.value += 1
            self.sweep = self.factory.sweep
            self.transport.write(known.mark + data[_XID] + known.body)
        else:
            self._at_rest = False
            self.take(self._reader.feed(data))

    def answer(self, request: bytes) -> bytes:
        self.sweep = self.factory.sweep
        known = self._known.find(request[XID:])
        if known is not None:
            known.count.value += 1
            return known.mark + request[:XID] + known.body
        reply = self.factory.call_server.serve(request, self._caller, self._respond)
        return b"" if reply is None else mark(reply)

    def rested(self) -> None:
        self._at_rest = self._reader.is_between

    def broke(self, fault: str) -> None:
        self.factory.call_server.malformed(self._caller, fault)

    def _respond(self, reply: bytes) -> None:
        """Send a reply that took its time."""
        self.transport.write(mark(reply))

    def connectionLost(self, reason: object = None) -> None:
        self.factory.discard(self, self._caller)


class PortmapStreamFactory(Factory):
    """The streams of one listening socket.

    :param call_server: serves the messages.
    :param clock: measures idle time.
    :param idle: a stream without a whole record for so many seconds is closed.
    :param limit: the most streams; further ones are closed at once.
    """

    noisy = False

    def __init__(
        self,
        call_server: CallServer,
        clock: IReactorTime,
        idle: float = IDLE,
        limit: int = MAX_STREAMS,
    ) -> None:
        self.call_server = call_server
        self.streams: set[PortmapStreamProtocol] = set()
        self._shares = Quota(limit)
        self.sweep = 0
        self._limit = limit
        self._idle = idle
        self._sweeping = LoopingCall(self._close_idle)
        self._sweeping.clock = clock

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.streams) >= self._limit:
            return None
        host = getattr(addr, "host", None)
        if host is not None and self.call_server.audience(host) is Audience.EXCLUDED:
            return None
        stream = PortmapStreamProtocol()
        stream.factory = self
        return stream

    def add(self, stream: PortmapStreamProtocol, caller: Caller) -> None:
        """*stream* of *caller* is open; it is closed if the caller has too many."""
        self.streams.add(stream)
        if _is_shared(caller) and not self._shares.take(_who(caller)):
            stream.transport.abortConnection()

    def discard(self, stream: PortmapStreamProtocol, caller: Caller) -> None:
        """*stream* of *caller* has ended."""
        self.streams.discard(stream)
        if _is_shared(caller):
            self._shares.give_back(_who(caller))

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


def _who(caller: Caller) -> str:
    return caller.host if caller.uid is None else str(caller.uid)


def _is_shared(caller: Caller) -> bool:
    """Must the caller leave streams to others? Root need not, nor this host's loopback."""
    return caller.uid != 0 if caller.uid is not None else caller.audience is not Audience.LOCAL


def _caller(transport: Any, call_server: CallServer) -> Caller:
    peer, ours = transport.getPeer(), transport.getHost()
    if not hasattr(peer, "host"):
        uid = peer_credentials(transport.getHandle()).uid
        return Caller(LOCAL, Audience.LOCAL, uid=uid)
    netid = TCP6 if ":" in peer.host else TCP
    reached = ours.host.partition("%")[0]
    return call_server.caller(netid, peer.host, peer.port, reached)
