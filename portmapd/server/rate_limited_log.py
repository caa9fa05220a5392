"""Malformed messages in the log, at a bounded rate."""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from portmapd.portmapper.caller import Caller

#: At most so many lines in each period, of so many seconds.
MAX_LINES = 10
PERIOD = 60.0


class RateLimitedLog:
    """Tells the log who sent what was malformed.

    :param clock: measures the periods.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._ends = 0.0
        self._lines = 0
        self._unsaid = 0

    def complain(self, caller: Caller, fault: str) -> None:
        """Say that *caller* sent something with that *fault*, unless too much was said lately."""
        now = self._clock.seconds()
        if now >= self._ends:
            self._start_period(now)
        if self._lines >= MAX_LINES:
            self._unsaid += 1
            return
        self._lines += 1
        self._log.warn(
            "malformed message from {caller} over {netid}: {fault}",
            caller=str(caller),
            netid=caller.netid.name,
            fault=fault,
        )

    def _start_period(self, now: float) -> None:
        if self._unsaid:
            self._log.warn("{count} more malformed messages", count=self._unsaid)
        self._ends = now + PERIOD
        self._lines = self._unsaid = 0
