"""Dead services: seen bound, then gone, then removed; and what is never removed."""

import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.netid import format_address
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Mapping, mapping
from portmapd.registry.registry import Registry
from portmapd.server.liveness import Liveness
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
