"""What is watched over a connection, on a daemon in memory."""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.blocking.connection import run
from portmapd.client.core import watches
from portmapd.client.core.connection import Overflow
from portmapd.client.core.watch_state import WatchState
from portmapd.client.core.watches import Watches
from portmapd.client.values import Change, Service
from portmapd.server import listing
from tests.support.channel_sessions import Host
from tests.support.memory_connection import MemoryConnection

A = Service("a", 104, 8, 80, "")


class WatchesTests(SynchronousTestCase):
    """Several watchers of one connection."""

    def setUp(self) -> None:
        self.host = Host()
        self.other = self.host.connect(pid=8)
        self.everything = WatchState()
        self.named = WatchState(frozenset({"a", "b"}))
        self.connection = MemoryConnection(self.host.connect())

    def taken(self, state: WatchState) -> list[tuple[str, str]]:
        """The changes that wait."""
        found: list[tuple[str, str]] = [
            (kind, getattr(subject, "name", "mapping")) for kind, subject in state.changes
        ]
        state.changes.clear()
        return found

    def test_synchronise(self) -> None:
        """Every watcher gets what it watches."""
        self.other.register(("a", "80", 0), ("c", "82", 0))
        self.other.set((9, 1, "tcp", "0.0.0.0.0.80"))
        run(Watches(self.everything, self.named).synchronise(self.connection))
        self.assertEqual(self.connection.asked, ["Watch", "ListMappings", "List"])
        self.assertEqual(
            Counter(self.taken(self.everything)),
            Counter([("mapped", "mapping"), ("registered", "a"), ("registered", "c")]),
        )
        self.assertEqual(self.taken(self.named), [("registered", "a")])

    def test_names(self) -> None:
        """If all have names, the daemon is asked for these alone, and for no mappings."""
        self.other.register(("a", "80", 0), ("c", "82", 0))
        watching = Watches(self.named, WatchState(frozenset({"z"})))
        run(watching.synchronise(self.connection))
        self.assertEqual(self.connection.asked, ["Watch", "List"])
        self.other.deregister(("a", "80"), ("c", "82"))
        told = [change[1] for change in self.connection.session.told()]
        self.assertEqual(told, ["a"])

    def test_too_many_names(self) -> None:
        """Names that do not fit a message are watched all the same."""
        self.patch(watches, "MAX_NAMES", 5)
        self.other.register(("a", "80", 0), ("c", "82", 0))
        run(Watches(self.named).synchronise(self.connection))
        self.assertIn("ListMappings", self.connection.asked)
        self.assertEqual(self.taken(self.named), [("registered", "a")])

    def test_stale(self) -> None:
        """They are stale at first, when a watcher was added, and when events were left out."""
        watching = Watches()
        self.assertTrue(watching.is_stale)
        for make_stale in (
            lambda: watching.add(self.named),
            lambda: watching.take(Overflow()),
        ):
            run(watching.synchronise(self.connection))
            self.assertFalse(watching.is_stale)
            make_stale()
            self.assertTrue(watching.is_stale)

    def test_discard(self) -> None:
        """A watcher that was discarded is told nothing any more."""
        watching = Watches(self.everything, self.named)
        watching.discard(self.named)
        watching.take(Change("registered", A))
        self.assertEqual(self.taken(self.named), [])
        self.assertEqual(self.taken(self.everything), [("registered", "a")])

    def test_changes_between_pages(self) -> None:
        """What changes while pages come is told right, and once."""
        self.patch(listing, "MAX_LOOKED_AT", 2)
        self.other.register(*((name, "80", 0) for name in "pqrstu"))
        watching = Watches(self.everything)
        pages: list[str] = []

        def before(name: str) -> None:
            pages.append(name)
            if pages.count("List") == 2 and name == "List":
                self.other.register(("a", "80", 0))
                self.other.deregister(("p", "80"))
                for event in (
                    Change("registered", A),
                    Change("deregistered", A._replace(name="p")),
                ):
                    watching.take(event)

        run(watching.synchronise(MemoryConnection(self.host.connect(), before)))
        found = Counter(name for _, name in self.taken(self.everything))
        self.assertEqual(found, Counter("aqrstu"))
