"""Listings: filters, and pages of any number of registrations that come and go meanwhile."""

from collections import Counter
from random import Random
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.channel.box import MAX_VALUE
from portmapd.errors import BadArguments
from portmapd.registry.mapping import mapping
from portmapd.server.listing import MAX_LOOKED_AT
from tests.support.channel_sessions import Connection, Host
from tests.support.rpc_samples import PROPERTY

T = TypeVar("T")

#: Who registers what: uid, pid, and names.
REGISTERED = [
    (0, 1, ("a", "b")),
    (104, 2, ("a", "c")),
    (104, 2, ("a", "b")),
    (104, 3, ("d",)),
    (105, 4, ("a", "pid2exe.portmapd")),
]
#: No end of a page.
NO_ENDS = ("", "x", "1", "1.2.3", "1.x", ".", "1.", "-", "1,2", "9" * 5_000 + ".1")
NO_MAPPING_ENDS = ("", "x", "1.2", "1.2.tcp.3", "x.1.tcp", "1.x.tcp", "9" * 5_000 + ".1.tcp")

#: For tests that take their time.
FEWER = settings(PROPERTY, max_examples=40)

NAMES = st.sets(st.sampled_from(("a", "b", "c", "d", "e", "pid2exe.portmapd")))
USERS = st.sets(st.sampled_from((0, 104, 105, 106, -1)))
PIDS = st.sets(st.sampled_from((1, 2, 3, 4, 5, -1)))


def crowded(*sizes: int, name: str = "n", exe: str = "") -> Host:
    """A host with a connection for each of *sizes*, with so many services."""
    host = Host(limit=1_000_000)
    for pid, size in enumerate(sizes, 1):
        connection = host.connect(pid=pid, exe=exe)
        connection.session.find_executable()
        new = (
            connection.holder.new_service(f"{name}{pid}.{number}", "80", 2 if exe else 0)
            for number in range(size)
        )
        host.registry.register(*new)
    return host


class FilterTests(SynchronousTestCase):
    """Which services are listed."""

    def setUp(self) -> None:
        host = Host()
        for at, (uid, pid, names) in enumerate(REGISTERED):
            host.connect(uid, pid).register(
                *((n, "*", 2) if "pid2exe" in n else (n, str(at + 1), 0) for n in names)
            )
        self.connection = host.connect(106, 5)

    @PROPERTY
    @given(NAMES, USERS, PIDS)
    def test_filters(self, names: set[str], users: set[int], pids: set[int]) -> None:
        """All kinds of filter must match; of one kind any value; an empty one is none."""
        expected = [
            (name, uid, pid)
            for uid, pid, held in REGISTERED
            for name in held
            if (not names or name in names)
            and (not users or uid in users)
            and (not pids or pid in pids)
        ]
        found = self.connection.services(names=list(names), users=list(users), pids=list(pids))
        self.assertEqual([row[:3] for row in found], expected)

    def test_absent(self) -> None:
        """A filter that is not there is none."""
        self.assertEqual(len(self.connection.services()), 9)

    def test_many_values(self) -> None:
        """As many values as fit a box."""
        pids = list(range(10_000, 19_000))
        self.assertEqual(len(self.connection.services(pids=[*pids, 2])), 4)
        self.assertEqual(len(self.connection.services(names=["a", *map(str, pids)])), 4)


class PageTests(SynchronousTestCase):
    """A page at a time."""

    def checked(self, connection: Connection, command: c.Command, **values: Any) -> list[list[Any]]:
        """All pages; each must fit a box."""
        pages = list(connection.pages(command, **values))
        for page in pages:
            self.assertLessEqual(len(command.answer[0].kind.encode(page)), MAX_VALUE)
        return pages

    def test_sizes(self) -> None:
        """However many there are and however they are held, each is listed once."""
        for sizes in (
            (),
            (1,),
            (0, 1, 0),
            (1_999,),
            (2_000,),
            (2_001,),
            (2_000, 2_000),
            (1_000, 999, 2, 3_000),
            (1,) * 2_500,
            (10,) * 1_000,
        ):
            host = crowded(*sizes)
            rows = [row for page in self.checked(host.connect(), c.LIST) for row in page]
            self.assertEqual(len(rows), sum(sizes))
            self.assertEqual(len(set(rows)), sum(sizes))

    def test_large_rows(self) -> None:
        """So it is with the largest rows that there are."""
        host = crowded(30, 1, 40, name="x" * 245, exe="/" + "x" * 4_000)
        pages = self.checked(host.connect(), c.LIST)
        self.assertGreater(len(pages), 5)
        self.assertEqual(len({row for page in pages for row in page}), 71)

    def test_filtered(self) -> None:
        """The pages of a filtered listing together have all that match."""
        host = crowded(1_500, 1_500, 1_500)
        popular = [host.connect(105, pid) for pid in range(10, 2_510)]
        for connection in popular:
            connection.register(("popular", "80", 0))
        connection = host.connect()
        for expected, values in (
            (2_500, {"names": ["popular"]}),
            (2_500, {"users": [105]}),
            (4_500, {"users": [104]}),
            (4_501, {"pids": [1, 2, 3, 10]}),
            (3_000, {"pids": [3, 2], "users": [104]}),
            (1, {"names": ["n3.1499", "n1.x"]}),
            (0, {"names": ["n1.1"], "users": [105]}),
            (0, {"users": [106]}),
            (0, {"pids": [5_000]}),
        ):
            rows = [r for page in self.checked(connection, c.LIST, **values) for r in page]
            self.assertEqual((len(rows), len(set(rows))), (expected, expected))

    def test_no_long_turn(self) -> None:
        """A page without a match ends as early as others, so that others do not wait for it."""
        host = crowded(2 * MAX_LOOKED_AT + 1)
        pages = list(host.connect().pages(c.LIST, users=[105]))
        self.assertEqual(pages, [[], [], []])

    def test_mappings(self) -> None:
        """Mappings are listed in the order of their keys, each once."""
        host = Host()
        numbers = list(range(5_000))
        Random(1).shuffle(numbers)
        for number in numbers:
            host.registry.map(mapping(number // 2, number % 2, "tcp", "127.0.0.1.0.80"))
        host.registry.map(mapping(4_294_967_295, 4_294_967_295, "local", "/" + "x" * 106))
        pages = self.checked(host.connect(), c.LIST_MAPPINGS)
        keys = [row[:3] for page in pages for row in page]
        self.assertEqual(len(keys), 5_001)
        self.assertEqual(keys, sorted(set(keys)))

    def test_no_end(self) -> None:
        """What no page gave as its end is refused."""
        connection = crowded(3).connect()
        for command, ends in ((c.LIST, NO_ENDS), (c.LIST_MAPPINGS, NO_MAPPING_ENDS)):
            for after in ends:
                error = self.assertRaises(BadArguments, connection.ask, command, after=after)
                self.assertIn("after", str(error))

    def test_far_ends(self) -> None:
        """Behind the last there is nothing, before the first everything."""
        connection = crowded(3).connect()
        for after, count in (("0.0", 3), ("1.2", 1), ("1.3", 0), ("99999999.0", 0)):
            page = connection.ask(c.LIST, after=after)
            self.assertEqual((len(page["services"]), page["more"]), (count, None))


class ChangeTests(SynchronousTestCase):
    """Registrations that come and go between the pages."""

    @FEWER
    @given(
        st.lists(st.integers(0, 1_500), min_size=2, max_size=6),
        st.randoms(use_true_random=False),
        st.sampled_from(({}, {"users": [104]}, {"pids": list(range(1, 7))})),
    )
    def test_services(self, sizes: list[int], random: Random, values: dict[str, Any]) -> None:
        """What is there all the while is listed once; what never is, never."""
        host = crowded(*sizes)
        holders = [s.holder for s in host.registry.services()]
        there = {s.name for s in host.registry.services()}
        seen = set(there)
        listed: Counter[str] = Counter()
        for page in host.connect().pages(c.LIST, **values):
            listed.update(row[0] for row in page)
            for holder in sample(holders, 2, random):
                there -= change(host, holder, random)
                seen |= {s.name for s in host.registry.services()}
        self.assertEqual(set(listed.values()) - {1}, set())
        self.assertLessEqual(there, set(listed))
        self.assertLessEqual(set(listed), seen)

    @FEWER
    @given(st.integers(0, 4_000), st.randoms(use_true_random=False))
    def test_mappings(self, size: int, random: Random) -> None:
        """So it is with mappings."""
        host = Host()
        for number in range(0, 2 * size, 2):
            host.registry.map(mapping(number, 1, "udp", "127.0.0.1.0.80"))
        there = {m.program for m in host.registry.mappings}
        listed: Counter[int] = Counter()
        for page in host.connect().pages(c.LIST_MAPPINGS):
            listed.update(row[0] for row in page)
            registered = list(host.registry.mappings)
            gone = sample(registered, 20, random)
            host.registry.unmap(*gone)
            there -= {m.program for m in gone}
            for odd in {random.randrange(1, 2 * size + 2, 2) for _ in range(20)}:
                if host.registry.mappings.get(odd, 1, "tcp") is None:
                    host.registry.map(mapping(odd, 1, "tcp", "127.0.0.1.0.80"))
        self.assertEqual(set(listed.values()) - {1}, set())
        self.assertLessEqual(there, set(listed))


def sample(those: list[T], most: int, random: Random) -> list[T]:
    """At most *most* of *those*, of which older versions of hypothesis need one."""
    return random.sample(those, min(most, len(those))) if those else []


def change(host: Host, holder: Any, random: Random) -> set[str]:
    """Change something that *holder* has; return the names that are gone."""
    registered = list(holder.services)
    match random.randrange(3):
        case 0 if registered:
            gone = random.sample(registered, min(5, len(registered)))
            host.registry.deregister(holder, *gone)
            return {name for name, _ in gone}
        case 1:
            host.registry.close(holder)
            return {name for name, _ in registered}
        case _:
            another = host.connect(pid=holder.pid)
            another.register((f"new{another.holder.serial}", "80", 0))
            return set()
