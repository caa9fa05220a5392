"""Program 100000 over streams: TCP and the rpcbind socket."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from operator import attrgetter
from time import monotonic

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from portmapd.config import IDLE, MAX_STREAMS
from portmapd.errors import ConfigurationError
from portmapd.oncrpc.message import XID
from portmapd.oncrpc.netid import LOCAL, TCP, TCP6
from portmapd.oncrpc.record import MAX_FRAGMENTS, MAX_RECORD, RecordReader, fragments, mark
from portmapd.portmapper.caller import Audience, Caller
from portmapd.server.call_server import BaseCallServer
from portmapd.server.handover.passed import Descriptors, PassedStream
from portmapd.server.own_addresses import is_own_address
from portmapd.server.peer_credentials import peer_credentials, peer_socket
from portmapd.server.pipelining import PipelinedFactory, PipelinedProtocol
from portmapd.server.quota import OpenStreams, network_of
from portmapd.server.tcp_peer import Endpoint, peer_uid
from portmapd.server.turns import TURN, TurnQueue

#: How often idle streams are looked for within that time.
SWEEPS = 4
#: Records may be longer than usual; their fragments are of at least so many bytes then.
LEAST_FRAGMENT = 1_024
#: The parts of a record of one fragment: the xid of its call, behind the record mark; and the rest.
_XID = slice(4, 4 + XID)
_CALL = slice(4 + XID, None)


@implementer(IHalfCloseableProtocol)
class PortmapStreamProtocol(PipelinedProtocol[bytes]):
    """One stream of calls. A call that is forwarded is answered when its own answer comes.

    A peer that has closed its side for writing gets every reply before the stream is closed.

    :ivar used: the place of the last record among those of all streams of the factory.
    :ivar caller: who is at the other end; None until it is known.
    :ivar is_own: is the peer's address one of this host's own?
    """

    factory: PortmapStreamFactory
    used: int
    is_own = False
    caller: Caller | None = None

    def __init__(self, max_record: int = MAX_RECORD) -> None:
        fragments = max(MAX_FRAGMENTS, max_record // LEAST_FRAGMENT)
        self._reader = RecordReader(max_record, fragments)
        #: Are all the calls answered that came, and has no part of another one come?
        self._is_between = True
        #: How many calls are forwarded, and not answered yet.
        self._forwarded = 0
        self._is_half_closed = False

    def connectionMade(self) -> None:
        factory = self.factory
        self.used = factory.used = factory.used + 1
        try:
            self.caller = caller = self._find_caller()
        except ConfigurationError as error:
            self.factory.refuse(self, error)
            return
        self._find = factory.call_server.table(caller).find
        self._traffic = factory.call_server.traffic(caller.netid)
        self.transport.registerProducer(self, True)
        self.factory.add(self, caller)

    @property
    def is_idle(self) -> bool:
        """Has no record come for the time after which a stream is closed?"""
        sweeps = self.factory.sweeps
        return len(sweeps) > SWEEPS and self.used <= sweeps[0]

    def _find_caller(self) -> Caller:
        """The caller at the other end.

        :raises ConfigurationError: nothing tells who it is.
        """
        peer, ours = self.transport.getPeer(), self.transport.getHost()
        if isinstance(peer, IPv4Address | IPv6Address) and isinstance(
            ours, IPv4Address | IPv6Address
        ):
            netid = TCP6 if ":" in peer.host else TCP
            reached = ours.host.partition("%")[0]
            call_server = self.factory.call_server
            return call_server.caller(netid, peer.host, peer.port, reached, self.is_own)
        uid = peer_credentials(peer_socket(self.transport)).uid
        return Caller(LOCAL, Audience.LOCAL, uid=uid)

    def find_uid(self) -> int | None:
        """The user at the other end of a TCP stream of this host, if the kernel tells."""
        ends = self.transport.getPeer(), self.transport.getHost()
        peer, ours = (
            Endpoint(end.host.partition("%")[0], end.port)
            for end in ends
            if isinstance(end, IPv4Address | IPv6Address)
        )
        return peer_uid(peer, ours)

    def dataReceived(self, data: bytes) -> None:
        """Serve the calls that *data* completes; most often it is one whole call."""
        traffic = self._traffic
        traffic.received += len(data)
        cached = self._find(data[_CALL])
        if cached is not None and self._is_between and data.startswith(cached.request_mark):
            cached.count.value += 1
            factory = self.factory
            self.used = factory.used = factory.used + 1
            reply = cached.mark + data[_XID] + cached.body
            traffic.sent += len(reply)
            self.transport.write(reply)
        else:
            self._is_between = False
            self.take(self._reader.feed(data))

    def write(self, data: bytes) -> None:
        self._traffic.sent += len(data)
        self.transport.write(data)

    def requests_came(self) -> None:
        self.used = self.factory.used = self.factory.used + 1

    def answer(self, request: bytes) -> bytes | Iterator[bytes]:
        cached = self._find(request[XID:])
        if cached is not None:
            cached.count.value += 1
            return cached.mark + request[:XID] + cached.body
        assert self.caller is not None
        factory = self.factory
        reply = factory.call_server.serve_stream(request, self.caller, self._respond)
        if reply == b"":
            self._forwarded += 1
            if self._forwarded == factory.max_waiting:
                self.pauseProducing()
        if reply is None or isinstance(reply, bytes):
            return mark(reply) if reply else b""
        return fragments(reply)

    @property
    def unanswered(self) -> bytes:
        # A call that is forwarded is made again, as a caller over UDP would do.
        forwarded = self.factory.call_server.waiting(self._respond)
        calls = [mark(call) for call in (*forwarded, *(self._waiting or ()))]
        return b"".join([*calls, *([] if self._broken else [self._reader.pending])])

    def idle(self) -> None:
        self._is_between = self._reader.is_between
        self._close_if_done()

    def broke(self, fault: str) -> None:
        assert self.caller is not None
        self.factory.call_server.malformed(self.caller, fault)

    def _respond(self, reply: bytes | None) -> None:
        """Send the reply to a call that was forwarded."""
        self._forwarded -= 1
        if reply is not None:
            self.send(mark(reply))
        if self._forwarded == self.factory.max_waiting - 1 and self.connected:
            self.resumeProducing()
        self._close_if_done()

    def resumeProducing(self) -> None:
        if self._forwarded < self.factory.max_waiting:
            super().resumeProducing()

    def readConnectionLost(self) -> None:
        """The peer sends nothing more."""
        self._is_half_closed = True
        self._close_if_done()

    def writeConnectionLost(self) -> None:
        """It never is: streams are closed for reading and writing at once."""

    def _close_if_done(self) -> None:
        """Close the stream behind the last reply, if the peer sends nothing more."""
        if self._is_half_closed and not (self.is_busy or self._forwarded):
            self.close()

    def connectionLost(self, reason: object = None) -> None:
        self._is_half_closed = False
        self.drop()
        self.factory.discard(self)


class PortmapStreamFactory(PipelinedFactory[PortmapStreamProtocol]):
    """The streams of calls of one listening socket, or of several.

    :param call_server: serves the messages.
    :param clock: measures idle time.
    :param turns: where streams wait whose calls take longer than a turn.
    :param idle: a stream that sends no whole record for so many seconds is closed.
    :param limit: the most streams. For a further one, that is closed which was not used for the
        longest time. One user, or one other network, may have a quarter of them.
    :param max_record: the longest call, in bytes.
    :param max_waiting: the most calls of one stream that wait for their replies; nothing more is
        read from it meanwhile. Infinity: the call server bounds them.
    :ivar used: how often any stream was used.
    :ivar sweeps: how often it was when idle streams were looked for, the last few times.
    """

    def __init__(
        self,
        call_server: BaseCallServer,
        clock: IReactorTime,
        turns: TurnQueue,
        idle: float = IDLE,
        limit: int = MAX_STREAMS,
        max_record: int = MAX_RECORD,
        max_waiting: float = math.inf,
    ) -> None:
        super().__init__(turns)
        self.max_waiting = max_waiting
        self._max_record = max_record
        self.call_server = call_server
        self.used = 0
        self.sweeps = deque[int](maxlen=SWEEPS + 1)
        self._open = OpenStreams[PortmapStreamProtocol](limit)
        self._limit = limit
        self._idle = idle
        self._idle_streams = _IdleStreams(turns)
        self._sweeping = LoopingCall(self._close_idle)
        self._sweeping.clock = clock

    def buildProtocol(  # type: ignore[override] # Twisted's own type allows any factory
        self, addr: object
    ) -> PortmapStreamProtocol | None:
        if self.is_closed:
            return None
        stream = PortmapStreamProtocol(self._max_record)
        stream.factory = self
        if isinstance(addr, IPv4Address | IPv6Address):
            stream.is_own = is_own_address(addr.host)
            if self.call_server.audience(addr.host, stream.is_own) is Audience.EXCLUDED:
                return None
        return stream

    def add(self, stream: PortmapStreamProtocol, caller: Caller) -> None:
        """*stream* of *caller* is open; another one may have to go."""
        self.streams.add(stream)
        surplus = self._open.add(stream, self._owner(stream, caller))
        if surplus is not None:
            self._send_away(surplus)

    def _owner(self, stream: PortmapStreamProtocol, caller: Caller) -> Hashable:
        """Whose share a stream of *caller* is of; None for root, who has no limit.

        Users of this host are only looked up over TCP when they may matter.
        """
        if caller.uid is not None:
            return caller.uid or None
        if caller.audience is not Audience.LOCAL:
            return network_of(caller.host)
        if not self._open.is_crowded:
            return None
        uid = stream.find_uid()
        return "unknown" if uid is None else uid or None

    def pass_on(self, descriptors: Descriptors) -> list[PassedStream]:
        """What another process needs to go on with the streams, the one used last at the end."""
        streams = sorted(self.streams, key=attrgetter("used"))
        passed = [stream.pass_on(descriptors) for stream in streams]
        return [each for each in passed if each is not None]

    def _send_away(self, stream: PortmapStreamProtocol) -> None:
        if stream.caller is not None:
            self.call_server.sent_away(stream.caller, "too many streams, and it was idle longest")
        if len(self.streams) > 2 * self._limit:
            # Those that are closed in order may take their time.
            stream.end()
        else:
            stream.hang_up()

    def discard(self, stream: PortmapStreamProtocol) -> None:
        self._open.remove(stream)
        super().discard(stream)

    def startFactory(self) -> None:
        self._sweeping.start(self._idle / SWEEPS, now=False)

    def stopFactory(self) -> None:
        self._sweeping.stop()
        super().stopFactory()

    def _close_idle(self) -> None:
        self.sweeps.append(self.used)
        self._idle_streams.close([stream for stream in self.streams if stream.is_idle])


class _IdleStreams:
    """Idle streams that are closed in turns: to close a thousand takes as long as many calls.

    :param turns: gives the turns.
    """

    def __init__(self, turns: TurnQueue) -> None:
        self._turns = turns
        self._streams: deque[PortmapStreamProtocol] = deque()

    def close(self, streams: Iterable[PortmapStreamProtocol]) -> None:
        """Close *streams*, and no longer those that were to be closed before."""
        self._streams = deque(streams)
        self.take_turn()

    def take_turn(self) -> None:
        """Close streams for one turn."""
        ends = monotonic() + TURN
        while self._streams:
            stream = self._streams.popleft()
            if stream in stream.factory.streams and stream.is_idle:
                stream.hang_up()
            if monotonic() > ends:
                self._turns.add(self)
                return

    def end(self) -> None:
        """Close no further ones: one of them could not be closed, and the next sweep goes on."""
        self._streams.clear()
