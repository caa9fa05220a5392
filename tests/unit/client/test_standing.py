"""What stands through a client: groups, and what leaves them."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.standing import Group, Standing

A, B, PATH = ("a", "80", 0), ("b", "81", 1), ("a", "/run/a", 2)
ON_80 = (9, 1, "tcp", "0.0.0.0.0.80")
ON_81 = (9, 1, "tcp6", "::.0.81")
ON_PATH = (9, 1, "local", "/run/a")


class StandingTests(SynchronousTestCase):
    """What is registered again, and in which groups."""

    def setUp(self) -> None:
        self.standing = Standing()

    def stands(self, *groups: Group) -> None:
        """Assert that these groups stand, in this order."""
        self.assertEqual(list(self.standing), list(groups))
        self.assertEqual(bool(self.standing), bool(groups))

    def test_groups(self) -> None:
        """Groups stand in the order of registration; an empty one does not."""
        first, second = Group((A, B)), Group((PATH,), (ON_PATH,))
        self.standing.add(first)
        self.standing.add(Group())
        self.standing.add(second)
        self.stands(first, second)

    def test_discard(self) -> None:
        """A group that was lost stands no more; one that does not stand does no harm."""
        self.standing.add(Group((A,)))
        self.standing.discard(Group((B,)))
        self.stands(Group((A,)))
        self.standing.discard(Group((A,)))
        self.stands()

    def test_clear(self) -> None:
        """Nothing stands when everything was abandoned."""
        self.standing.add(Group((A,)))
        self.standing.clear()
        self.stands()

    def test_deregistered(self) -> None:
        """What is deregistered leaves its group, and the rest stands."""
        self.standing.add(Group((A, B)))
        self.standing.add(Group((PATH,)))
        self.assertEqual(self.standing.deregistered([("a", "80"), ("c", "82")]), ())
        self.stands(Group((B,)), Group((PATH,)))
        self.standing.deregistered([("b", "81")])
        self.stands(Group((PATH,)))

    def test_mapping_goes_with_its_port(self) -> None:
        """A mapping that came with a service goes with the last service on its port."""
        for service, mapping in ((A, ON_80), (B, ON_81), (PATH, ON_PATH)):
            other = ("other", service[1], 0)
            standing = self.standing = Standing()
            standing.add(Group((service, other), (mapping,)))
            self.assertEqual(standing.deregistered([service[:2]]), ())
            self.assertEqual(standing.deregistered([other[:2]]), (mapping,))
            self.stands()

    def test_other_mappings_stay(self) -> None:
        """Mappings of other ports, and those that came alone, stay."""
        self.standing.add(Group((A, B), (ON_80, ON_81)))
        self.standing.add(Group((), (ON_PATH,)))
        self.assertEqual(self.standing.deregistered([("a", "80")]), (ON_80,))
        self.stands(Group((B,), (ON_81,)), Group((), (ON_PATH,)))

    def test_unset(self) -> None:
        """A mapping that is unset leaves its group, and its service stays."""
        self.standing.add(Group((A,), (ON_80,)))
        self.standing.add(Group((), (ON_81,)))
        self.standing.unset([ON_80, ON_81])
        self.stands(Group((A,)))

    def test_unset_then_deregistered(self) -> None:
        """What was unset already is not unset with its service."""
        self.standing.add(Group((A,), (ON_80,)))
        self.standing.unset([ON_80])
        self.assertEqual(self.standing.deregistered([("a", "80")]), ())
        self.stands()

    def test_changes_while_iterating(self) -> None:
        """Groups may be discarded while they are gone through."""
        self.standing.add(Group((A,)))
        self.standing.add(Group((B,)))
        for group in self.standing:
            self.standing.discard(group)
        self.stands()
