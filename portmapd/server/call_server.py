"""The way of a message from a socket to its reply: cache, dispatch, forwarding."""

from collections.abc import Callable

from twisted.logger import Logger

from portmapd.oncrpc.netid import Netid
from portmapd.portmapper.access import Policy
from portmapd.portmapper.cached_reply import Shelf, make_answer
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.dispatch import Dispatcher, Outcome
from portmapd.portmapper.reply_cache import Answers
from portmapd.server.call_forwarder import CallForwarder
from portmapd.server.rate_limited_log import RateLimitedLog

#: The most addresses whose audience is remembered.
MAX_HOSTS = 4_096


class CallServer:
    """Answers the messages of every transport.

    :param policy: says which audience a caller belongs to.
    :param dispatcher: serves what the cache does not know.
    :param answers: the cache.
    :param forwarder: makes the calls that must be made first.
    :param rate_limited_log: are told of malformed messages.
    """

    _log = Logger()

    def __init__(
        self,
        policy: Policy,
        dispatcher: Dispatcher,
        answers: Answers,
        forwarder: CallForwarder,
        rate_limited_log: RateLimitedLog,
    ) -> None:
        self._policy = policy
        self._dispatcher = dispatcher
        self._answers = answers
        self._forwarder = forwarder
        self._complaints = rate_limited_log
        self._audiences: dict[tuple[str, bool], Audience] = {}

    def audience(self, host: str, from_outside: bool = False) -> Audience:
        """The audience that callers at *host* belong to; see :meth:`Policy.audience`."""
        key = host, from_outside
        audience = self._audiences.get(key)
        if audience is None:
            if len(self._audiences) >= MAX_HOSTS:
                self._audiences.clear()
            audience = self._audiences[key] = self._policy.audience(host, from_outside)
        return audience

    def caller(
        self, netid: Netid, host: str, port: int, reached: str, from_outside: bool = False
    ) -> Caller:
        """The caller at *port* of *host* who asked the address *reached* over the network."""
        audience = self.audience(host, from_outside)
        reserved = self._policy.reserved_ports
        return Caller(netid, audience, host, port, reached, reserved_ports=reserved)

    def shelf(self, netid: Netid, audience: Audience, reached: str) -> Shelf:
        """The replies known for these readers; a reply found there may be sent as it is."""
        return self._answers.shelf(netid, audience, reached)

    def complain(self, caller: Caller, fault: str) -> None:
        """*caller* broke the language below the level of messages."""
        self._complaints.complain(caller, fault)

    def answer(
        self, message: bytes, caller: Caller, respond: Callable[[bytes], object]
    ) -> bytes | None:
        """Serve a message that no known reply fits.

        :param respond: is given the reply if there is one, but not now.
        :return: the reply if there is one now.
        """
        try:
            outcome = self._dispatcher.dispatch(message, caller)
        except Exception:
            self._log.failure("the message of {caller} could not be served", caller=str(caller))
            return None
        if outcome.fault:
            self._complaints.complain(caller, outcome.fault)
        if outcome.pending is not None:
            self._forwarder.forward(outcome.pending, caller, message, respond)
        self._keep(message, caller, outcome)
        return outcome.reply

    def _keep(self, message: bytes, caller: Caller, outcome: Outcome) -> None:
        if outcome.lasting is not None and outcome.reply is not None:
            answer = make_answer(message, outcome.reply, outcome.lasting)
            self._answers.keep(caller.netid, caller.audience, caller.reached, message, answer)
