"""Dead services: seen bound, then gone, then suspended; and what is never suspended."""

import os
import resource
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from portmapd.config import FORGET
from portmapd.oncrpc.netid import format_address
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Mapping, mapping
from portmapd.registry.registry import Registry
from portmapd.server import liveness
from portmapd.server.liveness import LOOKS, MAX_NEW, QUESTION, SLICE, SOON, Liveness
from portmapd.server.rate_limited_log import MAX_CHANGES
from portmapd.server.rate_limited_log import PERIOD as LOG_PERIOD
from tests.unit.server.test_bound_sockets import TCP, UDP, has_ipv6, opened

PERIOD = 0.5

#: Netid, address of the mapping, type and address of its socket.
SERVICES = [
    ("udp", "0.0.0.0", UDP, "127.0.0.1"),
    ("udp", "127.0.0.1", UDP, "0.0.0.0"),
    ("udp", "127.0.0.1", UDP, "127.0.0.1"),
    ("tcp", "0.0.0.0", TCP, "127.0.0.1"),
    ("tcp", "127.0.0.1", TCP, "127.0.0.1"),
]
SERVICES6 = [
    ("udp6", "::", UDP, "::1"),
    ("tcp6", "::1", TCP, "::1"),
    ("tcp", "0.0.0.0", TCP, "::"),
]


class LivenessTestCase(SynchronousTestCase):
    """A registry that is watched, with its own clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = Registry()
        self.liveness = Liveness(self.registry, self.clock, PERIOD)
        self.liveness.startService()
        self.addCleanup(self.liveness.stopService)

    def map(self, netid: str, address: str, program: int = 7, holder: Holder | None = None) -> None:
        """Have a mapping registered."""
        self.registry.map(mapping(program, 1, netid, address, holder=holder))

    def rows(self) -> list[Mapping]:
        """What is registered."""
        return list(self.registry.mappings)

    def turn(self) -> None:
        """Let the reactor have its next turn."""
        self.clock.advance(0)

    def look(self, times: int = 1) -> None:
        """Let so many periods pass."""
        self.clock.pump([PERIOD] * times)


class PauseTestCase(LivenessTestCase):
    """Services that close their listeners."""

    def pause(
        self, owner: str = "unknown", user: int | None = None
    ) -> tuple[Mapping, tuple[str, int]]:
        """Have the mapping of a service suspended; its host and port are free then."""
        with opened(UDP, "127.0.0.1") as skt:
            give(skt, user)
            found = mapping(7, 1, "udp", address("0.0.0.0", skt), owner)
            self.registry.map(found)
            self.look()
            where: tuple[str, int] = skt.getsockname()
        self.look()
        self.assertEqual((self.rows(), self.suspended()), ([], [found]))
        return found, where

    def suspended(self) -> list[Mapping]:
        """What is remembered."""
        return list(self.registry.suspended.values())

    @contextmanager
    def bound(self, where: tuple[str, int], user: int | None = None) -> Iterator[socket.socket]:
        """Have the address bound by a user."""
        with socket.socket(socket.AF_INET, UDP) as skt:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            give(skt, user)
            skt.bind(where)
            yield skt


def give(skt: socket.socket, user: int | None) -> None:
    """Make that user the owner of a socket, which takes root; None: it stays this process's."""
    if user is not None:
        os.fchown(skt.fileno(), user, -1)


def address(host: str, skt: socket.socket) -> str:
    """The universal address of that socket's port on *host*."""
    return format_address(host, skt.getsockname()[1])


class RemovalTests(LivenessTestCase):
    """What is removed."""

    def test_gone(self) -> None:
        """A service that was there when it registered is removed once it is gone."""
        for netid, host, kind, where in SERVICES + (SERVICES6 if has_ipv6() else []):
            with opened(kind, where) as skt:
                self.map(netid, address(host, skt))
                self.look(3)
                self.assertEqual(len(self.rows()), 1, (netid, host, where))
            self.look()
            self.assertEqual(self.rows(), [], (netid, host, where))

    def test_gone_at_once(self) -> None:
        """It is even if it ends before the first period does."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.turn()
        self.look()
        self.assertEqual(self.rows(), [])

    def test_spellings(self) -> None:
        """A service is found dead whichever way it spelled its address."""
        spellings = [("udp", "::", "0.0.0.0"), ("udp", "::ffff:127.0.0.1", "127.0.0.1")]
        if has_ipv6():
            spellings += [
                ("udp6", "0:0:0:0:0:0:0:0", "::1"),
                ("udp6", "0:0:0:0:0:0:0:1", "::1"),
                ("tcp6", "0.0.0.0", "::1"),
            ]
        for netid, host, where in spellings:
            with opened(TCP if netid == "tcp6" else UDP, where) as skt:
                self.map(netid, address(host, skt))
                self.look(2)
                self.assertEqual(len(self.rows()), 1, (netid, host))
            self.look()
            self.assertEqual(self.rows(), [], (netid, host))

    def test_bound_later(self) -> None:
        """A service may register first and bind then."""
        with opened(UDP, "127.0.0.1") as skt:
            port = skt.getsockname()
        self.map("udp", format_address("0.0.0.0", port[1]))
        self.look(2)
        with socket.socket(socket.AF_INET, UDP) as later:
            later.bind(port)
            self.look(2)
            self.assertEqual(len(self.rows()), 1)
        self.look()
        self.assertEqual(self.rows(), [])

    def test_local(self) -> None:
        """UNIX sockets are services, too."""
        with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as skt:
            skt.bind(f"{folder}/s")
            skt.listen()
            self.map("local", f"{folder}/s")
            self.look(2)
            self.assertEqual(len(self.rows()), 1)
            skt.close()
            self.look()
        self.assertEqual(self.rows(), [])

    def test_all_of_a_service(self) -> None:
        """All mappings of one socket go together, and no other."""
        with opened(TCP, "127.0.0.1") as other:
            self.map("tcp", address("0.0.0.0", other), program=1)
            with opened(TCP, "127.0.0.1") as skt:
                for program in range(2, 9):
                    self.map("tcp", address("0.0.0.0", skt), program)
                self.look()
            self.look()
            self.assertEqual([m.program for m in self.rows()], [1])

    def test_one_of_two_sockets(self) -> None:
        """A mapping of any address lives while there is a socket on one."""
        first = opened(UDP, "127.0.0.1")
        with socket.socket(socket.AF_INET, UDP) as second:
            with first:
                second.bind(("127.0.0.2", first.getsockname()[1]))
                self.map("udp", address("0.0.0.0", first))
                self.look()
            self.look(2)
            self.assertEqual(len(self.rows()), 1)
        self.look()
        self.assertEqual(self.rows(), [])

    def test_replaced(self) -> None:
        """After a replacement, the new address counts."""
        with opened(UDP, "127.0.0.1") as old, opened(UDP, "127.0.0.1") as new:
            self.map("udp", address("0.0.0.0", old))
            self.look()
            (existing,) = self.rows()
            self.registry.replace(existing, mapping(7, 1, "udp", address("0.0.0.0", new)))
            old.close()
            self.look(2)
            self.assertEqual(len(self.rows()), 1)
            new.close()
            self.look()
            self.assertEqual(self.rows(), [])

    def test_registered_again(self) -> None:
        """A service that comes back is as good as the first time."""
        for _ in range(3):
            with opened(UDP, "127.0.0.1") as skt:
                self.map("udp", address("0.0.0.0", skt))
                self.look(2)
                self.assertEqual(len(self.rows()), 1)
            self.look()
            self.assertEqual(self.rows(), [])


class PauseTests(PauseTestCase):
    """Services that close their listeners for a while."""

    def test_back(self) -> None:
        """A service that binds its address again is registered again at the next look."""
        found, where = self.pause()
        self.look(5)
        with self.bound(where):
            self.look()
            self.assertEqual((self.rows(), self.suspended()), ([found], []))
            self.look(3)
            self.assertEqual(self.rows(), [found])
        self.look()
        self.assertEqual((self.rows(), self.suspended()), ([], [found]))

    def test_forgotten(self) -> None:
        """After a minute it is too late."""
        found, where = self.pause()
        self.clock.pump([PERIOD] * int(FORGET / PERIOD - 1))
        self.assertEqual(self.suspended(), [found])
        self.look(2)
        self.assertEqual(self.suspended(), [])
        with self.bound(where):
            self.look(3)
        self.assertEqual(self.rows(), [])

    def test_nothing_is_remembered(self) -> None:
        """With no time to be remembered, a mapping is removed."""
        self.liveness.stopService()
        self.liveness.close()
        self.liveness = Liveness(self.registry, self.clock, PERIOD, forget=0)
        self.liveness.startService()
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.look()
        self.look()
        self.assertEqual((self.rows(), self.suspended()), ([], []))

    def test_set_in_between(self) -> None:
        """A service that registers anew in between is registered where it is then."""
        _, where = self.pause()
        with opened(UDP, "127.0.0.1") as skt:
            new = mapping(7, 1, "udp", address("0.0.0.0", skt), "unknown")
            self.registry.map(new)
            with self.bound(where):
                self.look(3)
                self.assertEqual((self.rows(), self.suspended()), ([new], []))

    def test_unset_in_between(self) -> None:
        """What was forgotten in between does not come back."""
        found, where = self.pause()
        self.registry.forget(found)
        with self.bound(where):
            self.look(3)
        self.assertEqual((self.rows(), self.suspended()), ([], []))

    def test_held_in_between(self) -> None:
        """What a connection registers in between is left alone."""
        _, where = self.pause("104")
        holder = self.registry.open(Holder(104, 1))
        self.registry.map(mapping(7, 1, "udp", "0.0.0.0.0.9", "104", holder))
        with self.bound(where):
            self.look(3)
        self.assertEqual([m.holder for m in self.rows()], [holder])
        self.assertEqual(self.suspended(), [])

    def test_local(self) -> None:
        """A UNIX socket may come back, too."""
        with TemporaryDirectory() as folder:
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as skt:
                    skt.bind(f"{folder}/s")
                    skt.listen()
                    if not self.suspended():
                        self.map("local", f"{folder}/s")
                    self.look(2)
                    self.assertEqual(len(self.rows()), 1)
                os.unlink(f"{folder}/s")
                self.look()
                self.assertEqual((self.rows(), len(self.suspended())), ([], 1))

    def test_suspended_before(self) -> None:
        """Mappings that were suspended before it began are watched: they may be from a file."""
        self.liveness.stopService()
        self.liveness.close()
        with opened(UDP, "127.0.0.1") as skt:
            found = mapping(7, 1, "udp", address("0.0.0.0", skt))
            self.registry.map(found)
            self.registry.suspend(found)
            self.liveness = Liveness(self.registry, self.clock, PERIOD)
            self.liveness.startService()
            self.look()
            self.assertEqual(self.rows(), [found])

    def test_log(self) -> None:
        """The log tells what is not answered, what is again, and what is forgotten."""
        with capturedLogs() as events:
            _, where = self.pause()
            with self.bound(where):
                self.look()
            self.look()
            self.clock.pump([FORGET / 2] * 3)
        told = [formatEvent(event) for event in events]
        start = f"program 7 version 1 on udp at {format_address('0.0.0.0', where[1])} of unknown"
        self.assertEqual(
            told,
            [
                f"{start} is not answered: its address is no longer bound by its service",
                f"{start} is answered again: its address is bound again",
                f"{start} is not answered: its address is no longer bound by its service",
                f"{start} is forgotten: its service did not come back",
            ],
        )

    def test_bounded_log(self) -> None:
        """A look that finds very many services gone writes a few lines."""
        with opened(UDP, "127.0.0.1") as skt, capturedLogs() as events:
            for program in range(MAX_CHANGES + 90):
                self.map("udp", address("0.0.0.0", skt), program)
            self.look()
            skt.close()
            self.look()
            self.assertEqual(len(events), MAX_CHANGES)
            self.clock.advance(LOG_PERIOD)
        told = [formatEvent(event) for event in events]
        self.assertIn("90 more events of the kind mapping-dead", told)


class StayingTests(LivenessTestCase):
    """What is not removed."""

    def test_never_seen(self) -> None:
        """A service that was never seen, in another network namespace, say, stays."""
        with opened(UDP, "127.0.0.1") as skt:
            where = address("0.0.0.0", skt)
        self.map("udp", where)
        self.map("tcp", where)
        self.map("local", "/nowhere/at/all")
        self.look(5)
        self.assertEqual(len(self.rows()), 3)

    def test_never_seen_after_a_replacement(self) -> None:
        """That the address before it was seen says nothing of a new one."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.look()
            (existing,) = self.rows()
            self.registry.replace(existing, mapping(7, 1, "udp", address("192.0.2.9", skt)))
        self.look(3)
        self.assertEqual(len(self.rows()), 1)

    def test_held(self) -> None:
        """What a connection holds lives with that, bound or not."""
        holder = self.registry.open(Holder(104, 1))
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt), holder=holder)
            self.look(2)
        self.look(3)
        self.assertEqual(len(self.rows()), 1)
        self.registry.close(holder)
        self.assertEqual(self.rows(), [])

    def test_rebound_between_looks(self) -> None:
        """A service that was away for less than a period was not away."""
        with opened(UDP, "127.0.0.1") as skt:
            port = skt.getsockname()
            self.map("udp", address("0.0.0.0", skt))
            self.look()
        with socket.socket(socket.AF_INET, UDP) as again:
            again.bind(port)
            self.look(2)
            self.assertEqual(len(self.rows()), 1)

    def test_registered_too_late(self) -> None:
        """That its address was bound before it was registered is not to be seen."""
        with opened(UDP, "127.0.0.1") as skt:
            where = address("0.0.0.0", skt)
            self.map("udp", where, program=8)
            self.look()
        self.map("udp", where)
        self.look(2)
        self.assertEqual([m.program for m in self.rows()], [7])

    def test_registered_again_too_late(self) -> None:
        """What was seen of a mapping is forgotten with it."""
        with opened(UDP, "127.0.0.1") as skt:
            where = address("0.0.0.0", skt)
            self.map("udp", where)
            self.look()
            self.registry.unmap(*self.rows())
        self.map("udp", where)
        self.look(2)
        self.assertEqual(len(self.rows()), 1)

    def test_unset_before(self) -> None:
        """What was removed otherwise is not removed again."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.look()
            self.registry.unmap(*self.rows())
        self.look(2)
        self.assertEqual(self.rows(), [])


class LookingTests(LivenessTestCase):
    """How it is looked."""

    def test_nothing_is_bound(self) -> None:
        """The check binds nothing: a service that binds its port at that moment must succeed."""
        with opened(UDP, "127.0.0.1") as skt:
            where = address("0.0.0.0", skt)

            def refuse(skt: socket.socket, name: object) -> NoReturn:
                raise AssertionError(f"{name!r} was bound")

            self.patch(socket.socket, "bind", refuse)
            self.map("udp", where)
            self.look(2)
        self.look(2)
        self.assertEqual(self.rows(), [])

    def test_no_look_in_a_notification(self) -> None:
        """Nothing is asked of the kernel while a mapping is registered or removed."""

        def refuse(*arguments: object) -> NoReturn:
            raise AssertionError("the kernel was asked")

        patches = [self.patch(socket, "socket", refuse), self.patch(Path, "open", refuse)]
        self.map("udp", "0.0.0.0.0.9")
        self.map("local", "/run/s")
        self.registry.unmap(*self.rows())
        for patch in patches:
            patch.restore()
        self.turn()

    def test_one_look_for_all(self) -> None:
        """All mappings that come in one turn are looked at together, in the next one."""
        waiting = len(self.clock.getDelayedCalls())
        with opened(UDP, "127.0.0.1") as skt, opened(TCP, "127.0.0.1") as other:
            for program in range(100):
                self.map("udp", address("0.0.0.0", skt), program)
            self.map("tcp", address("0.0.0.0", other))
            self.assertEqual(len(self.clock.getDelayedCalls()), waiting + 1)
            self.turn()
            self.assertEqual(len(self.clock.getDelayedCalls()), waiting)
        self.look()
        self.assertEqual(self.rows(), [])

    def test_before_the_reply(self) -> None:
        """A service may end once it has its reply: whoever sends that takes the look first."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            waiting = len(self.clock.getDelayedCalls())
            self.liveness.look_at_new()
            self.assertEqual(len(self.clock.getDelayedCalls()), waiting - 1)
        self.turn()
        self.look()
        self.assertEqual(self.rows(), [])

    def test_stopped_before_the_look(self) -> None:
        """Mappings whose look was still due when the service stopped get it at the start."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.liveness.stopService()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.liveness.startService()
            self.turn()
        self.look()
        self.assertEqual(self.rows(), [])

    def test_closed(self) -> None:
        """After ``close`` the registry does without it."""
        self.liveness.stopService()
        self.liveness.close()
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slices(self) -> None:
        """A look at a host with many sockets gives others a turn in between."""

        def ticking() -> float:
            self.clock.rightNow += SLICE
            return self.clock.rightNow

        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.map("tcp", "0.0.0.0.0.9")
            self.look()
        self.patch(self.clock, "seconds", ticking)
        waiting = len(self.clock.getDelayedCalls())
        self.liveness._begin_look()
        self.assertEqual(len(self.clock.getDelayedCalls()), waiting + 1)
        self.liveness._begin_look()
        self.assertEqual(len(self.clock.getDelayedCalls()), waiting + 1)
        self.assertEqual(len(self.rows()), 2)
        self.clock.pump([0.001] * 20)
        self.assertEqual([m.netid for m in self.rows()], ["tcp"])

    def test_many_new(self) -> None:
        """Many new addresses are looked for in the tables at once, and are found."""
        with ExitStack() as stack:
            for program in range(MAX_NEW + 5):
                skt = stack.enter_context(opened(UDP, "127.0.0.1"))
                self.map("udp", address("0.0.0.0", skt), program)
            self.turn()
        self.look()
        self.assertEqual(self.rows(), [])

    def test_new_path(self) -> None:
        """The paths of new mappings are looked for soon, before a period ends."""
        with TemporaryDirectory() as folder:
            with socket.socket(socket.AF_UNIX) as skt:
                skt.bind(f"{folder}/s")
                skt.listen()
                self.map("local", f"{folder}/s")
                self.turn()
                self.clock.advance(SOON)
            self.look()
            self.assertEqual(self.rows(), [])

    def test_among_many_sockets(self) -> None:
        """On a host with many sockets, the kernel is asked for the few addresses of mappings."""
        with ExitStack() as stack:
            for _ in range(2 * QUESTION):
                stack.enter_context(opened(UDP, "127.0.0.1"))
            living, dying = (stack.enter_context(opened(UDP, "127.0.0.1")) for _ in range(2))
            self.map("udp", address("0.0.0.0", living), 8)
            self.map("udp", address("0.0.0.0", dying))
            self.look()
            self.patch(liveness, "scan", self.read_nothing)
            self.look(2)
            self.assertEqual(len(self.rows()), 2)
            dying.close()
            self.look()
            self.assertEqual([m.program for m in self.rows()], [8])

    def read_nothing(self, tables: Iterable[str]) -> Iterator[NoReturn]:
        """No table is to be read."""
        self.assertEqual(set(tables), set())
        return iter(())

    def test_found_by_no_question(self) -> None:
        """A socket that no question finds is found when the tables are read, now and then."""
        with ExitStack() as stack:
            for _ in range(2 * QUESTION):
                stack.enter_context(opened(UDP, "127.0.0.1"))
            skt = stack.enter_context(socket.socket(socket.AF_INET, UDP))
            skt.bind(("127.0.0.2", 0))
            where = address("0.0.0.0", skt)
            skt.close()
            self.map("udp", where)
            self.look(2)
            skt = stack.enter_context(socket.socket(socket.AF_INET, UDP))
            skt.bind(("127.0.0.2", mapping(7, 1, "udp", where).port))
            self.look(LOOKS)
            skt.close()
            self.look()
            self.assertEqual(self.rows(), [])

    def test_failure(self) -> None:
        """A look that fails is logged once, and the next one may succeed."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.look()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            self.look(3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(self.rows()), 1)
        self.look()
        self.assertEqual(self.rows(), [])

    def test_period(self) -> None:
        """It is looked once a period, while the service runs."""
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.turn()
        self.clock.advance(PERIOD * 0.9)
        self.assertEqual(len(self.rows()), 1)
        self.clock.advance(PERIOD * 0.2)
        self.assertEqual(self.rows(), [])

    def test_stopped(self) -> None:
        """Afterwards it is not, and the clock is left alone; it may begin again."""
        self.liveness.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        with opened(UDP, "127.0.0.1") as skt:
            self.map("udp", address("0.0.0.0", skt))
            self.turn()
        self.look(3)
        self.assertEqual(len(self.rows()), 1)
        self.liveness.startService()
        self.look()
        self.assertEqual(self.rows(), [])
