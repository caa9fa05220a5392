"""A registry that passes from one process to another."""

import json

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidState
from portmapd.registry.change import ChangeKind
from portmapd.registry.holder import Holder
from portmapd.registry.image import Known, read_image, take_image
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import EXCLUSIVE, PUBLIC

SET = mapping(100_024, 1, "udp", "0.0.0.0.182.50", "103")
PAUSED = mapping(100_005, 3, "tcp", "0.0.0.0.78.80", "superuser")
UNHELD: list[Known] = [(SET, frozenset((103, None)), None), (PAUSED, frozenset((0,)), 42.5)]


def filled() -> Registry:
    """A registry with some of everything."""
    registry = Registry()
    first = registry.open(Holder(104, 7, "/bin/service"))
    second = registry.open(Holder(105, 8))
    registry.close(registry.open(Holder(106, 9)))
    registry.register(first.new_service("a", "1", PUBLIC), first.new_service("b", "2", 0))
    registry.register(second.new_service("b", "3", EXCLUSIVE))
    registry.register(first.new_service("c", "4", 0))
    registry.deregister(first, ("b", "2"))
    registry.register(first.new_service("b", "5", 0))
    registry.map(mapping(200_000, 1, "tcp", "127.0.0.1.0.9", "104", first))
    return registry


class MoveTests(SynchronousTestCase):
    """What a process has of itself, in the one that takes its place."""

    def test_told(self) -> None:
        """The holder is the new process's, and so followers are told."""
        registry = Registry()
        holder = registry.open(Holder(0, 7))
        registry.register(holder.new_service("a", "1", 0))
        told: list[tuple[ChangeKind, int]] = []
        registry.follow(
            lambda changes: told.extend((each.kind, holder.pid) for each in changes), *ChangeKind
        )
        registry.move(holder, 104, 8)
        self.assertEqual(told, [(ChangeKind.DEREGISTERED, 7), (ChangeKind.REGISTERED, 8)])
        self.assertEqual(([*registry.holders_of(7)], [*registry.holders_of(8)]), ([], [holder]))
        self.assertEqual([(s.uid, s.pid) for s in registry.services()], [(104, 8)])


class ImageTests(SynchronousTestCase):
    """Taken, read, and made anew."""

    def setUp(self) -> None:
        self.old = filled()
        self.data = json.loads(json.dumps(take_image(self.old, UNHELD)))

    def test_round_trip(self) -> None:
        """Everything is as it was: whose it is, its order, its limits, its counts."""
        image, new = read_image(self.data), Registry()
        told: list[object] = []
        new.follow(told.append, *ChangeKind)
        holders = image.admit(new)
        image.register(new, holders)
        image.count(new)
        for before, after in zip(self.old.holders_after(0), holders.values(), strict=True):
            self.assertEqual((before.serial, before.pid), (after.serial, after.pid))
            self.assertEqual([*before.services], [*after.services])
            self.assertEqual(before.allowances.services.held, after.allowances.services.held)
            self.assertEqual(before.allowances.mappings.held, after.allowances.mappings.held)
        names = [[(s.port, s.pid) for s in each.names.of("b")] for each in (self.old, new)]
        self.assertEqual(names[0], names[1])
        self.assertEqual([*self.old.mappings], [*new.mappings])
        self.assertTrue(new.has_public(7))
        self.assertEqual((self.old.changes, told), (new.changes, []))
        unheld = [(each.mapping, each.users, each.left) for each in image.unheld]
        self.assertEqual(unheld, UNHELD)
        # What comes then has a place behind what was there.
        self.assertEqual(new.open(Holder(1, 1)).serial, self.old.open(Holder(1, 1)).serial)
        serials = [each.new_service("d", "6", 0).serial for each in (holders[1], self.first())]
        self.assertEqual(serials[0], serials[1])

    def first(self) -> Holder:
        """The first holder of the old registry."""
        return next(self.old.holders_after(0))

    def test_malformed(self) -> None:
        """What lacks something, or has something else in its place, is refused."""
        for key in self.data:
            for wrong in (None, 7, [[1]], ["x"]):
                if (key, wrong) == ("serial", 7):
                    continue
                data = {**self.data, key: wrong}
                with self.assertRaises(InvalidState, msg=f"{key}: {wrong}"):
                    image, registry = read_image(data), Registry()
                    image.register(registry, image.admit(registry))
                    image.count(registry)
            with self.assertRaises(InvalidState):
                read_image({each: value for each, value in self.data.items() if each != key})
