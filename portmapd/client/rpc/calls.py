"""The calls under way to one server."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from portmapd.client.rpc.wire import new_xid, xid_in
from portmapd.errors import CallTimedOut
from portmapd.oncrpc.xdr import uint


@define(eq=False)
class _Pending:
    """A call under way.

    :param message: the call.
    :param reply: fires with the reply's message.
    :param retransmission: sends the call again; None over transports that lose nothing.
    """

    message: bytes
    reply: Deferred[bytes]
    timeout: IDelayedCall
    retransmission: IDelayedCall | None = None


class Calls:
    """Calls by their xids. A call ends with its reply, its timeout, an error or its cancellation.

    :param clock: measures time.
    :param where: names the server in errors.
    :param given_up: is called with the xid of a call that its timeout or its cancellation ended,
        and with whether it was the timeout.
    """

    def __init__(
        self,
        clock: IReactorTime,
        where: str,
        given_up: Callable[[int, bool], object] = lambda xid, timed_out: None,
    ) -> None:
        self.where = where
        self._clock = clock
        self._given_up = given_up
        self._pending: dict[int, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, tail: bytes, timeout: float) -> tuple[int, Deferred[bytes]]:
        """Begin a call.

        :param tail: the call's message less its xid.
        :param timeout: seconds after which it fails with :exc:`~portmapd.errors.CallTimedOut`.
        :return: its xid, and what fires with the reply's message. Cancelling that forgets the call.
        """
        xid = self._unused_xid()

        def forget(reply: Deferred[bytes]) -> None:
            self._end(xid)
            self._given_up(xid, False)

        reply = Deferred[bytes](forget)
        timer = self._clock.callLater(timeout, self._time_out, xid, timeout)
        self._pending[xid] = _Pending(uint(xid) + tail, reply, timer)
        return xid, reply

    def _unused_xid(self) -> int:
        xid = new_xid()
        return self._unused_xid() if xid in self._pending else xid

    def message(self, xid: int) -> bytes:
        """The message of a call under way."""
        return self._pending[xid].message

    def retransmit(self, xid: int, delay: float, send: Callable[[], object]) -> None:
        """Call *send* in *delay* seconds, if the call is still under way then."""
        self._pending[xid].retransmission = self._clock.callLater(delay, send)

    def answer(self, message: bytes) -> None:
        """End the call that has the xid of *message* with that reply, if there is one."""
        xid = xid_in(message)
        call = None if xid is None else self._end(xid)
        if call is not None:
            call.reply.callback(message)

    def fail(self, xid: int, error: Exception) -> None:
        """End a call with *error*, if it is still under way."""
        call = self._end(xid)
        if call is not None:
            call.reply.errback(error)

    def fail_all(self, error: Exception) -> None:
        """End every call with *error*."""
        for xid in tuple(self._pending):
            self.fail(xid, error)

    def _time_out(self, xid: int, timeout: float) -> None:
        call = self._end(xid)
        assert call is not None
        self._given_up(xid, True)
        call.reply.errback(
            CallTimedOut(f"{self.where} did not answer within {round(timeout, 3):g} s")
        )

    def _end(self, xid: int) -> _Pending | None:
        call = self._pending.pop(xid, None)
        if call is not None:
            for timer in (call.timeout, call.retransmission):
                if timer is not None and timer.active():
                    timer.cancel()
        return call
