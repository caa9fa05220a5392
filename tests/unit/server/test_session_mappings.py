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

    def test_spellings(self) -> None:
        """An address is the same in every spelling; it is listed in one."""
        for netid, canonical, spellings in (
            ("tcp6", "::.0.80", ("0:0:0:0:0:0:0:0.0.80", "::0.0.0.0.0.80", "0.0.0.0.0.80")),
            ("udp6", "::1.0.80", ("0:0:0:0:0:0:0:1.0.80", "0::0001.000.80")),
            ("tcp", "0.0.0.0.0.80", ("::.0.80", "::ffff:0.0.0.0.0.80")),
            ("tcp", "127.0.0.1.0.80", ("::ffff:127.0.0.1.0.80", "::FFFF:7f00:1.0.80")),
        ):
            every = (canonical, *spellings)
            for spelling in every:
                self.connection.set((9, 1, netid, spelling))
                self.assertEqual(self.connection.mappings(), [(9, 1, netid, canonical, "104")])
                for other in every:
                    taken = (9, 1, netid, other)
                    self.refused(AlreadyRegistered, canonical, self.connection.set, taken)
                for other in every:
                    self.connection.unset((9, 1, netid, other))
                    self.connection.set((9, 1, netid, spelling))
                self.connection.unset((9, 1, netid, canonical))

    def test_impossible(self) -> None:
        """What is not an address is not set."""
        self.connection.set(TCP)
        for address in ("", "x", "127.0.0.1", "::1.0.80", "127.0.0.1.0.080.1", "127.0.0.1.1.336"):
            missing = (*TCP[:3], address)
            self.refused(NotRegistered, "program 9", self.connection.unset, missing)
        self.assertEqual(len(self.connection.mappings()), 1)

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
