"""The last ten minutes."""

from collections import Counter, deque

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.portmapper.statistics import Statistics, Tally
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.web.counters import Counters
from portmapd.web.history import LENGTH, PERIOD, History, Sample
from portmapd.web.latency import Histogram


class HistoryTests(SynchronousTestCase):
    """Samples of the counters."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry, self.statistics = Registry(), Statistics()
        self.faults: Counter[str] = Counter()
        counters = Counters(self.registry, self.statistics, self.faults, Histogram())
        self.recent: deque[float] = deque()
        self.told: list[Sample] = []
        self.history = History(
            counters, self.recent, lambda: {"rpc": 2}, self.clock, self.told.append
        )
        self.history.start()
        self.addCleanup(self.history.stop)

    def sample(self) -> Sample:
        """The next sample."""
        self.clock.advance(PERIOD)
        return self.told[-1]

    def test_sample(self) -> None:
        """A sample has what was counted since the last one, and what there is."""
        self.statistics.count_of(Tally(2, 3, transport="udp")).value += 10
        self.statistics.count_of(Tally(3, 0, success=False, transport="tcp")).value += 5
        self.statistics.count_of(Tally(2, 0, transport="tcp")).value += 5
        self.statistics.refusals["PROC_UNAVAIL"] += 1
        self.faults["malformed"] += 2
        self.registry.map(mapping(7, 1, "tcp", "0.0.0.0.0.7"))
        self.recent += (0.001, 0.002, 0.009)
        self.assertEqual(
            self.sample(),
            {
                "at": PERIOD,
                "rates": {"GETPORT": 2.0, "NULL": 2.0},
                "calls": 20,
                "refusals": 3,
                "connections": {"rpc": 2},
                "latency": [2.0, 9.0],
                "mapping": 1,
                "paused": 0,
                "service": 0,
            },
        )
        later = self.sample()
        self.assertEqual((later["rates"], later["latency"], later["calls"]), ({}, None, 20))

    def test_length(self) -> None:
        """Those of ten minutes are kept."""
        for _ in range(LENGTH + 10):
            self.sample()
        self.assertEqual(len(self.history.samples), LENGTH)
        self.assertEqual(self.history.samples[-1], self.told[-1])
        self.assertEqual(LENGTH * PERIOD, 600)
