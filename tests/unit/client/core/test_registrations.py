"""What is registered through a client: groups, and what leaves them."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.core.registrations import Group, Registrations

A, B, PATH = ("a", "80", 0), ("b", "81", 1), ("a", "/run/a", 2)
ON_80 = (9, 1, "tcp", "0.0.0.0.0.80")
ON_81 = (9, 1, "tcp6", "::.0.81")
ON_PATH = (9, 1, "local", "/run/a")


class RegistrationsTests(SynchronousTestCase):
    """What is registered again, and in which groups."""

    def setUp(self) -> None:
        self.registrations = Registrations()

    def registered(self, *groups: Group) -> None:
        """Assert that these groups are registered, in this order."""
        self.assertEqual(list(self.registrations), list(groups))
        self.assertEqual(bool(self.registrations), bool(groups))

    def test_groups(self) -> None:
        """Groups keep the order of registration; an empty one is left out."""
        first, second = Group((A, B)), Group((PATH,), (ON_PATH,))
        self.registrations.add(first)
        self.registrations.add(Group())
        self.registrations.add(second)
        self.registered(first, second)

    def test_discard(self) -> None:
        """A lost group is discarded; one that is not registered does no harm."""
        self.registrations.add(Group((A,)))
        self.registrations.discard(Group((B,)))
        self.registered(Group((A,)))
        self.registrations.discard(Group((A,)))
        self.registered()

    def test_clear(self) -> None:
        """Nothing is registered when everything was abandoned."""
        self.registrations.add(Group((A,)))
        self.registrations.clear()
        self.registered()

    def test_deregistered(self) -> None:
        """What is deregistered leaves its group, and the rest stays."""
        self.registrations.add(Group((A, B)))
        self.registrations.add(Group((PATH,)))
        self.assertEqual(self.registrations.deregistered([("a", "80"), ("c", "82")]), ())
        self.registered(Group((B,)), Group((PATH,)))
        self.registrations.deregistered([("b", "81")])
        self.registered(Group((PATH,)))

    def test_mapping_goes_with_its_port(self) -> None:
        """A mapping that came with a service goes with the last service on its port."""
        for service, mapping in ((A, ON_80), (B, ON_81), (PATH, ON_PATH)):
            other = ("other", service[1], 0)
            registrations = self.registrations = Registrations()
            registrations.add(Group((service, other), (mapping,)))
            self.assertEqual(registrations.deregistered([service[:2]]), ())
            self.assertEqual(registrations.deregistered([other[:2]]), (mapping,))
            self.registered()

    def test_other_mappings_stay(self) -> None:
        """Mappings of other ports, and those that came alone, stay."""
        self.registrations.add(Group((A, B), (ON_80, ON_81)))
        self.registrations.add(Group((), (ON_PATH,)))
        self.assertEqual(self.registrations.deregistered([("a", "80")]), (ON_80,))
        self.registered(Group((B,), (ON_81,)), Group((), (ON_PATH,)))

    def test_unset(self) -> None:
        """A mapping that is unset leaves its group, and its service stays."""
        self.registrations.add(Group((A,), (ON_80,)))
        self.registrations.add(Group((), (ON_81,)))
        self.registrations.unset(ON_80)
        self.registrations.unset(ON_81)
        self.registered(Group((A,)))

    def test_unset_in_another_spelling(self) -> None:
        """However its address is written, the mapping is not registered again."""
        self.registrations.add(Group((), ((7, 1, "tcp6", "::.0.80"), (7, 2, "tcp6", "::.0.80"))))
        self.registrations.unset((7, 1, "tcp6", "0:0:0:0:0:0:0:0.0.80"))
        self.registered(Group((), ((7, 2, "tcp6", "::.0.80"),)))

    def test_unset_then_deregistered(self) -> None:
        """What was unset already is not unset with its service."""
        self.registrations.add(Group((A,), (ON_80,)))
        self.registrations.unset(ON_80)
        self.assertEqual(self.registrations.deregistered([("a", "80")]), ())
        self.registered()

    def test_changes_while_iterating(self) -> None:
        """Groups may be discarded while they are gone through."""
        self.registrations.add(Group((A,)))
        self.registrations.add(Group((B,)))
        for group in self.registrations:
            self.registrations.discard(group)
        self.registered()
