"""The rows of the status page."""

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import PUBLIC
from portmapd.web.inventory import Inventory, Row


class InventoryTests(SynchronousTestCase):
    """What is registered, and since when."""

    def setUp(self) -> None:
        self.registry = Registry()
        self.time = 1_000.0
        self.told: list[tuple[Row, bool]] = []
        self.inventory = Inventory(self.registry, lambda: self.time, {100003: "nfs"}, self.changed)

    def changed(self, rows: Sequence[tuple[Row, bool]]) -> None:
        """Keep what is told."""
        self.told += rows

    def rows(self, is_local: bool = True) -> list[Row]:
        """All rows."""
        return [row for page in self.inventory.pages(is_local) for row in page]

    def test_services(self) -> None:
        """A service has a row from when it is registered until it is gone."""
        holder = self.registry.open(Holder(5, 7, exe="/bin/x"))
        self.time = 2_000.4
        self.registry.register(
            holder.new_service("a", "80", PUBLIC), holder.new_service("b", "/run/b", 0)
        )
        self.time = 3_000.0
        first = ["service", "s1.1", "a", 5, 7, "80", "/bin/x", 2_000]
        second = ["service", "s1.2", "b", 5, 7, "/run/b", "", 2_000]
        self.assertEqual(self.rows(), [first, second])
        self.assertEqual(self.rows(is_local=False), [first])
        self.assertEqual(self.told, [(first, True), (second, False)])
        self.told.clear()
        self.registry.close(holder)
        self.assertEqual(self.told, [(["gone", "s1.1"], True), (["gone", "s1.2"], False)])
        self.assertEqual(self.rows(), [])

    def test_announcements(self) -> None:
        """That a process announces its executable is no service."""
        holder = self.registry.open(Holder(0, 1, exe="/bin/x"))
        self.registry.register(holder.new_service("pid2exe.portmapd", "*", PUBLIC))
        self.assertEqual((self.rows(), self.told), ([], []))

    def test_mappings(self) -> None:
        """A mapping is alive or paused, each since its time, and gone in the end."""
        nfs = mapping(100003, 3, "udp", "0.0.0.0.8.1")
        cells = ["mapping", "m100003.3.udp", 100003, "nfs", 3, "udp", "0.0.0.0.8.1", "superuser"]
        for time, change, state in (
            (2_000, self.registry.map, "alive"),
            (3_000, self.registry.suspend, "paused"),
            (4_000, self.registry.resume, "alive"),
        ):
            self.time = float(time)
            change(nfs)
            self.assertEqual(self.rows(), [[*cells, state, time]])
            self.assertEqual(self.told[-1], ([*cells, state, time], True))
        self.registry.unmap(nfs)
        self.assertEqual(self.told[-1], (["gone", "m100003.3.udp"], True))
        self.registry.map(nfs)
        self.registry.suspend(nfs)
        self.registry.forget(nfs)
        self.assertEqual(self.told[-1], (["gone", "m100003.3.udp"], True))
        self.assertEqual(self.rows(), [])

    def test_before(self) -> None:
        """What was registered before is as old as the page."""
        self.registry.map(mapping(7, 1, "tcp", "0.0.0.0.0.7"))
        later = Inventory(self.registry, lambda: 9_000.0, {}, self.changed)
        (rows,) = later.pages(is_local=True)
        self.assertEqual(rows[0][-1], 9_000)

    def test_close(self) -> None:
        """Nothing is told any more."""
        self.inventory.close()
        self.registry.map(mapping(7, 1, "tcp", "0.0.0.0.0.7"))
        self.assertEqual(self.told, [])
