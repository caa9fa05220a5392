"""Calls made on a caller's behalf: CALLIT, BCAST and INDIRECT."""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbits
from typing import Any, cast

from attrs import define
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol

from portmapd.errors import Unanswerable
from portmapd.oncrpc.message import xid_of
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.callit import ForwardedCall
from portmapd.server.quota import Taken

#: The most calls under way; while there are as many, no further ones are made.
MAX_CALLS = 256
#: How many of them one host or user may have asked for, how many may be to one service, and how
#: many to one that did not answer the last call: it, and whoever calls it, leave room for others.
MAX_OF_CALLER = 192
MAX_OF_SERVICE = 96
MAX_OF_SILENT = 8
#: How long a service may take, in seconds. Callers give up, or ask again, sooner.
TIMEOUT = 5.0
#: The same for a service that did not answer the last call.
SILENT_TIMEOUT = 1.0
#: The most services that are known not to answer.
MAX_SILENT = 1_024
#: The largest answer that is taken, in bytes: any datagram.
MAX_ANSWER = 65_535

#: Takes the reply to a request; None if it gets none.
Respond = Callable[[bytes | None], object]

#: The source address of calls over IPv4 and over IPv6. Only this host reaches it; the port is one
#: that the kernel chooses, above the reserved ones.
_SOURCES = ("127.0.0.1", "::1")


@define(eq=False)
class _Pending:
    """A call under way.

    :param request: who asked for it, and the message.
    """

    call: ForwardedCall
    request: tuple[Caller, bytes]
    respond: Respond
    timeout: IDelayedCall

    @property
    def service(self) -> tuple[str, int]:
        """Where the call went."""
        return self.call.host, self.call.port


class _AnswerProtocol(DatagramProtocol):
    """Receives the answers of services."""

    noisy = False

    def __init__(self, forwarder: CallForwarder) -> None:
        self._forwarder = forwarder

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._forwarder.answered(datagram, addr[0], addr[1])


class CallForwarder:
    """Makes calls over UDP, and gives each answer to its own caller only.

    :param reactor: gives the sockets.
    :param clock: measures time.
    """

    def __init__(self, reactor: IReactorUDP, clock: IReactorTime) -> None:
        self._reactor = reactor
        self._clock = clock
        self._ports: dict[str, IListeningPort] = {}
        self._pending: dict[int, _Pending] = {}
        self._requests: set[tuple[Caller, bytes]] = set()
        #: How many calls are under way from each host or user, and to each service.
        self._callers: Taken[str | int] = Taken()
        self._services: Taken[tuple[str, int]] = Taken()
        #: The services that did not answer the last call, the latest last.
        self._silent: dict[tuple[str, int], None] = {}

    def forward(
        self,
        call: ForwardedCall,
        caller: Caller,
        message: bytes,
        respond: Respond,
    ) -> bool:
        """Make the call that *message* of *caller* asks for.

        A retransmission of a request whose call is under way makes no second call.

        :param respond: is called once, when the call has ended, if it was made.
        :return: whether it was.
        """
        request = caller, message
        service = call.host, call.port
        if request in self._requests or not self._has_room(caller, service):
            return False
        xid = self._new_xid()
        seconds = SILENT_TIMEOUT if service in self._silent else TIMEOUT
        timeout = self._clock.callLater(seconds, self._give_up, xid)
        self._pending[xid] = _Pending(call, request, respond, timeout)
        self._requests.add(request)
        self._callers[_who(caller)] += 1
        self._services[service] += 1
        self._send(call, xid)
        return True

    def waiting(self, respond: Respond) -> list[bytes]:
        """The messages that ask for calls under way, of those whose replies *respond* is to get."""
        return [each.request[1] for each in self._pending.values() if each.respond == respond]

    def _has_room(self, caller: Caller, service: tuple[str, int]) -> bool:
        share = MAX_OF_SILENT if service in self._silent else MAX_OF_SERVICE
        return (
            len(self._pending) < MAX_CALLS
            and self._callers[_who(caller)] < MAX_OF_CALLER
            and self._services[service] < share
        )

    def _new_xid(self) -> int:
        """A new xid, which a process that does not see the call cannot guess."""
        xid = randbits(32)
        return self._new_xid() if xid in self._pending else xid

    def _send(self, call: ForwardedCall, xid: int) -> None:
        try:
            transport = cast("IUDPTransport", self._port(_SOURCES[":" in call.host]))
            transport.write(call.message(xid), (call.host, call.port))
        except (OSError, CannotListenError, MessageLengthError):
            self._finish(xid, None)

    def _port(self, source: str) -> IListeningPort:
        """The socket that calls from *source* leave from; it is opened for the first one."""
        if source not in self._ports:
            self._ports[source] = self._reactor.listenUDP(
                0, _AnswerProtocol(self), interface=source, maxPacketSize=MAX_ANSWER
            )
        return self._ports[source]

    def answered(self, message: bytes, host: str, port: int) -> None:
        """Take *message* as the answer to the call that was sent there with its xid, if any."""
        try:
            xid = xid_of(message)
        except Unanswerable:
            return
        pending = self._pending.get(xid)
        if pending is not None and (host, port) == pending.service:
            self._silent.pop(pending.service, None)
            self._finish(xid, message)

    def _give_up(self, xid: int) -> None:
        """The service has not answered in time."""
        self._silent[self._pending[xid].service] = None
        if len(self._silent) > MAX_SILENT:
            del self._silent[next(iter(self._silent))]
        self._finish(xid, None)

    def _finish(self, xid: int, answer: bytes | None) -> None:
        pending = self._pending.pop(xid)
        self._requests.discard(pending.request)
        self._callers.give_back(_who(pending.request[0]))
        self._services.give_back(pending.service)
        if pending.timeout.active():
            pending.timeout.cancel()
        pending.respond(pending.call.reply(answer))

    def stop(self) -> Deferred[Any]:
        """Drop every call under way; the deferred fires when the sockets are closed."""
        for pending in self._pending.values():
            pending.timeout.cancel()
        self._pending.clear()
        self._requests.clear()
        self._callers.clear()
        self._services.clear()
        ports, self._ports = self._ports, {}
        return gatherResults([maybeDeferred(port.stopListening) for port in ports.values()])


def _who(caller: Caller) -> str | int:
    """Whose share a call is of: a user's over the rpcbind socket, else a host's."""
    return caller.host if caller.uid is None else caller.uid
