"""SetMappings and UnsetMappings: every rule, on a connection without a socket."""

from portmapd.errors import (
    AlreadyRegistered,
    InvalidMapping,
    NotRegistered,
)
from portmapd.registry.mapping import mapping
from tests.support.channel_sessions import SessionTestCase

#: Mappings that are not valid, and what the refusal names.
INVALID_MAPPINGS: list[tuple[int, int, str, str, str]] = [
    (-1, 1, "tcp", "127.0.0.1.0.80", "program"),
    (1 << 32, 1, "tcp", "127.0.0.1.0.80", "program"),
    (9, -1, "tcp", "127.0.0.1.0.80", "version"),
    (9, 1 << 32, "tcp", "127.0.0.1.0.80", "version"),
    (9, 1, "sctp", "127.0.0.1.0.80", "netid 'sctp'"),
    (9, 1, "", "127.0.0.1.0.80", "netid"),
    (9, 1, "tcp", "127.0.0.1.0.0", "address"),
    (9, 1, "tcp", "::1.0.80", "address"),
    (9, 1, "tcp6", "127.0.0.1.0.80", "address"),
    (9, 1, "tcp", "", "address"),
    (9, 1, "local", "run", "address"),
    (100000, 5, "tcp", "127.0.0.1.0.80", "program 100000"),
]
TCP = (9, 1, "tcp", "127.0.0.1.0.80")
UDP = (9, 1, "udp", "127.0.0.1.0.80")
LOCAL = (9, 1, "local", "/run/s")


class MappingTests(SessionTestCase):
    """SetMappings, UnsetMappings and ListMappings."""

    def test_listed(self) -> None:
        """Mappings belong to the peer's user, or to the superuser."""
        self.connection.set(TCP, LOCAL)
        self.host.connect(uid=0, pid=8).set(UDP)
        self.assertEqual(
            self.connection.mappings(), [(*LOCAL, "104"), (*TCP, "104"), (*UDP, "superuser")]
        )

    def test_invalid(self) -> None:
        """A field out of its range or form is refused, named, and nothing is set."""
        for *new, field in INVALID_MAPPINGS:
            self.refused(InvalidMapping, field, self.connection.set, UDP, tuple(new))
        self.assertEqual(self.connection.mappings(), [])

    def test_taken(self) -> None:
        """A program's version has one address a netid, whoever set it."""
        self.host.registry.map(mapping(*TCP))
        self.refused(AlreadyRegistered, "owner superuser", self.connection.set, UDP, TCP)
        self.refused(AlreadyRegistered, "program 9 version 1", self.connection.set, UDP, UDP)
        self.host.connect(pid=8).set(UDP)
        for again in (UDP, (*UDP[:3], "127.0.0.1.0.81")):
            self.refused(AlreadyRegistered, "pid 8", self.connection.set, LOCAL, again)
        self.assertEqual(len(self.connection.mappings()), 2)

    def test_unset(self) -> None:
        """One goes, the others stay."""
        self.connection.set(TCP, UDP, LOCAL)
        self.connection.unset(TCP, TCP, LOCAL)
        self.assertEqual(self.connection.mappings(), [(*UDP, "104")])
        self.connection.set(TCP)

    def test_not_set(self) -> None:
        """What this connection did not set, just so, it cannot unset, and then unsets nothing."""
        self.connection.set(TCP)
        self.host.connect().set(UDP)
        for missing in (UDP, LOCAL, (*TCP[:3], "127.0.0.1.0.81"), (9, 2, *TCP[2:])):
            self.refused(NotRegistered, "program 9", self.connection.unset, TCP, missing)
        self.assertEqual(len(self.connection.mappings()), 2)

    def test_removed_elsewhere(self) -> None:
        """What the superuser removed counts no more, and can be set again."""
        self.connection.set(TCP)
        self.host.registry.unmap(*self.host.registry.mappings)
        self.assertEqual(self.connection.holder.allowances.mappings.held, 0)
        self.refused(NotRegistered, "tcp", self.connection.unset, TCP)
        self.connection.set(TCP)
