"""How long callers wait."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from portmapd.portmapper.access import Policy
from portmapd.registry.registry import Registry
from portmapd.web.latency import BOUNDS, PERIOD, RECENT, Histogram, Probe


@implementer(IReactorFDSet)
class Descriptors:
    """What a reactor watches."""

    def __init__(self) -> None:
        self.readers: list[IReadDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        self.readers.remove(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        raise NotImplementedError

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        raise NotImplementedError

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        raise NotImplementedError

    def getReaders(self) -> list[IReadDescriptor]:
        return self.readers

    def getWriters(self) -> list[IWriteDescriptor]:
        return []


class HistogramTests(SynchronousTestCase):
    """Times by their sizes."""

    def test_bounds(self) -> None:
        """A time counts where it is not larger than the bound; the last count has all beyond."""
        histogram = Histogram()
        for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], 100.0):
            histogram.observe(seconds)
        self.assertEqual(histogram.counts[:2], [2, 1])
        self.assertEqual(histogram.counts[-2:], [1, 1])
        self.assertAlmostEqual(histogram.total, 101 + BOUNDS[0] * 2.01)


class ProbeTests(SynchronousTestCase):
    """A call that is timed once a second."""

    def setUp(self) -> None:
        self.clock, self.descriptors = Clock(), Descriptors()
        self.time = 0.0
        self.probe = Probe(Registry(), Policy(), self.clock, self.descriptors, lambda: self.time)
        self.addCleanup(self.probe.stop)

    def test_times(self) -> None:
        """A call is timed from when it is sent until its reply is made; it waits as others do."""
        self.probe.start()
        for wait in (0.0002, 3.0):
            self.clock.advance(PERIOD)
            self.time += wait
            self.probe.doRead()
        self.assertEqual(sum(self.probe.histogram.counts), 2)
        self.assertEqual(self.probe.histogram.counts[-1], 1)
        self.assertAlmostEqual(self.probe.histogram.total, 3.0002)
        self.assertEqual(len(self.probe.recent), 2)

    def test_hang(self) -> None:
        """While one call waits, no other is made; and only a few times are kept."""
        self.probe.start()
        self.clock.pump([PERIOD] * 10)
        self.time = 10.0
        self.probe.doRead()
        self.assertEqual(sum(self.probe.histogram.counts), 1)
        for _ in range(RECENT + 5):
            self.clock.advance(PERIOD)
            self.probe.doRead()
        self.assertEqual(len(self.probe.recent), RECENT)

    def test_stop(self) -> None:
        """Nothing is left on the reactor, however often it is stopped."""
        self.probe.start()
        self.assertEqual(self.descriptors.readers, [self.probe])
        self.probe.stop()
        self.probe.stop()
        self.assertEqual(self.descriptors.readers, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
