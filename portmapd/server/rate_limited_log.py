"""Malformed messages in the log, at a bounded rate: whoever sends them could fill the disk."""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from portmapd.portmapper.caller import Caller

#: The most lines in a period, and its length in seconds.
MAX_LINES = 10
PERIOD = 60.0


class RateLimitedLog:
    """Logs who sent what malformed message.

    :param clock: measures the periods.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._ends = 0.0
        self._lines = 0
        self._omitted = 0

    def malformed(self, caller: Caller, fault: str) -> None:
        """Log that *caller* sent a malformed message, unless the period has its lines already.

        :param fault: what is malformed about it.
        """
        now = self._clock.seconds()
        if now >= self._ends:
            self._start_period(now)
        if self._lines >= MAX_LINES:
            self._omitted += 1
            return
        self._lines += 1
        self._log.warn(
            "malformed message from {caller} over {netid}: {fault}",
            caller=str(caller),
            netid=caller.netid.name,
            fault=fault,
        )

    def _start_period(self, now: float) -> None:
        if self._omitted:
            self._log.warn("{count} more malformed messages", count=self._omitted)
        self._ends = now + PERIOD
        self._lines = self._omitted = 0
