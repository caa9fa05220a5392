"""The calls under way over one socket."""

from collections.abc import Callable
from secrets import randbits

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from portmapd.errors import CallTimedOut, Unanswerable
from portmapd.oncrpc.message import xid_of


@define(eq=False)
class _Waiting:
    """Who waits for a reply, and what happens meanwhile."""

    reply: Deferred[bytes]
    timeout: IDelayedCall
    next: IDelayedCall | None = None


class Calls:
    """Calls by their xids; each ends by its reply, its time, a fault, or its cancellation.

    :param clock: measures their time.
    :param where: names the server in errors.
    """

    def __init__(self, clock: IReactorTime, where: str) -> None:
        self.where = where
        self._clock = clock
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, xid: int) -> bool:
        return xid in self._waiting

    def begin(self, timeout: float) -> tuple[int, Deferred[bytes]]:
        """Begin a call.

        :param timeout: seconds after which it ends with :exc:`~portmapd.errors.CallTimedOut`.
        :return: its xid, and what fires with the reply's message. Cancelling that forgets it.
        """
        xid = self._new_xid()

        def forget(reply: Deferred[bytes]) -> None:
            self._end(xid)

        reply = Deferred[bytes](forget)
        timer = self._clock.callLater(timeout, self._time_out, xid, timeout)
        self._waiting[xid] = _Waiting(reply, timer)
        return xid, reply

    def _new_xid(self) -> int:
        """An xid that a process that does not see the call cannot guess."""
        xid = randbits(32)
        return self._new_xid() if xid in self._waiting else xid

    def later(self, xid: int, delay: float, do: Callable[[], object]) -> None:
        """After *delay* seconds, *do* something if the call has not ended by then."""
        self._waiting[xid].next = self._clock.callLater(delay, do)

    def answer(self, message: bytes) -> None:
        """Give *message* to the call that has its xid, if there is one."""
        try:
            xid = xid_of(message)
        except Unanswerable:
            return
        call = self._end(xid)
        if call is not None:
            call.reply.callback(message)

    def fail(self, error: Exception) -> None:
        """End all of them with *error*."""
        for xid in tuple(self._waiting):
            self._fail(xid, error)

    def _time_out(self, xid: int, timeout: float) -> None:
        self._fail(xid, CallTimedOut(f"{self.where} did not answer within {timeout:g} s"))

    def _fail(self, xid: int, error: Exception) -> None:
        call = self._end(xid)
        if call is not None:
            call.reply.errback(error)

    def _end(self, xid: int) -> _Waiting | None:
        call = self._waiting.pop(xid, None)
        if call is not None:
            for timer in (call.timeout, call.next):
                if timer is not None and timer.active():
                    timer.cancel()
        return call
