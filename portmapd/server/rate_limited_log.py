"""The log of what peers cause, at a bounded rate: otherwise one of them could fill the disk."""

from __future__ import annotations

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from portmapd.portmapper.caller import Caller
from portmapd.server.log_events import (
    CONNECTION_SENT_AWAY,
    MALFORMED,
    OMITTED,
    REQUEST_REFUSED,
    LogEvent,
)

#: The most lines of one kind in a period, and its length in seconds.
MAX_LINES = 10
PERIOD = 60.0
#: The most lines of a kind that tells of registrations: a server of NFS makes some sixty of them.
MAX_CHANGES = 100


@define
class _Period:
    """What one kind of event has logged since *ends* less the length of a period."""

    event: LogEvent
    ends: float
    limit: int
    lines: int = 0
    omitted: int = 0


class RateLimitedLog:
    """Logs events, each kind at a rate of its own.

    :param clock: measures the periods.
    """

    _log = Logger("portmapd")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._periods: dict[str, _Period] = {}
        self._flushing: IDelayedCall | None = None

    def log(self, event: LogEvent, **fields: object) -> None:
        """Log *event*, unless its period has its lines already.

        :param fields: the fields of its text.
        """
        if self.takes(event):
            self.write(event, **fields)

    def write(self, event: LogEvent, **fields: object) -> None:
        """Log *event*, for which :meth:`takes` was true: for those that are costly to describe."""
        self._log.emit(event.urgency, event.text, event=event.name, **fields)

    def takes(self, event: LogEvent) -> bool:
        """Count one event of that kind; does the period take a line for it?"""
        period = self._periods.get(event.name)
        if period is None or self._clock.seconds() >= period.ends:
            period = self._begin(event)
        if period.lines < period.limit:
            period.lines += 1
            return True
        period.omitted += 1
        if self._flushing is None:
            self._flushing = self._clock.callLater(PERIOD, self._flush)
        return False

    def _begin(self, event: LogEvent) -> _Period:
        """Begin a period of that kind."""
        self._tell_omitted(event.name)
        limit = MAX_LINES if event.level == "warn" else MAX_CHANGES
        period = self._periods[event.name] = _Period(event, self._clock.seconds() + PERIOD, limit)
        return period

    def malformed(self, caller: Caller, fault: str) -> None:
        """Log that *caller* sent a malformed message.

        :param fault: what is malformed about it.
        """
        self.log(MALFORMED, caller=str(caller), netid=caller.netid.name, fault=fault)

    def refused(self, caller: Caller, why: str) -> None:
        """Log that *caller* was refused what it asked for.

        :param why: what it asked for, and why it is refused.
        """
        self.log(REQUEST_REFUSED, caller=str(caller), netid=caller.netid.name, why=why)

    def sent_away(self, caller: Caller, why: str) -> None:
        """Log that a connection of *caller* is closed for others.

        :param why: what there is too much of.
        """
        self.log(CONNECTION_SENT_AWAY, caller=str(caller), netid=caller.netid.name, why=why)

    def close(self) -> None:
        """Log what was left out, and measure no further period."""
        if self._flushing is not None:
            self._flushing.cancel()
        self._flush()

    def _flush(self) -> None:
        self._flushing = None
        for name in tuple(self._periods):
            self._tell_omitted(name)

    def _tell_omitted(self, name: str) -> None:
        period = self._periods.get(name)
        if period is not None and period.omitted:
            self.write(OMITTED, count=period.omitted, kind=name, what=period.event.more)
            period.omitted = 0
