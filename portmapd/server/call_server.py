"""The way of a message from any transport to its reply: reply cache, dispatch, call forwarder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from itertools import chain

from twisted.logger import Logger

from portmapd.oncrpc.message import XID
from portmapd.oncrpc.netid import Netid
from portmapd.portmapper.access import Policy
from portmapd.portmapper.advertisement import Advertisement, advertised
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.dispatch import Dispatcher, Outcome
from portmapd.portmapper.reply_cache import ReplyCache, ReplyTable
from portmapd.portmapper.traffic import Traffic
from portmapd.server.call_forwarder import CallForwarder, Respond
from portmapd.server.log_events import REPLY_LOST
from portmapd.server.rate_limited_log import RateLimitedLog

#: The reply to a message of a stream: whole, or in parts; see :meth:`BaseCallServer.serve_stream`.
StreamReply = bytes | Iterator[bytes] | None

#: The most hosts whose audience is remembered.
MAX_HOSTS = 4_096


class BaseCallServer(ABC):
    """What the protocols of every transport ask of the server whose calls they carry.

    :param policy: says which audience a caller belongs to.
    :param peer_log: is told who sends malformed messages, and who is refused what.
    :param advertisements: addresses that callers are told in place of those that they reached.
    :param traffics: where the bytes of each transport are counted, by its netid; None: nobody asks.
    """

    def __init__(
        self,
        policy: Policy,
        peer_log: RateLimitedLog,
        advertisements: Sequence[Advertisement] = (),
        traffics: MutableMapping[str, Traffic] | None = None,
    ) -> None:
        self._policy = policy
        self._peer_log = peer_log
        self._advertisements = tuple(advertisements)
        self._audiences: dict[tuple[str, bool], Audience] = {}
        self._traffics = {} if traffics is None else traffics

    def audience(self, host: str, from_this_host: bool = False) -> Audience:
        """The audience of callers at *host*; see :meth:`Policy.audience`."""
        key = host, from_this_host
        audience = self._audiences.get(key)
        if audience is None:
            if len(self._audiences) >= MAX_HOSTS:
                self._audiences.clear()
            audience = self._audiences[key] = self._policy.audience(host, from_this_host)
        return audience

    def caller(
        self, netid: Netid, host: str, port: int, reached: str, from_this_host: bool = False
    ) -> Caller:
        """The caller at *port* of *host*, who sent its call to *reached* over IP.

        :param from_this_host: whether the kernel vouches that this host sent the call.
        """
        audience = self.audience(host, from_this_host)
        reserved = self._policy.reserved_ports
        told = advertised(self._advertisements, host) or reached
        return Caller(netid, audience, host, port, told, reserved_ports=reserved)

    def traffic(self, netid: Netid) -> Traffic:
        """Where a transport counts its bytes."""
        return self._traffics.setdefault(netid.name, Traffic())

    @abstractmethod
    def table(self, caller: Caller) -> ReplyTable:
        """The replies known for callers like *caller*.

        A transport that looks there first saves itself the way through :meth:`serve`. It counts
        the replies that it finds: ``reply.count.value += 1``.
        """

    @abstractmethod
    def serve(self, message: bytes, caller: Caller, respond: Respond) -> bytes | None:
        """Serve a message.

        :param respond: is called once if the reply has to wait.
        :return: the reply; empty if *respond* gets it; None if there is none.
        """

    def waiting(self, respond: Respond) -> list[bytes]:
        """The messages whose replies *respond* is to get."""
        return []

    def serve_stream(self, message: bytes, caller: Caller, respond: Respond) -> StreamReply:
        """Serve a message of a stream, whose reply may be long.

        :return: see :meth:`serve`; or the parts of a reply, each made when it is asked for.
        """
        return self.serve(message, caller, respond)

    def reply_lost(self, address: object, error: Exception) -> None:
        """Log that a transport could not send a reply."""
        self._peer_log.log(REPLY_LOST, address=str(address), error=str(error))

    def malformed(self, caller: Caller, fault: str) -> None:
        """Log that *caller* sent what is not a message, or a malformed one."""
        self._peer_log.malformed(caller, fault)

    def sent_away(self, caller: Caller, why: str) -> None:
        """Log that a stream of *caller* is closed for others."""
        self._peer_log.sent_away(caller, why)


class CallServer(BaseCallServer):
    """Serves program 100000.

    :param policy: says which audience a caller belongs to.
    :param dispatcher: serves the messages whose replies are not cached.
    :param cache: keeps their replies.
    :param forwarder: makes the calls that CALLIT, BCAST and INDIRECT ask for.
    :param advertisements: addresses that callers are told in place of those that they reached.
    :param traffics: where the bytes of each transport are counted, by its netid; None: nobody asks.
    :param peer_log: is told who sends malformed messages, and who is refused what.
    :param before_reply: is called after each dispatch, before its reply is sent, as
        :meth:`Liveness.look_at_new` has to be; None means that nothing is called.
    """

    _log = Logger()

    def __init__(
        self,
        policy: Policy,
        dispatcher: Dispatcher,
        cache: ReplyCache,
        forwarder: CallForwarder,
        peer_log: RateLimitedLog,
        before_reply: Callable[[], object] | None = None,
        advertisements: Sequence[Advertisement] = (),
        traffics: MutableMapping[str, Traffic] | None = None,
    ) -> None:
        super().__init__(policy, peer_log, advertisements, traffics)
        self._dispatcher = dispatcher
        self._cache = cache
        self._forwarder = forwarder
        self._before_reply = before_reply

    def table(self, caller: Caller) -> ReplyTable:
        return self._cache.table(caller)

    def serve(self, message: bytes, caller: Caller, respond: Respond) -> bytes | None:
        reply = self.serve_stream(message, caller, respond)
        return reply if reply is None or isinstance(reply, bytes) else b"".join(reply)

    def serve_stream(self, message: bytes, caller: Caller, respond: Respond) -> StreamReply:
        known = self._cache.table(caller).find(message[XID:])
        if known is not None:
            known.count.value += 1
            return message[:XID] + known.body
        try:
            outcome = self._dispatcher.dispatch(message, caller)
        except Exception:
            self._log.failure("the message of {caller} could not be served", caller=str(caller))
            return None
        if self._before_reply is not None:
            self._before_reply()
        self._follow_up(outcome, message, caller)
        forwarded = outcome.forwarded
        if forwarded is not None:
            made = self._forwarder.forward(forwarded, caller, message, respond)
            return b"" if made else None
        if outcome.rest is not None and outcome.reply is not None:
            return chain((outcome.reply,), outcome.rest)
        return outcome.reply

    def waiting(self, respond: Respond) -> list[bytes]:
        return self._forwarder.waiting(respond)

    def _follow_up(self, outcome: Outcome, message: bytes, caller: Caller) -> None:
        """Do what *outcome* asks for besides the reply: log and cache."""
        if outcome.fault:
            self.malformed(caller, outcome.fault)
        if outcome.refused:
            self._peer_log.refused(caller, outcome.refused)
        if outcome.cacheable is not None and outcome.reply is not None:
            self._cache.keep(caller, message, outcome.reply, outcome.cacheable)
