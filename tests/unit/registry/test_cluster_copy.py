"""The copy of what a cluster shares."""

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from portmapd.registry.change import ChangeKind, ClusterChange
from portmapd.registry.cluster_copy import ClusterCopy
from portmapd.registry.shared import ClusterHost, SharedMapping, SharedService


def service(name: str, host: str = "one", pid: int = 7, exe: str = "") -> SharedService:
    """A service of a machine."""
    return SharedService(name, 1000, pid, "80", exe, host, "192.0.2.1")


MAPPING = SharedMapping(100_003, 4, "tcp", "192.0.2.1.8.1", "superuser", "one")
HOST = ClusterHost("one", "192.0.2.1", "abc", "1.0")


class ClusterCopyTests(SynchronousTestCase):
    """Changes, and what is seen of them."""

    def setUp(self) -> None:
        self.copy = ClusterCopy()
        self.told: list[ClusterChange] = []
        self.end = self.copy.follow(self.told.extend)

    def names(self, name: str) -> list[SharedService]:
        """The services of a name, in order."""
        return [found for _, found in self.copy.of(name)]

    def kinds(self) -> Sequence[tuple[ChangeKind, object]]:
        """What followers were told since the last time."""
        told, self.told[:] = [(each.kind, each.subject) for each in self.told], []
        return told

    def test_added(self) -> None:
        """Entries are found by name and in order, and followers are told."""
        first, second = service("a"), service("a", "two")
        self.copy.change({"1": first, "2": second, "3": MAPPING, "4": HOST})
        self.assertEqual(self.names("a"), [first, second])
        self.assertEqual([entry for _, entry in self.copy.after(0)], [first, second, MAPPING])
        self.assertEqual(
            self.kinds(),
            [
                (ChangeKind.REGISTERED, first),
                (ChangeKind.REGISTERED, second),
                (ChangeKind.MAPPED, MAPPING),
            ],
        )
        self.assertEqual((self.copy.hosts, len(self.copy)), ({"one": HOST}, 4))
        self.assertEqual(self.copy.counts, {"one": 1, "two": 1})

    def test_removed(self) -> None:
        """What is gone is found no more; unknown keys change nothing."""
        self.copy.change({"1": service("a"), "2": service("a", "two"), "3": MAPPING, "4": HOST})
        self.kinds()
        self.copy.change({}, ["1", "3", "4", "5"])
        self.assertEqual(self.names("a"), [service("a", "two")])
        self.assertEqual(
            self.kinds(),
            [(ChangeKind.DEREGISTERED, service("a")), (ChangeKind.UNMAPPED, MAPPING)],
        )
        self.copy.change({}, ["2"])
        self.assertEqual(self.names("a"), [])
        self.assertEqual((self.copy.hosts, len(self.copy), self.copy.counts), ({}, 0, {}))

    def test_one_key_again(self) -> None:
        """An entry that changes goes and comes; one that does not is not told of."""
        self.copy.change({"1": service("a")})
        self.kinds()
        self.copy.change({"1": service("a")})
        self.assertEqual(self.kinds(), [])
        self.copy.change({"1": service("a", exe="/bin/a")}, ["1"])
        self.assertEqual(
            self.kinds(),
            [
                (ChangeKind.DEREGISTERED, service("a")),
                (ChangeKind.REGISTERED, service("a", exe="/bin/a")),
            ],
        )
        self.assertEqual(self.copy.counts, {"one": 1})

    def test_replaced(self) -> None:
        """After a listing, followers are told of the difference alone."""
        self.copy.change({"1": service("a"), "2": service("b")})
        self.kinds()
        self.copy.change({"2": service("b"), "3": service("c")}, ["1"])
        self.assertEqual(
            self.kinds(),
            [(ChangeKind.DEREGISTERED, service("a")), (ChangeKind.REGISTERED, service("c"))],
        )
        self.assertEqual(self.copy.entries(), {"2": service("b"), "3": service("c")})

    def test_pages(self) -> None:
        """A listing goes on behind a serial, whatever was removed meanwhile."""
        self.copy.change({str(at): service(f"n{at}") for at in range(5)})
        places = [place for place, _ in self.copy.after(0)]
        self.copy.change({}, ["1", "3"])
        later = [found for _, found in self.copy.after(places[1])]
        self.assertEqual(later, [service("n2"), service("n4")])

    def test_no_follower(self) -> None:
        """Who follows no longer is told no more."""
        self.end()
        self.copy.change({"1": service("a")})
        self.assertEqual(self.told, [])
