"""The log of what peers cause, at a bounded rate: otherwise one of them could fill the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

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

#: The most warnings of one kind in a period, and its length in seconds.
MAX_LINES = 10
PERIOD = 60.0
#: The most lines of a kind that tells of registrations: a server of NFS makes some sixty of them.
MAX_CHANGES = 100
#: The most lines of all kinds in a period: with the counts of what was left out, and as many by
#: the look-out for dead services, these are ten a second.
MAX_IN_ALL = 260
#: The most warnings in a second: strangers cause them.
MAX_WARNINGS = 10


def _none() -> int:
    return 0


@define
class _Kind:
    """What is left of one kind of event in this period."""

    event: LogEvent
    is_warning: bool
    lines_left: int
    omitted: int = 0
    #: Tells how many were left out besides.
    count: Callable[[], int] = _none


class RateLimitedLog:
    """Logs events, each kind at a rate of its own, and all together at a rate.

    A period begins with the first event, and ends by a timer: an event that is left out costs no
    look at the clock.

    :param clock: measures the periods.
    :ivar counts: how often peers were at fault since the start, by the name of the event.
    """

    _log = Logger("portmapd")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.counts: Counter[str] = Counter()
        self._kinds: dict[str, _Kind] = {}
        self._lines_left = MAX_IN_ALL
        #: The second of the last warning, and how many there were in it.
        self._second = 0
        self._warnings = 0
        self._period: IDelayedCall | None = None

    def log(self, event: LogEvent, **fields: object) -> None:
        """Log *event*, unless its period has its lines already.

        :param fields: the fields of its text.
        """
        if self.takes(event):
            self.write(event, **fields)

    def write(self, event: LogEvent, **fields: object) -> None:
        """Log *event*, for which :meth:`takes` was true: for those that are costly to describe."""
        event.emit(self._log, **fields)

    def takes(self, event: LogEvent) -> bool:
        """Count one event of that kind; is there a line for it?"""
        kind = self._kinds.get(event.name) or self._begin(event)
        if kind.lines_left and self._lines_left and not (kind.is_warning and self._is_hasty()):
            kind.lines_left -= 1
            self._lines_left -= 1
            return True
        kind.omitted += 1
        return False

    def is_full(self, event: LogEvent) -> bool:
        """Is every event of that kind left out until the period ends?"""
        kind = self._kinds.get(event.name)
        return kind is not None and not (kind.lines_left and self._lines_left)

    def count_at_end(self, event: LogEvent, count: Callable[[], int]) -> None:
        """Ask *count* when the period ends how many events of a kind that is full there were."""
        self._kinds[event.name].count = count

    def _begin(self, event: LogEvent) -> _Kind:
        """Begin to count events of a kind, in a new period if there is none."""
        if self._period is None:
            self._period = self._clock.callLater(PERIOD, self._end)
        limit = MAX_LINES if event.level in ("warn", "critical") else MAX_CHANGES
        # What strangers cause must not hide a failure of ours.
        kind = self._kinds[event.name] = _Kind(event, event.level == "warn", limit)
        return kind

    def _is_hasty(self) -> bool:
        """Count a warning; did this second have its warnings already?"""
        second = int(self._clock.seconds())
        if second != self._second:
            self._second, self._warnings = second, 0
        self._warnings += 1
        return self._warnings > MAX_WARNINGS

    def malformed(self, caller: Caller, fault: str) -> None:
        """Log that *caller* sent a malformed message.

        :param fault: what is malformed about it.
        """
        self.counts[MALFORMED.name] += 1
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
        self.counts[CONNECTION_SENT_AWAY.name] += 1
        self.log(CONNECTION_SENT_AWAY, caller=str(caller), netid=caller.netid.name, why=why)

    def close(self) -> None:
        """Log what was left out, and measure no further period."""
        if self._period is not None:
            self._period.cancel()
            self._end()

    def _end(self) -> None:
        """End the period of all kinds, and log what was left out."""
        kinds, self._kinds = self._kinds, {}
        self._lines_left = MAX_IN_ALL
        self._period = None
        for kind in kinds.values():
            event = kind.event
            omitted = kind.omitted + kind.count()
            if omitted:
                self.write(OMITTED, count=omitted, kind=event.name, what=event.more)
