"""Named services: what they may be, who may register them, and what conflicts."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.service import check_service
from portmapd.errors import AlreadyRegistered, InvalidService, NotRegistered
from portmapd.registry.holder import Holder
from portmapd.registry.service import EXCLUSIVE, PUBLIC, NamedService
from tests.unit.registry.test_registry import RegistryTestCase


class ServiceTests(RegistryTestCase):
    """Named services."""

    def test_register(self) -> None:
        """A service is found under its name, with all that it is."""
        holder = self.holder(uid=104, pid=77)
        self.register(holder, "printer", port="/run/printer", flags=PUBLIC)
        (found,) = self.registry.names.of("printer")
        self.assertEqual(
            (found.name, found.port, found.uid, found.pid, found.exe, found.is_exclusive),
            ("printer", "/run/printer", 104, 77, "/bin/service", False),
        )
        self.assertEqual(list(self.registry.names.of("other")), [])

    def test_exe_is_private(self) -> None:
        """Without the public flag, the executable is not shown."""
        holder = self.holder()
        self.register(holder, "a", flags=EXCLUSIVE)
        self.assertEqual([s.exe for s in self.registry.services()], [""])

    def test_same_name_on_many_connections(self) -> None:
        """A name that nobody has exclusively is everybody's."""
        first, second = self.holder(pid=1), self.holder(pid=2)
        self.register(first, "a")
        self.register(second, "a")
        self.register(second, "a", port="81")
        self.assertEqual([s.pid for s in self.registry.names.of("a")], [1, 2, 2])

    def test_twice_on_one_connection(self) -> None:
        """The same name and port come once on a connection, and once in a call."""
        holder = self.holder()
        self.register(holder, "a")
        with self.assertRaisesRegex(AlreadyRegistered, "name a: port 80 is already registered"):
            self.register(holder, "b", "a")
        self.assertRaises(AlreadyRegistered, self.register, holder, "c", "c")
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(holder.allowances.services.held, 1)

    def test_exclusive_name_is_taken(self) -> None:
        """An exclusive name is closed to the user's others, to itself as well."""
        holder = self.holder(pid=7)
        self.register(holder, "a", flags=EXCLUSIVE)
        for other in (holder, self.holder(pid=8)):
            for flags in (0, EXCLUSIVE):
                with self.assertRaisesRegex(AlreadyRegistered, "exclusively by uid 104, pid 7"):
                    self.register(other, "a", port="81", flags=flags)

    def test_taken_name_is_not_exclusive(self) -> None:
        """A name in use cannot become exclusive."""
        self.register(self.holder(pid=7), "a")
        with self.assertRaisesRegex(AlreadyRegistered, "already.* by uid 104, pid 7"):
            self.register(self.holder(), "a", flags=EXCLUSIVE)

    def test_users_do_not_conflict(self) -> None:
        """The same exclusive name is another one for another user."""
        self.register(self.holder(uid=1), "a", flags=EXCLUSIVE)
        self.register(self.holder(uid=2), "a", flags=EXCLUSIVE)
        self.assertEqual(self.names(), ["a", "a"])

    def test_one_call_does_not_conflict_with_itself(self) -> None:
        """One call may register an exclusive name on several ports."""
        holder = self.holder()
        services = [holder.new_service("a", str(port), EXCLUSIVE) for port in (1, 2, 3)]
        self.registry.register(*services)
        self.registry.deregister(holder, ("a", "1"), ("a", "2"))
        self.assertTrue(self.registry.names.is_exclusive("a", 104))
        self.registry.deregister(holder, ("a", "3"))
        self.assertFalse(self.registry.names.is_exclusive("a", 104))
        self.register(self.holder(), "a", flags=EXCLUSIVE)

    def test_all_or_nothing(self) -> None:
        """If one service is refused, none is registered and nobody told."""
        self.register(self.holder(pid=9), "taken", flags=EXCLUSIVE)
        self.told.clear()
        holder = self.holder()
        self.assertRaises(AlreadyRegistered, self.register, holder, "a", "taken", "b")
        self.assertEqual((self.names(), self.told), (["taken"], []))
        self.assertEqual((holder.allowances.services.held, holder.services), (0, {}))

    def test_deregister(self) -> None:
        """One registration goes, the others stay."""
        holder = self.holder()
        self.register(holder, "a", "b", "c")
        self.registry.deregister(holder, ("b", "80"))
        self.assertEqual(self.names(), ["a", "c"])
        self.registry.deregister(holder, ("a", "80"), ("c", "80"))
        self.assertEqual(self.names(), [])

    def test_deregister_all_or_nothing(self) -> None:
        """What is not registered here takes nothing else with it."""
        holder, other = self.holder(), self.holder()
        self.register(holder, "a")
        self.register(other, "b")
        for missing in (("a", "81"), ("b", "80"), ("c", "80")):
            with self.assertRaisesRegex(
                NotRegistered, "name {}: port {} is not registered".format(*missing)
            ):
                self.registry.deregister(holder, ("a", "80"), missing)
        self.assertEqual(self.names(), ["a", "b"])

    def test_deregister_twice_in_one_call(self) -> None:
        """A key that comes twice is taken out once."""
        holder = self.holder()
        self.register(holder, "a")
        self.registry.deregister(holder, ("a", "80"), ("a", "80"))
        self.assertEqual((self.names(), holder.allowances.services.held), ([], 0))

    def test_places(self) -> None:
        """Places in listings are each service's own, and never given again."""
        first, second = self.holder(), self.holder()
        self.register(second, "a")
        self.register(first, "b", "c")
        before = [s.place for s in self.registry.services()]
        self.assertEqual(before, sorted(set(before)))
        self.registry.deregister(first, ("b", "80"))
        self.register(first, "b")
        after = [s.place for s in self.registry.services()]
        self.assertEqual(after, sorted(set(after)))
        self.assertNotIn(before[0], after)


#: Fields that are refused, and what is said about them.
BAD_SERVICES = [
    ("", "80", 0, "name: it must have 1 to 255 bytes"),
    ("x" * 256, "80", 0, "name: it must have 1 to 255 bytes"),
    ("é" * 128, "80", 0, "name: it must have 1 to 255 bytes"),
    ("a b", "80", 0, "name 'a b': no space"),
    ("a\n", "80", 0, "name .*: no space and no control character"),
    ("a\x00", "80", 0, "name .*: no space and no control character"),
    ("a\x7f", "80", 0, "name .*: no space and no control character"),
    ("a\u00a0b", "80", 0, "name .*: no space and no control character"),
    ("a\u2028b", "80", 0, "name .*: no space and no control character"),
    ("a\udcff", "80", 0, "name .*: no space and no control character"),
    ("a", "", 0, "port ''"),
    ("a", "0", 0, "port '0'"),
    ("a", "080", 0, "port '080'"),
    ("a", "65536", 0, "port '65536'"),
    ("a", "100000", 0, "port '100000'"),
    ("a", "-1", 0, "port '-1'"),
    ("a", "+1", 0, r"port '\+1'"),
    ("a", " 80", 0, "port ' 80'"),
    ("a", "\u0661", 0, "port"),
    ("a", "http", 0, "port 'http'"),
    ("a", "*", 0, r"port '\*'"),
    ("a", "run/socket", 0, "port 'run/socket'"),
    ("a", "/run/\n", 0, "port"),
    ("a", "/run/\udcff", 0, "port"),
    ("a", "/" + "x" * 107, 0, "port"),
    ("a", "80", 8, "flags 8: only 1 .*, 2 .* and 4"),
    ("a", "80", 15, "flags 15"),
    ("a", "/run/socket", 4, "port '/run/socket': only a number can be shared"),
    ("a", "80", -1, "flags -1"),
]

GOOD_SERVICES = [
    ("a", "1", 0),
    ("printer.example.com", "65535", EXCLUSIVE | PUBLIC),
    ("me@example.com", "/run/socket", EXCLUSIVE),
    ("x" * 255, "/" + "x" * 106, PUBLIC),
    ("é" * 127, "/run/a b", 3),
    ("a", "80", 7),
    ("\N{ARABIC LETTER MEEM}\N{ZERO WIDTH NON-JOINER}\N{ARABIC LETTER KEHEH}.example", "1", 0),
]


class ServiceFieldTests(SynchronousTestCase):
    """What a client may register."""

    def test_good(self) -> None:
        """Names, ports and flags within their ranges are taken."""
        for fields in GOOD_SERVICES:
            check_service(*fields)

    def test_bad(self) -> None:
        """All else is refused with a sentence that names the field."""
        for name, port, flags, said in BAD_SERVICES:
            with self.assertRaisesRegex(InvalidService, said):
                check_service(name, port, flags)

    def test_services_are_themselves(self) -> None:
        """Two services with the same fields are two."""
        holder = Holder(1, 1)
        self.assertNotEqual(
            NamedService("a", "1", 0, 1, holder), NamedService("a", "1", 0, 1, holder)
        )
