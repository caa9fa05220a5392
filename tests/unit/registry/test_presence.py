"""Whose an address must be for a mapping to be registered."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.registry.mapping import NOBODY, Mapping, Users, mapping
from portmapd.registry.presence import is_wrong, see

ADDRESS = "0.0.0.0.0.9"
#: Owner of the mapping, who has the address when it is first seen, and whose it may be later.
OWNERS: list[tuple[str, set[int | None], set[int | None]]] = [
    ("superuser", {0}, {0}),
    ("superuser", {105}, {0, 105}),
    ("104", {104}, {104}),
    ("104", {0}, {0, 104}),
    ("unknown", {105}, {105}),
    ("unknown", {105, 106}, {105, 106}),
    ("unknown", {None}, {None}),
]
EVERYONE: set[int | None] = {0, 104, 105, 106, None}


def seen_by(owner: str, users: Users) -> Mapping:
    """A mapping that was first seen like that."""
    made = mapping(7, 1, "udp", ADDRESS, owner)
    see(made, users)
    return made


class PresenceTests(SynchronousTestCase):
    """Registered and suspended mappings."""

    def test_users(self) -> None:
        """It is its owner's, and theirs who had it first; nobody else's."""
        for owner, seen, users in OWNERS:
            found = seen_by(owner, frozenset(seen))
            for user in EVERYONE:
                now, what = frozenset((user,)), (owner, seen, user)
                self.assertEqual(is_wrong(found, now, False), user not in users, what)
                self.assertEqual(is_wrong(found, now, True), user in users, what)

    def test_unbound(self) -> None:
        """An address that nobody has bound is nobody's."""
        for owner, seen, _ in OWNERS:
            found = seen_by(owner, frozenset(seen))
            self.assertTrue(is_wrong(found, NOBODY, False))
            self.assertFalse(is_wrong(found, NOBODY, True))

    def test_never_seen(self) -> None:
        """A service that was never seen, in another network namespace, say, is left alone."""
        for owner, _, _ in OWNERS:
            for users in (NOBODY, frozenset((105,))):
                self.assertFalse(is_wrong(seen_by(owner, NOBODY), users, False))

    def test_seen_once(self) -> None:
        """Whoever shares the address later gains nothing."""
        found = seen_by("unknown", frozenset((105,)))
        self.assertFalse(see(found, frozenset((105, 106))))
        self.assertTrue(is_wrong(found, frozenset((106,)), False))
        self.assertFalse(is_wrong(found, frozenset((105, 106)), False))

    def test_shared(self) -> None:
        """What is known alike of a hundred thousand services is kept once."""
        one, other = (seen_by("superuser", frozenset((105,))) for _ in range(2))
        self.assertIs(one.users, other.users)
