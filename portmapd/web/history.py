"""The last ten minutes: calls, registrations and latency, for the plots of the status page."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from portmapd.web.counters import Counters, procedure_name

#: Seconds between two samples, and how many are kept.
PERIOD = 5.0
LENGTH = 120

#: What was counted at one moment, as the page takes it.
Sample = dict[str, Any]


class History:
    """Takes samples of the counters.

    :param counters: where they are.
    :param recent: the times of calls since the last sample, which it empties; in seconds.
    :param connections: how many connections there are, by their kind.
    :param clock: says when samples are taken.
    :param on_sample: is called with each.
    :ivar samples: the last ones, in order.
    """

    def __init__(
        self,
        counters: Counters,
        recent: deque[float],
        connections: Callable[[], dict[str, int]],
        clock: IReactorTime,
        on_sample: Callable[[Sample], object],
    ) -> None:
        self._counters = counters
        self._recent = recent
        self._connections = connections
        self._clock = clock
        self._on_sample = on_sample
        self._last = self._calls()
        self.samples: deque[Sample] = deque(maxlen=LENGTH)
        self._sampling = LoopingCall(self._sample)
        self._sampling.clock = clock

    def start(self) -> None:
        """Begin to take samples."""
        self._sampling.start(PERIOD, now=False)

    def stop(self) -> None:
        """Take no further sample."""
        if self._sampling.running:
            self._sampling.stop()

    def _calls(self) -> Counter[str]:
        calls = Counter[str]()
        for tally, count in self._counters.statistics.totals().items():
            calls[procedure_name(tally.version, tally.procedure)] += count
        return calls

    def _sample(self) -> None:
        calls = self._calls()
        rates = {name: (count - self._last[name]) / PERIOD for name, count in calls.items()}
        self._last = calls
        times = list(self._recent)
        self._recent.clear()
        sample: Sample = {
            "at": round(self._clock.seconds()),
            "rates": {name: rate for name, rate in rates.items() if rate},
            "calls": calls.total(),
            "refusals": sum(self._counters.refusals.values()),
            "connections": self._connections(),
            "latency": _milliseconds(times),
            **self._counters.registrations,
        }
        self.samples.append(sample)
        self._on_sample(sample)


def _milliseconds(times: Sequence[float]) -> list[float] | None:
    """The median and the longest of some times; None if there are none."""
    return [round(1000 * t, 3) for t in (median(times), max(times))] if times else None
