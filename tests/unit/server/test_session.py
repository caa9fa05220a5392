"""Hello, Register and Deregister: every rule, on a connection without a socket."""

from portmapd.channel import commands as c
from portmapd.errors import (
    AlreadyRegistered,
    InvalidService,
    LimitExceeded,
    NotRegistered,
    ReservedName,
    RestartFailed,
    UnsupportedVersion,
)
from tests.support.channel_sessions import SessionTestCase

#: Services that are not valid, and what the refusal names.
INVALID_SERVICES: list[tuple[str, str, int, str]] = [
    ("", "80", 0, "name"),
    ("a" * 256, "80", 0, "name"),
    ("é" * 128, "80", 0, "name"),
    ("a b", "80", 0, "name 'a b'"),
    (" a", "80", 0, "name ' a'"),
    ("a\n", "80", 0, "name"),
    ("a\0", "80", 0, "name"),
    ("a\x7f", "80", 0, "name"),
    ("a\x85", "80", 0, "name"),
    ("a\u2028b", "80", 0, "name"),
    ("a", "", 0, "port"),
    ("a", "0", 0, "port '0'"),
    ("a", "080", 0, "port '080'"),
    ("a", "65536", 0, "port '65536'"),
    ("a", "100000", 0, "port"),
    ("a", "-1", 0, "port"),
    ("a", "+80", 0, "port"),
    ("a", " 80", 0, "port"),
    ("a", "8_0", 0, "port"),
    ("a", "\u0661", 0, "port"),
    ("a", "http", 0, "port"),
    ("a", "*", 0, "port"),
    ("a", "run/s", 0, "port"),
    ("a", "/run/\n", 0, "port"),
    ("a", "/" + "x" * 107, 0, "port"),
    ("a", "80", 8, "flags 8"),
    ("a", "/run/s", 4, "port '/run/s'"),
    ("a", "80", -1, "flags -1"),
    ("a", "80", 1 << 64, "flags"),
    ("pid2exe.portmapd", "80", 2, "pid2exe"),
    ("pid2exe.portmapd", "*", 0, "pid2exe"),
    ("pid2exe.portmapd", "*", 3, "pid2exe"),
]
#: Services at the edge of what is valid.
VALID_SERVICES: list[tuple[str, str, int]] = [
    ("a", "1", 0),
    ("a" * 255, "65535", 1),
    ("drucker.größe.example", "80", 2),
    ("someone@example.com", "/run/s", 3),
    ("portmapd", "/", 0),
    ("a.portmapd.b", "/" + "x" * 106, 0),
    ("\N{PRINTER}", "/run/with a space", 0),
]
TCP = (9, 1, "tcp", "127.0.0.1.0.80")
UDP = (9, 1, "udp", "127.0.0.1.0.80")
LOCAL = (9, 1, "local", "/run/s")


class HelloTests(SessionTestCase):
    """Hello."""

    def test_hello(self) -> None:
        """The daemon tells its version and instance, and what it sees of the peer."""
        expected = {"version": 1, "instance": "b1946ac9", "limit": 10, "uid": 104, "pid": 7}
        self.assertEqual(self.connection.hello(), expected)

    def test_other_versions(self) -> None:
        """Any other version is refused, with the one that is spoken."""
        for version in (0, 2, -1, 1 << 40):
            said = self.refused(UnsupportedVersion, "version", self.connection.hello, version)
            self.assertIn("speaks 1", said)


class RegisterTests(SessionTestCase):
    """Register: fields, conflicts, the limit; all or nothing."""

    def test_listed(self) -> None:
        """What is registered is listed, with who the peer is."""
        self.connection.register(("a", "80", 0), ("b", "/run/b", 1), ("c", "81", 2))
        self.assertEqual(
            self.connection.services(),
            [("a", 104, 7, "80", ""), ("b", 104, 7, "/run/b", ""), ("c", 104, 7, "81", "/bin/a")],
        )

    def test_nothing(self) -> None:
        """To register no service at all is done at once."""
        self.connection.register()
        self.assertEqual(self.names(), [])

    def test_valid(self) -> None:
        """All that the rules allow is taken."""
        self.connection.register(*VALID_SERVICES)
        self.assertEqual(
            [(name, port) for name, _, _, port, _ in self.connection.services()],
            [(name, port) for name, port, _ in VALID_SERVICES],
        )

    def test_invalid(self) -> None:
        """All else is refused, names the field, and nothing is registered."""
        for name, port, flags, field in INVALID_SERVICES:
            new = (name, port, flags)
            self.refused(InvalidService, field, self.connection.register, ("ok", "1", 0), new)
        self.assertEqual(self.names(), [])

    def test_reserved(self) -> None:
        """The port mapper's own names are refused."""
        for name in ("portmapd.portmapd", "a.portmapd", ".portmapd"):
            new = (name, "80", 0)
            self.refused(ReservedName, f"'{name}'", self.connection.register, ("ok", "1", 0), new)
        self.assertEqual(self.names(), [])

    def test_shared(self) -> None:
        """A name that is not exclusive has any number of services, here and elsewhere."""
        self.connection.register(("a", "80", 0))
        self.connection.register(("a", "81", 2), ("a", "/run/a", 0))
        self.host.connect(pid=8).register(("a", "80", 0))
        self.assertEqual(self.names(), ["a"] * 4)

    def test_exclusive(self) -> None:
        """A name is exclusive against new and existing services of the same user."""
        for existing, new in ((1, 0), (1, 1), (0, 1), (3, 2)):
            for other in (self.connection, self.host.connect(), self.host.connect(pid=8)):
                self.connection.register(("a", "80", existing))
                said = self.refused(AlreadyRegistered, "uid 104", other.register, ("a", "81", new))
                self.assertIn("a is registered", said)
                self.assertIn("pid 7", said)
                self.connection.deregister(("a", "80"))
        self.assertEqual(self.names(), [])

    def test_exclusive_in_one_call(self) -> None:
        """The services of one call do not conflict with each other."""
        self.connection.register(("a", "80", 1), ("a", "81", 1), ("a", "82", 0))
        self.assertEqual(self.names(), ["a"] * 3)
        self.assertRaises(AlreadyRegistered, self.connection.register, ("a", "83", 0))
        self.connection.deregister(("a", "80"))
        self.assertRaises(AlreadyRegistered, self.connection.register, ("a", "83", 0))
        self.connection.deregister(("a", "81"))
        self.connection.register(("a", "83", 0))

    def test_users_do_not_conflict(self) -> None:
        """The same name, exclusive for each of several users."""
        for uid in (104, 105, 0):
            self.host.connect(uid, uid + 1000).register(("a", "80", 1))
        self.assertEqual([row[1] for row in self.connection.services()], [104, 105, 0])

    def test_twice(self) -> None:
        """The same name and port twice on one connection is refused."""
        new = ("a", "80", 0)
        self.refused(
            AlreadyRegistered,
            "name a: port 80 is listed twice",
            self.connection.register,
            new,
            new,
        )
        self.assertEqual(self.names(), [])
        self.connection.register(new)
        self.refused(
            AlreadyRegistered,
            "name a: port 80 is already registered",
            self.connection.register,
            ("b", "1", 0),
            new,
        )
        self.assertEqual(self.names(), ["a"])

    def test_limit(self) -> None:
        """A process may hold so many services, all its connections together."""
        second = self.host.connect()
        self.connection.register(*((f"a{number}", "80", 0) for number in range(9)))
        more = [("b", "80", 0), ("c", "80", 0)]
        limit = "10 services (--max-services)"
        said = self.refused(LimitExceeded, limit, second.register, *more)
        self.assertIn("this one holds 9", said)
        second.register(more[0])
        self.refused(LimitExceeded, limit, self.connection.register, more[1])
        second.set(TCP)
        self.host.connect(pid=8).register(more[0])
        self.connection.close()
        second.register(*((f"a{number}", "80", 0) for number in range(8)))

    def test_mappings_limit(self) -> None:
        """A process may hold so many mappings, which are counted apart from its services."""
        second = self.host.connect()
        self.connection.register(*((f"a{number}", "80", 0) for number in range(10)))
        self.connection.set(*((n, 1, "tcp", "127.0.0.1.0.80") for n in range(20, 29)))
        limit = "10 mappings (--max-mappings)"
        said = self.refused(LimitExceeded, limit, second.set, UDP, LOCAL)
        self.assertIn("this one holds 9 and asks for 2 more", said)
        second.set(UDP)
        self.refused(LimitExceeded, limit, self.connection.set, TCP)
        self.host.connect(pid=8).set(TCP)
        self.connection.close()
        second.set(*((n, 1, "tcp", "127.0.0.1.0.80") for n in range(20, 29)))

    def test_many(self) -> None:
        """As many services as fit a box are refused whole."""
        many = [(f"a{number}", "80", 0) for number in range(1_500)]
        self.refused(LimitExceeded, "asks for 1500 more", self.connection.register, *many)
        self.assertEqual(self.names(), [])


class DeregisterTests(SessionTestCase):
    """Deregister, and the end of a connection."""

    def test_one(self) -> None:
        """One registration goes, the others stay."""
        self.connection.register(("a", "80", 0), ("a", "81", 0), ("b", "80", 0))
        self.connection.deregister(("a", "80"))
        self.assertEqual(
            [row[::3] for row in self.connection.services()], [("a", "81"), ("b", "80")]
        )

    def test_not_registered(self) -> None:
        """What this connection did not register it cannot undo, and then undoes nothing."""
        self.connection.register(("a", "80", 0))
        other = self.host.connect()
        other.register(("b", "80", 0))
        for missing in (("a", "81"), ("c", "80"), ("b", "80")):
            self.refused(
                NotRegistered,
                "name {}: port {} is not registered".format(*missing),
                self.connection.deregister,
                ("a", "80"),
                missing,
            )
        self.assertEqual(self.names(), ["a", "b"])

    def test_twice_in_one_call(self) -> None:
        """To name one twice in a call is to name it."""
        self.connection.register(("a", "80", 0), ("b", "80", 0))
        self.connection.deregister(("a", "80"), ("a", "80"))
        self.assertEqual(self.names(), ["b"])
        self.assertEqual(self.connection.holder.allowances.services.held, 1)

    def test_end(self) -> None:
        """When a connection ends, all of it is gone, and nothing else."""
        other = self.host.connect()
        other.register(("a", "80", 0))
        other.set(TCP)
        self.connection.register(("a", "81", 0))
        self.connection.set(UDP)
        self.connection.close()
        self.connection.close()
        self.assertEqual(other.services(), [("a", 104, 7, "80", "")])
        self.assertEqual(other.mappings(), [(*TCP, "104")])
        held = other.holder.allowances
        self.assertEqual((held.services.held, held.mappings.held), (1, 1))
        other.close()
        self.assertEqual(list(self.host.registry.services()), [])
        self.assertEqual(len(self.host.registry.mappings), 0)


class RestartTests(SessionTestCase):
    """Restart, where no other process can take the place."""

    def test_refused(self) -> None:
        """A port mapper inside an application cannot be restarted apart from it."""
        with self.assertRaisesRegex(RestartFailed, "part of an application: restart that"):
            self.connection.ask(c.RESTART)
