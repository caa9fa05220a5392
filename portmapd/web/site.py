"""Serves HTTP within bounds: connections, headers, bodies, time, and what browsers may do."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.web import http
from twisted.web.http_headers import Headers
from zope.interface import implementer

from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Audience
from portmapd.server.own_addresses import is_own_address
from portmapd.server.quota import OpenStreams, network_of
from portmapd.web.origin import check_host, check_site
from portmapd.web.query import Answer, Query, RequestRefused, Route, text_answer

#: The most connections: 500 browsers that listen, and as many requests. One other network may have
#: a quarter of them.
MAX_CONNECTIONS = 1_000
#: The most bytes of a header, and of a body; the longest filter that is of use fits.
MAX_HEADER = 16_384
MAX_BODY = 65_536
#: The most header fields; browsers send some twenty.
MAX_FIELDS = 100
#: Seconds for a request to come whole, and for a connection to be kept without one.
REQUEST_TIME = 30.0
#: Seconds for the peer to read an answer that has an end.
ANSWER_TIME = 60.0

#: What every answer says to browsers: nothing from elsewhere is loaded, run, or shown around it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Server": "portmapd",
}
#: The reason phrases that Twisted does not know (RFC 9110, 15).
REASONS = {421: b"Misdirected Request"}
#: A proxy on this host asks for callers that may be elsewhere.
FORWARDED = ("forwarded", "x-forwarded-for", "via")


class Request(http.Request):
    """One request, and its answer."""

    channel: Any
    content: Any
    args: Any
    method: Any
    path: Any
    _is_refused = False

    def gotLength(self, length: int | None) -> None:
        self._size = 0
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_BODY:
            self.content.write(data)
        elif not self._is_refused:
            self._refuse()

    def _refuse(self) -> None:
        """Close the connection: what the peer still sends of a body is not read."""
        self._is_refused = True
        self.channel.refuse(b"413 Content Too Large")

    def process(self) -> None:
        if not self._is_refused:
            self.channel.factory.serve(self)

    def header(self, name: str) -> str | None:
        """A header field, with all of its values; None: there is none."""
        values = self.requestHeaders.getRawHeaders(name.encode())
        return None if values is None else b", ".join(values).decode("latin-1")

    def query(self) -> Query:
        """What it asks for.

        :raises RequestRefused: it is not in UTF-8.
        """
        try:
            fields = {
                name.decode(): [value.decode() for value in values]
                for name, values in self.args.items()
            }
        except UnicodeDecodeError:
            raise RequestRefused(400, "a field is not in UTF-8") from None
        is_forwarded = any(self.header(name) for name in FORWARDED)
        is_local = self.channel.is_own and not is_forwarded
        return Query(fields, self.header("accept") or "", is_local)

    def send(self, answer: Answer, clock: IReactorTime) -> None:
        """Send *answer*, at the rate at which the peer reads it."""
        self.setResponseCode(answer.status, REASONS.get(answer.status))
        for name, value in {**HEADERS, "Content-Type": answer.kind, **answer.headers}.items():
            self.setHeader(name, value)
        if answer.listen is not None:
            self.write(b"")
            listener = answer.listen(self)
            self.forget()
            self.registerProducer(listener, True)
            return
        if isinstance(answer.body, Sequence):
            whole = b"".join(answer.body)
            self.setHeader("Content-Length", str(len(whole)))
            self.write(whole)
            self.finish()
            return
        self.registerProducer(Pieces(self, iter(answer.body), clock), True)

    def forget(self) -> None:
        """Forget what came: an endless answer has no more use for it."""
        self.requestHeaders = self.responseHeaders = Headers()
        self.content.close()
        self.args = None
        self.received_cookies.clear()

    def write(self, data: bytes) -> None:
        if self.channel is not None:
            self.channel.use()
        super().write(data)

    def drop(self) -> None:
        """Close the connection at once."""
        if self.channel is not None:
            self.channel.transport.abortConnection()


@implementer(IPushProducer)
class Pieces:
    """Sends a body piece by piece, one in a turn of the reactor, as the peer reads them.

    A peer that takes too long loses the connection, and so does one whose body cannot be made.
    """

    _log = Logger()

    def __init__(self, request: Request, pieces: Iterator[bytes], clock: IReactorTime) -> None:
        self._request = request
        self._pieces = pieces
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._deadline = clock.callLater(ANSWER_TIME, self._abort)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        if self._next is None:
            self._next = self._clock.callLater(0, self._send)

    def pauseProducing(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def stopProducing(self) -> None:
        self.pauseProducing()
        if self._deadline.active():
            self._deadline.cancel()

    def _send(self) -> None:
        self._next = None
        try:
            piece = next(self._pieces, None)
        except Exception:
            self._log.failure("an answer over HTTP could not be made")
            self._abort()
            return
        if piece is None:
            self.stopProducing()
            self._request.unregisterProducer()
            self._request.finish()
            return
        # It may pause this producer.
        self.resumeProducing()
        self._request.write(piece)

    def _abort(self) -> None:
        self.stopProducing()
        self._request.drop()


class Channel(http.HTTPChannel):
    """One connection.

    :ivar used: the place of its last use among those of all connections.
    :ivar is_own: is its peer on this host?
    """

    requestFactory = Request
    totalHeadersSize = MAX_HEADER
    maxHeaders = MAX_FIELDS
    factory: Any
    transport: Any
    used = 0
    is_own = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.use()
        self.factory.add(self)

    def dataReceived(self, data: bytes) -> None:
        # The base class would begin to wait anew with every byte.
        LineReceiver.dataReceived(self, data)

    def timeoutConnection(self) -> None:
        # The base class logs a line for each: strangers could fill the log.
        self.transport.abortConnection()

    def use(self) -> None:
        """It is used."""
        self.factory.used += 1
        self.used = self.factory.used

    def refuse(self, status: bytes) -> None:
        """Answer a request before all of it has come, and close the connection."""
        fields = b"Content-Length: 0\r\nConnection: close"
        self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n\r\n")
        self.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.discard(self)
        super().connectionLost(reason)


class Site(http.HTTPFactory):
    """Answers requests by a table of paths.

    :param routes: the rows, by their paths.
    :param names: the names of this host, beside ``localhost`` and its addresses.
    :param policy: says who is answered.
    :param clock: measures time.
    :ivar used: how often any connection was used.
    """

    noisy = False
    protocol: Any = Channel
    _log = Logger()

    def __init__(
        self,
        routes: Mapping[str, Route],
        names: Sequence[str],
        policy: Policy,
        clock: IReactorTime,
    ) -> None:
        super().__init__(timeout=REQUEST_TIME, reactor=clock)
        self._routes = routes
        self._names = frozenset({"localhost", *(name.lower() for name in names)})
        self._policy = policy
        self._clock = clock
        self._open = OpenStreams[Channel](MAX_CONNECTIONS)
        self.used = 0
        self.connections: set[Channel] = set()
        self._ended: list[Deferred[None]] = []
        self._is_closed = False

    # No log of accesses is kept.

    def startFactory(self) -> None:
        """Nothing is to be opened."""

    def stopFactory(self) -> None:
        """Nothing is to be closed."""

    def log(self, request: http.Request) -> None:
        """Nothing is written."""

    def buildProtocol(self, addr: Any) -> Any:
        if self._is_closed:
            return None
        is_own = True
        if isinstance(addr, IPv4Address | IPv6Address):
            is_own = is_own_address(addr.host)
            if self._policy.audience(addr.host, is_own) is Audience.EXCLUDED:
                return None
        channel: Any = super().buildProtocol(addr)
        channel.is_own = is_own
        return channel

    def add(self, channel: Channel) -> None:
        """*channel* is open; another one may have to go."""
        self.connections.add(channel)
        owner: Hashable = None if channel.is_own else network_of(channel.transport.getPeer().host)
        surplus = self._open.add(channel, owner)
        if surplus is not None:
            surplus.transport.abortConnection()

    def discard(self, channel: Channel) -> None:
        """*channel* is closed."""
        self._open.remove(channel)
        self.connections.discard(channel)
        self._tell_ended()

    def serve(self, request: Request) -> None:
        """Answer *request*; a failure is logged, and ends there."""
        try:
            answer = self._answer(request)
        except RequestRefused as why:
            answer = text_answer(str(why), why.status, **why.headers)
        except Exception:
            self._log.failure("a request over HTTP failed")
            answer = text_answer("portmapd failed; its log tells how", 500)
        request.send(answer, self._clock)

    def _answer(self, request: Request) -> Answer:
        method = request.method.decode("ascii", "replace")
        check_host(request.header, self._names)
        check_site(request.header, method)
        route = self._routes.get(request.path.decode("ascii", "replace"))
        if route is None:
            raise RequestRefused(404, f"there is {', '.join(self._routes)}, and nothing else")
        if method not in route.methods:
            allowed = ", ".join(route.methods)
            raise RequestRefused(405, f"what is here takes {allowed}", Allow=allowed)
        return route.handle(request.query())

    def close(self) -> Deferred[None]:
        """Take no further connection, and close every one at once.

        :return: fires when they are closed.
        """
        self._is_closed = True
        for channel in tuple(self.connections):
            channel.transport.abortConnection()
        ended = Deferred[None]()
        self._ended.append(ended)
        self._tell_ended()
        return ended

    def _tell_ended(self) -> None:
        while self._ended and self._is_closed and not self.connections:
            self._ended.pop().callback(None)
