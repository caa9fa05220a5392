"""What a machine shares, and what of it is still to be written."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.cluster.entry import Layout
from portmapd.cluster.published import Published
from portmapd.cluster.reached import Reached
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import SHARED

KEY = "/p/services/one/a/1000/7/80"


class PublishedTests(SynchronousTestCase):
    """The registry changes, and so does what is to be written."""

    def setUp(self) -> None:
        self.registry = Registry()
        self.holder = self.registry.open(Holder(1000, 7))
        self.told = 0
        reached = Reached("192.0.2.1", frozenset({100_003}))
        self.published = Published(Layout("/p/"), "one", reached, self.tell)
        self.end = self.published.follow(self.registry)

    def tell(self) -> None:
        """There is something to write."""
        self.told += 1

    def register(self, holder: Holder, flags: int = SHARED) -> None:
        """Register a service."""
        self.registry.register(holder.new_service("a", "80", flags))

    def test_written(self) -> None:
        """What is shared is written, then deleted; all else is nobody's business."""
        self.register(self.holder)
        self.registry.register(self.holder.new_service("b", "81", 0))
        self.assertEqual(list(self.published.take(9)), [KEY])
        self.assertEqual((len(self.published), self.told), (0, 1))
        self.registry.close(self.holder)
        self.assertEqual(self.published.take(9), {KEY: None})

    def test_twice(self) -> None:
        """What a process registers on two connections is one entry, until both are gone."""
        other = self.registry.open(Holder(1000, 7))
        self.register(self.holder)
        self.register(other)
        self.published.take(9)
        self.registry.close(other)
        self.assertEqual(len(self.published), 0)
        self.registry.close(self.holder)
        self.assertEqual(self.published.take(9), {KEY: None})

    def test_there_before(self) -> None:
        """What was registered before is shared, too; after the end nothing is."""
        self.end()
        self.register(self.holder)
        self.assertEqual(len(self.published), 0)
        self.published.follow(self.registry)
        self.assertEqual(list(self.published.take(9)), [KEY])

    def test_put_back(self) -> None:
        """What was not written is written later, as it is then."""
        self.register(self.holder)
        batch = self.published.take(9)
        self.registry.close(self.holder)
        self.published.put_back(batch)
        self.assertEqual(self.published.take(9), {KEY: None})

    def test_compared(self) -> None:
        """What etcd lacks, or has differently, is written; what is not wanted is told."""
        self.register(self.holder)
        value = self.published.take(9)[KEY]
        assert value is not None
        self.published.compare({KEY: value})
        self.assertEqual(len(self.published), 0)
        self.published.compare({KEY: b"{}"})
        self.assertEqual(self.published.take(9), {KEY: value})
        self.assertEqual(self.published.unwanted([KEY, "/p/x"]), ["/p/x"])

    def test_mappings(self) -> None:
        """Mappings of some programs are shared, at an address that others reach."""
        shared = mapping(100_003, 4, "tcp", "0.0.0.0.8.1")
        for each in (
            shared,
            mapping(100_003, 4, "udp", "127.0.0.1.8.1"),
            mapping(100_003, 4, "tcp6", "::.8.1"),
            mapping(100_003, 4, "local", "/run/nfs"),
            mapping(100_005, 3, "tcp", "0.0.0.0.8.2"),
        ):
            self.registry.map(each)
        ((key, value),) = self.published.take(9).items()
        self.assertEqual(key, "/p/mappings/one/100003/4/tcp")
        self.assertIn(b"192.0.2.1.8.1", value or b"")
        self.registry.unmap(shared)
        self.assertEqual(self.published.take(9), {key: None})


class ReachedTests(SynchronousTestCase):
    """Where other machines reach a mapping."""

    def test_addresses(self) -> None:
        """A wildcard becomes the machine's address; its own address stays."""
        for address, netid, bound, expected in (
            ("192.0.2.1", "tcp", "0.0.0.0.8.1", "192.0.2.1.8.1"),
            ("192.0.2.1", "udp", "192.0.2.7.8.1", "192.0.2.7.8.1"),
            ("192.0.2.1", "udp6", "2001:db8::7.8.1", "2001:db8::7.8.1"),
            ("2001:db8::1", "tcp6", "::.8.1", "2001:db8::1.8.1"),
            ("2001:db8::1", "tcp", "0.0.0.0.8.1", None),
            ("192.0.2.1", "tcp6", "::1.8.1", None),
            ("192.0.2.1", "tcp6", "fe80::1%eth0.8.1", None),
        ):
            reached = Reached(address, None)
            self.assertEqual(reached.address_of(mapping(9, 1, netid, bound)), expected, bound)
        own = mapping(100_000, 2, "tcp", "0.0.0.0.0.111")
        self.assertIsNone(Reached("192.0.2.1", None).address_of(own))
