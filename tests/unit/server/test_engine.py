"""Which engine makes the sockets."""

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.engine import PlainEngine, make_engine
from portmapd.server.fast.engine import FastEngine


class EngineTests(SynchronousTestCase):
    """The choice."""

    def test_fast(self) -> None:
        """A reactor that watches descriptors has the fast engine; its group watches others."""
        engine = make_engine(MemoryReactorClock())
        self.assertIsInstance(engine, FastEngine)
        self.assertTrue(IReactorFDSet.providedBy(engine.descriptors))

    def test_plain(self) -> None:
        """Any other reactor has the plain one, which watches none."""
        engine = make_engine(Clock())
        self.assertIsInstance(engine, PlainEngine)
        self.assertIsNone(engine.descriptors)
