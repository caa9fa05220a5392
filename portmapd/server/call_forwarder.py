"""Calls made on a caller's behalf: CALLIT, BCAST and INDIRECT."""

from collections.abc import Callable
from secrets import randbits
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime, IReactorUDP
from twisted.internet.protocol import DatagramProtocol

from portmapd.errors import Unanswerable
from portmapd.oncrpc.message import xid_of
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.dispatch import Pending

#: The most calls under way; further ones are not made.
MAX_CALLS = 128
#: How long a service may take, in seconds. Callers give up, or ask again, sooner.
TIMEOUT = 5.0
#: The largest answer that is taken, in bytes: any datagram.
MAX_ANSWER = 65_535

#: From where services of either family are called: an address that only this host reaches, and
#: a port that the kernel chooses, above the reserved ones.
_SOURCES = ("127.0.0.1", "::1")


@define(eq=False)
class _Call:
    """A call under way."""

    pending: Pending
    question: tuple[Caller, bytes]
    respond: Callable[[bytes], object]
    timeout: IDelayedCall | None = None


class _Answers(DatagramProtocol):
    """Takes the answers of services in."""

    def __init__(self, forwarder: "CallForwarder") -> None:
        self._forwarder = forwarder

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._forwarder.answered(datagram, addr[0], addr[1])


class CallForwarder:
    """Makes calls over UDP and gives each answer to its own caller alone.

    :param reactor: gives the sockets and measures time.
    """

    def __init__(self, reactor: Any) -> None:
        self._udp: IReactorUDP = reactor
        self._clock: IReactorTime = reactor
        self._ports: dict[str, IListeningPort] = {}
        self._calls: dict[int, _Call] = {}
        self._questions: set[tuple[Caller, bytes]] = set()

    def forward(
        self, pending: Pending, caller: Caller, message: bytes, respond: Callable[[bytes], object]
    ) -> None:
        """Make the call that *message* of *caller* asks for.

        A retransmission of a question that is still under way makes no second call.

        :param respond: is given the reply, if there is one.
        """
        question = caller, message
        if question in self._questions or len(self._calls) >= MAX_CALLS:
            return
        xid = self._new_xid()
        call = self._calls[xid] = _Call(pending, question, respond)
        self._questions.add(question)
        call.timeout = self._clock.callLater(TIMEOUT, self._finish, xid, None)
        self._send(pending, xid)

    def _new_xid(self) -> int:
        """An xid that a process that does not see the call cannot guess."""
        xid = randbits(32)
        return self._new_xid() if xid in self._calls else xid

    def _send(self, pending: Pending, xid: int) -> None:
        relay = pending.relay
        source = _SOURCES[":" in relay.host]
        try:
            if source not in self._ports:
                self._ports[source] = self._udp.listenUDP(
                    0, _Answers(self), interface=source, maxPacketSize=MAX_ANSWER
                )
            transport: Any = self._ports[source]
            transport.write(pending.message(xid), (relay.host, relay.port))
        except (OSError, CannotListenError, MessageLengthError):
            self._finish(xid, None)

    def answered(self, message: bytes, host: str, port: int) -> None:
        """A service sent *message*: it counts if it was called there with that xid."""
        try:
            xid = xid_of(message)
        except Unanswerable:
            return
        call = self._calls.get(xid)
        if call is not None and (host, port) == (call.pending.relay.host, call.pending.relay.port):
            self._finish(xid, message)

    def _finish(self, xid: int, message: bytes | None) -> None:
        call = self._calls.pop(xid)
        self._questions.discard(call.question)
        if call.timeout is not None and call.timeout.active():
            call.timeout.cancel()
        reply = call.pending.finish(message)
        if reply is not None:
            call.respond(reply)

    def stop(self) -> Deferred[Any]:
        """Drop every call under way; the deferred fires when the sockets are closed."""
        for call in self._calls.values():
            if call.timeout is not None:
                call.timeout.cancel()
        self._calls.clear()
        self._questions.clear()
        ports, self._ports = self._ports, {}
        return gatherResults([maybeDeferred(port.stopListening) for port in ports.values()])
