"""Whose an address must be for a mapping to be registered."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.registry.mapping import mapping
from portmapd.registry.presence import NOBODY, Presence, Users

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


def presence(owner: str, seen: Users, forgotten_at: float | None = None) -> Presence:
    """What is known of a mapping that was first seen like that."""
    made = Presence(mapping(7, 1, "udp", ADDRESS, owner), forgotten_at=forgotten_at)
    made.see(seen)
    return made


class PresenceTests(SynchronousTestCase):
    """Registered and suspended mappings."""

    def test_users(self) -> None:
        """It is its owner's, and theirs who had it first; nobody else's."""
        for owner, seen, users in OWNERS:
            registered = presence(owner, frozenset(seen))
            suspended = presence(owner, frozenset(seen), 60.0)
            for user in EVERYONE:
                now = frozenset((user,))
                self.assertEqual(registered.is_wrong(now), user not in users, (owner, seen, user))
                self.assertEqual(suspended.is_wrong(now), user in users, (owner, seen, user))

    def test_unbound(self) -> None:
        """An address that nobody has bound is nobody's."""
        for owner, seen, _ in OWNERS:
            self.assertTrue(presence(owner, frozenset(seen)).is_wrong(NOBODY))
            self.assertFalse(presence(owner, frozenset(seen), 60.0).is_wrong(NOBODY))

    def test_never_seen(self) -> None:
        """A service that was never seen, in another network namespace, say, is left alone."""
        for owner, _, _ in OWNERS:
            for users in (NOBODY, frozenset((105,))):
                self.assertFalse(presence(owner, NOBODY).is_wrong(users))

    def test_seen_once(self) -> None:
        """Whoever shares the address later gains nothing."""
        found = presence("unknown", frozenset((105,)))
        found.see(frozenset((105, 106)))
        self.assertTrue(found.is_wrong(frozenset((106,))))
        self.assertFalse(found.is_wrong(frozenset((105, 106))))
