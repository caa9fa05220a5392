"""The calls under way over one socket."""

from __future__ import annotations

from collections.abc import Callable
from secrets import randbits

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from portmapd.errors import CallTimedOut, Unanswerable
from portmapd.oncrpc.message import xid_of


@define(eq=False)
class _Pending:
    """A call under way.

    :param reply: fires with the reply's message.
    :param retransmission: sends the call again; None over transports that lose nothing.
    """

    reply: Deferred[bytes]
    timeout: IDelayedCall
    retransmission: IDelayedCall | None = None


class Calls:
    """Calls by their xids. A call ends with its reply, its timeout, an error or its cancellation.

    :param clock: measures time.
    :param where: names the server in errors.
    """

    def __init__(self, clock: IReactorTime, where: str) -> None:
        self.where = where
        self._clock = clock
        self._pending: dict[int, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, xid: int) -> bool:
        return xid in self._pending

    def begin(self, timeout: float) -> tuple[int, Deferred[bytes]]:
        """Begin a call.

        :param timeout: seconds after which it fails with :exc:`~portmapd.errors.CallTimedOut`.
        :return: its xid, and what fires with the reply's message. Cancelling that forgets the call.
        """
        xid = self._new_xid()

        def forget(reply: Deferred[bytes]) -> None:
            self._end(xid)

        reply = Deferred[bytes](forget)
        timer = self._clock.callLater(timeout, self._time_out, xid, timeout)
        self._pending[xid] = _Pending(reply, timer)
        return xid, reply

    def _new_xid(self) -> int:
        """A new xid, which a process that does not see the call cannot guess."""
        xid = randbits(32)
        return self._new_xid() if xid in self._pending else xid

    def retransmit(self, xid: int, delay: float, send: Callable[[], object]) -> None:
        """Call *send* in *delay* seconds, if the call is still under way then."""
        self._pending[xid].retransmission = self._clock.callLater(delay, send)

    def answer(self, message: bytes) -> None:
        """End the call that has the xid of *message* with that reply, if there is one."""
        try:
            xid = xid_of(message)
        except Unanswerable:
            return
        call = self._end(xid)
        if call is not None:
            call.reply.callback(message)

    def fail(self, error: Exception) -> None:
        """End every call with *error*."""
        for xid in tuple(self._pending):
            self._fail(xid, error)

    def _time_out(self, xid: int, timeout: float) -> None:
        self._fail(xid, CallTimedOut(f"{self.where} did not answer within {timeout:g} s"))

    def _fail(self, xid: int, error: Exception) -> None:
        call = self._end(xid)
        if call is not None:
            call.reply.errback(error)

    def _end(self, xid: int) -> _Pending | None:
        call = self._pending.pop(xid, None)
        if call is not None:
            for timer in (call.timeout, call.retransmission):
                if timer is not None and timer.active():
                    timer.cancel()
        return call
