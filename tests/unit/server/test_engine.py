"""Which engine makes the sockets, and at which port."""

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import ConfigurationError
from portmapd.server.engine import PlainEngine, listen_at_one_port, make_engine
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


class OnePortTests(SynchronousTestCase):
    """Sockets that all have one port."""

    def setUp(self) -> None:
        self.seen: list[str] = []

    def listen(self, port: int, taken: int) -> None:
        """Make sockets; so many ports are taken, the first ones that are tried."""

        def listen() -> None:
            self.seen.append("listen")
            tried = self.seen.count("listen")
            if tried <= taken:
                raise ConfigurationError(f"port {tried} is taken")

        listen_at_one_port(port, listen, lambda: self.seen.append("close"))

    def test_free(self) -> None:
        """A port that is free is served."""
        self.listen(0, 0)
        self.assertEqual(self.seen, ["listen"])

    def test_other(self) -> None:
        """Where any will do, another one is tried, once the sockets of the first are closed."""
        self.listen(0, 2)
        self.assertEqual(self.seen, ["listen", "close", "listen", "close", "listen"])

    def test_all_taken(self) -> None:
        """It ends: the last error is raised, and nothing is left open."""
        with self.assertRaisesRegex(ConfigurationError, "port 8 is taken"):
            self.listen(0, 100)
        self.assertEqual(self.seen, ["listen", "close"] * 8)

    def test_wanted(self) -> None:
        """A port that is wanted is tried once."""
        with self.assertRaisesRegex(ConfigurationError, "port 1 is taken"):
            self.listen(111, 1)
        self.assertEqual(self.seen, ["listen", "close"])
