"""What peers do wrong in the log, at a bounded rate: whoever does it could fill the disk."""

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from portmapd.portmapper.caller import Caller

#: The most lines of one kind in a period, and its length in seconds.
MAX_LINES = 10
PERIOD = 60.0


@define
class _Kind:
    """The lines of one kind.

    :param name: what they tell of, in the plural.
    """

    name: str
    ends: float = 0.0
    lines: int = 0
    omitted: int = 0


class RateLimitedLog:
    """Logs who sent what malformed message, and who was refused what.

    :param clock: measures the periods.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._malformed = _Kind("malformed messages")
        self._refused = _Kind("refused requests")

    def malformed(self, caller: Caller, fault: str) -> None:
        """Log that *caller* sent a malformed message, unless the period has its lines already.

        :param fault: what is malformed about it.
        """
        if self._has_room(self._malformed):
            self._log.warn(
                "malformed message from {caller} over {netid}: {fault}",
                caller=str(caller),
                netid=caller.netid.name,
                fault=fault,
            )

    def refused(self, caller: Caller, why: str) -> None:
        """Log that *caller* was refused what it asked for, unless the period has its lines already.

        :param why: what it asked for, and why it is refused.
        """
        if self._has_room(self._refused):
            self._log.warn(
                "refused for {caller} over {netid}: {why}",
                caller=str(caller),
                netid=caller.netid.name,
                why=why,
            )

    def _has_room(self, kind: _Kind) -> bool:
        """Count a line, and say whether it is to be written."""
        now = self._clock.seconds()
        if now >= kind.ends:
            self._start_period(kind, now)
        if kind.lines >= MAX_LINES:
            kind.omitted += 1
            return False
        kind.lines += 1
        return True

    def _start_period(self, kind: _Kind, now: float) -> None:
        if kind.omitted:
            self._log.warn("{count} more {kind}", count=kind.omitted, kind=kind.name)
        kind.ends = now + PERIOD
        kind.lines = kind.omitted = 0
