"""Watching: in order, none missed, none twice; names; and a watcher that does not keep up."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from portmapd.channel import commands as c
from portmapd.errors import AlreadyRegistered, LimitExceeded
from portmapd.registry.mapping import mapping
from portmapd.server import watchers
from portmapd.server.watchers import MANY_NAMES, MAX_WAITING
from tests.support.channel_sessions import Connection, Host, SessionTestCase
from tests.support.rpc_samples import PROPERTY

TCP = (9, 1, "tcp", "127.0.0.1.0.80")
UDP = (9, 1, "udp", "127.0.0.1.0.80")

#: Registering a service and undoing it gives so many events at most before a queue is full.
MANY = MAX_WAITING // 100


def service(name: str, port: str = "80", pid: int = 7, exe: str = "") -> tuple[object, ...]:
    """A row of the services' listing."""
    return name, 104, pid, port, exe


class WatchTests(SessionTestCase):
    """What a watcher is told."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.host.connect(pid=8)

    def test_events(self) -> None:
        """Every change is told, with its row, in order."""
        self.connection.watch()
        self.other.register(("a", "80", 0), ("b", "/run/b", 2))
        self.other.set(TCP)
        self.other.deregister(("a", "80"))
        self.other.unset(TCP)
        self.other.set(UDP)
        self.other.register(("a", "81", 1))
        self.other.close()
        self.assertEqual(
            self.connection.told(),
            [
                ("registered", *service("a", pid=8)),
                ("registered", *service("b", "/run/b", 8, "/bin/a")),
                ("mapped", *TCP, "104"),
                ("deregistered", *service("a", pid=8)),
                ("unmapped", *TCP, "104"),
                ("mapped", *UDP, "104"),
                ("registered", *service("a", "81", 8)),
                ("deregistered", *service("b", "/run/b", 8, "/bin/a")),
                ("deregistered", *service("a", "81", 8)),
                ("unmapped", *UDP, "104"),
            ],
        )

    def test_own(self) -> None:
        """A watcher is told of its own changes, too."""
        self.connection.watch()
        self.connection.register(("a", "80", 0))
        self.assertEqual(self.connection.told(), [("registered", *service("a"))])

    def test_only_from_then_on(self) -> None:
        """Nothing is told of what was before, nor of what is refused."""
        self.other.register(("a", "80", 1))
        self.connection.watch()
        self.assertRaises(AlreadyRegistered, self.other.register, ("b", "80", 0), ("a", "81", 0))
        self.assertEqual(self.connection.told(), [])

    def test_rpc_callers(self) -> None:
        """Mappings that come from elsewhere are told like any other."""
        self.connection.watch()
        first, second = mapping(*TCP), mapping(*TCP[:3], "127.0.0.1.0.81", "unknown")
        self.host.registry.map(first)
        self.host.registry.replace(first, second)
        self.assertEqual(
            self.connection.told(),
            [
                ("mapped", *TCP, "superuser"),
                ("unmapped", *TCP, "superuser"),
                ("mapped", *TCP[:3], "127.0.0.1.0.81", "unknown"),
            ],
        )

    def test_names(self) -> None:
        """A watcher of names is told of these, and of no mapping."""
        self.connection.watch("a", "b", "a")
        self.other.register(("a", "80", 0), ("ab", "80", 0), ("A", "80", 0), ("b", "80", 0))
        self.other.set(TCP)
        self.other.close()
        names = [(event[0], event[1]) for event in self.connection.told()]
        expected = [(change, name) for change in ("registered", "deregistered") for name in "ab"]
        self.assertEqual(names, expected)

    def test_many_names(self) -> None:
        """A watcher of very many names is told of these alone, until it watches others."""
        few, many = self.host.connect(pid=9), [f"n{number}" for number in range(MANY_NAMES)]
        few.watch("a", "n7")
        self.connection.watch("a", *many)
        self.other.register(("a", "80", 0), ("n7", "80", 0), ("b", "80", 0))
        self.other.set(TCP)
        for watcher in (self.connection, few):
            self.assertEqual([event[1] for event in watcher.told()], ["a", "n7"])
        self.connection.watch("b")
        self.other.register(("a", "81", 0), ("b", "81", 0))
        self.assertEqual([event[1] for event in self.connection.told()], ["b"])
        self.connection.watch("b", *many)
        self.connection.unwatch()
        self.other.close()
        self.assertEqual(self.connection.told(), [])

    def test_watch_again(self) -> None:
        """What is watched last counts, and nothing is told twice."""
        for names in (("a",), (), ("b",), ("a", "b"), ("b",)):
            self.connection.watch(*names)
        self.other.register(("a", "80", 0), ("b", "80", 0))
        self.assertEqual(self.connection.told(), [("registered", *service("b", pid=8))])
        self.connection.watch()
        self.connection.watch()
        self.other.register(("c", "80", 0))
        self.assertEqual(self.connection.told(), [("registered", *service("c", pid=8))])

    def test_unwatch(self) -> None:
        """Afterwards nothing is told; to watch nothing is not an error."""
        self.connection.unwatch()
        for names in ((), ("a",)):
            self.connection.watch(*names)
            self.connection.unwatch()
            self.connection.unwatch()
            self.other.register(("a", "80", 0))
            self.other.deregister(("a", "80"))
            self.assertEqual(self.connection.told(), [])

    def test_each_is_told(self) -> None:
        """Watchers do not depend on each other, and one that is closed is told nothing."""
        watchers = [self.host.connect(pid=9) for _ in range(4)]
        for watcher, names in zip(watchers, ((), ("a",), ("b",), ("a", "b")), strict=True):
            watcher.watch(*names)
        watchers[0].close()
        self.other.register(("a", "80", 0))
        self.assertEqual([len(watcher.told()) for watcher in watchers], [0, 1, 0, 1])

    def test_blanked(self) -> None:
        """What becomes of an executable is told: public services go, and come without it."""
        self.connection.watch()
        self.other.register(("a", "80", 2), ("b", "80", 0), ("c", "80", 3))
        self.connection.told()
        self.host.connect(pid=8, exe="/bin/b")
        public = [("a", "80", 8), ("c", "80", 8)]
        told = [("deregistered", *service(*row, "/bin/a")) for row in public]
        told += [("registered", *service(*row)) for row in public]
        self.assertEqual(self.connection.told(), told)
        self.host.connect(pid=8, exe="/bin/c")
        self.assertEqual(self.connection.told(), [])

    def test_reserved_names(self) -> None:
        """Announcements of executables can be watched by their name."""
        self.connection.watch("pid2exe.portmapd")
        self.other.register(("pid2exe.portmapd", "*", 2), ("a", "80", 2))
        row = service("pid2exe.portmapd", "*", 8, "/bin/a")
        self.assertEqual(self.connection.told(), [("registered", *row)])


class SlowTests(SessionTestCase):
    """A watcher whose peer does not read."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.host.connect(pid=8)
        self.connection.watch()
        self.connection.session.pause()

    def register(self, times: int) -> None:
        """Make two events so many times."""
        for _ in range(times):
            self.other.register(("a", "80", 0))
            self.other.deregister(("a", "80"))

    def test_waiting(self) -> None:
        """Events wait, and come in order."""
        self.register(2)
        self.assertEqual(self.connection.told(), [])
        self.connection.session.resume()
        changes = [event[0] for event in self.connection.told()]
        self.assertEqual(changes, ["registered", "deregistered"] * 2)
        self.connection.session.resume()
        self.assertEqual(self.connection.told(), [])

    def test_overflow(self) -> None:
        """Instead of events that do not fit there is one overflow, behind those that do."""
        self.register(MANY)
        self.connection.session.resume()
        *events, last = self.connection.told()
        self.assertEqual(last, ("overflow",))
        self.assertEqual(
            [event[0] for event in events],
            [("registered", "deregistered")[at % 2] for at in range(len(events))],
        )
        self.assertLess(len(events), 2 * MANY)

    def test_after_an_overflow(self) -> None:
        """Later events come as before, also when the peer stops reading once more."""
        for _ in range(2):
            self.register(MANY)
            self.connection.session.resume()
            self.assertEqual(self.connection.told().count(("overflow",)), 1)
            self.register(1)
            self.assertEqual(len(self.connection.told()), 2)
            self.connection.session.pause()
            self.register(1)
            self.assertEqual(self.connection.told(), [])
            self.connection.session.resume()
            self.assertEqual(len(self.connection.told()), 2)
            self.connection.session.pause()

    def test_bounded(self) -> None:
        """No more waits than may, however much happens."""
        sizes = []
        for times in (MANY, 3 * MANY):
            self.register(times)
            self.connection.session.resume()
            sizes.append(len(self.connection.told()))
            self.connection.session.pause()
        self.assertEqual(sizes[0], sizes[1])

    def test_nothing_small_slips_past(self) -> None:
        """Once an event does not fit, none comes before the overflow that would fit."""
        long = "x" * 255
        self.register(1)
        while not self.overflows():
            self.other.register((long, "80", 0))
            self.other.deregister((long, "80"))
        self.register(3)
        self.connection.session.resume()
        *events, last = self.connection.told()
        self.assertEqual(last, ("overflow",))
        self.assertEqual([event[1] for event in events[:2]], ["a"] * 2)
        self.assertEqual({event[1] for event in events[2:]}, {long})

    def overflows(self) -> bool:
        """Was there more than may wait?"""
        self.made = getattr(self, "made", 0) + 2 * 255
        return self.made > MAX_WAITING


class BoundTests(SessionTestCase):
    """What a user may watch, and all together."""

    def test_names(self) -> None:
        """A user watches a quarter of all names; what is watched no more counts no more."""
        self.patch(watchers, "MAX_WATCHED", 1_200)
        host = Host()
        names = [f"n{number}" for number in range(100)]
        watching = [host.connect(pid=pid) for pid in range(1, 5)]
        for each in watching[:3]:
            each.watch(*names)
        error = self.assertRaises(LimitExceeded, watching[3].watch, *names)
        self.assertIn("one user may have 300 watched names; uid 104 has 300 and", str(error))
        host.connect(uid=105, pid=9).watch(*names)
        watching[0].watch("a")
        # A Watch that is refused changes nothing.
        self.assertRaises(LimitExceeded, watching[0].watch, "a", *names, "b")
        watching[3].register(("a", "80", 0))
        self.assertEqual(watching[0].told(), [("registered", *service("a", pid=4))])
        watching[1].ask(c.UNWATCH)
        watching[2].close()
        watching[3].watch(*names)
        host.connect(pid=3).watch(*names)

    def test_events(self) -> None:
        """Events that wait are bounded in all: beyond that, a watcher is told of an overflow."""
        self.patch(watchers, "MAX_ALL_WAITING", 8_000)
        host = Host(1_000)
        watching = [host.connect(pid=pid) for pid in range(1, 4)]
        for each in watching:
            each.watch()
            each.session.pause()
        working = host.connect(pid=9)
        for number in range(30):
            working.register((f"n{number}", "80", 0))
        watching[0].close()
        watching[1].session.resume()
        self.assertEqual(watching[1].told()[-1], ("overflow",))
        watching[2].session.pause()
        watching[2].session.resume()
        for number in range(5):
            working.deregister((f"n{number}", "80"))
        self.assertEqual(watching[2].told()[-1][:2], ("deregistered", "n4"))


NAMES = st.sampled_from(("a", "b", "c"))
STEPS = st.one_of(
    st.tuples(st.just("register"), NAMES, st.sampled_from(("80", "81"))),
    st.tuples(st.just("deregister"), NAMES, st.sampled_from(("80", "81"))),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("end")),
)


class WatchProperties(SessionTestCase):
    """What holds for all watchers."""

    @PROPERTY
    @given(st.sets(NAMES), st.lists(STEPS, max_size=40))
    def test_copy(self, names: set[str], steps: list[tuple[str, ...]]) -> None:
        """Whoever lists and then follows the events has what is listed."""
        self.patch(watchers, "MANY_NAMES", 2)
        host = Host()
        watching, working = host.connect(), host.connect(pid=8)
        watching.watch(*names)
        copy: Counter[tuple[object, ...]] = Counter(watching.services(names=list(names) or None))
        for what, *service in steps:
            match what:
                case "register" if tuple(service) not in working.holder.services:
                    working.register((service[0], service[1], 0))
                case "deregister" if tuple(service) in working.holder.services:
                    working.deregister((service[0], service[1]))
                case "pause":
                    watching.session.pause()
                case "resume":
                    watching.session.resume()
                case "end":
                    working.close()
                    working = host.connect(pid=8)
        watching.session.resume()
        follow(copy, watching)
        self.assertEqual(copy, Counter(watching.services(names=list(names) or None)))


def follow(copy: Counter[tuple[object, ...]], watching: Connection) -> None:
    """Keep a copy of a listing by the events that came."""
    for change, *row in watching.told():
        if change == "registered":
            copy[tuple(row)] += 1
        else:
            assert copy[tuple(row)] > 0, f"{row} went and was not there"
            copy[tuple(row)] -= 1
            copy += Counter()
