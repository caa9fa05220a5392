"""The operations of a client, on a daemon in memory."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.blocking.connection import run
from portmapd.client.core import operations
from portmapd.client.core.operations import RETRIES, RETRY_WAIT
from portmapd.client.core.registrations import Group
from portmapd.client.values import RpcMapping, Service
from portmapd.errors import (
    AlreadyRegistered,
    DaemonUnreachable,
    InvalidService,
    NotRegistered,
    UnsupportedVersion,
)
from portmapd.server import listing
from tests.support.channel_sessions import Host
from tests.support.memory_connection import MemoryConnection, MemorySession

T = TypeVar("T")

A, B = ("a", "80", 0), ("b", "81", 1)
MAPPING = (9, 1, "tcp", "0.0.0.0.0.80")


class OperationsTestCase(SynchronousTestCase):
    """A client and another process."""

    def setUp(self) -> None:
        self.host = Host()
        self.other = self.host.connect(pid=8)
        self.connection = MemoryConnection(self.host.connect())
        self.session = MemorySession(self.connection)

    def names(self) -> list[str]:
        """What is registered."""
        return [service.name for service in self.host.registry.services()]

    def mapped(self) -> list[tuple[int, int, str]]:
        """What is mapped."""
        return [mapping.key for mapping in self.host.registry.mappings.after((0, 0, ""))]

    def done(self, work: Coroutine[Any, Any, T], *asked: str) -> T:
        """Do an operation; it asks these commands."""
        self.connection.asked.clear()
        result = run(work)
        self.assertEqual(self.connection.asked, list(asked))
        return result


class RegisterTests(OperationsTestCase):
    """Registering and its undoing."""

    def test_group(self) -> None:
        """Services and mappings are registered, and kept for the next connection."""
        group = Group((A, B), (MAPPING,))
        self.done(operations.register(self.session, group), "Register", "SetMappings")
        self.assertEqual((self.names(), self.mapped()), (["a", "b"], [MAPPING[:3]]))
        self.assertEqual(list(self.session.registrations), [group])

    def test_only_mappings(self) -> None:
        """Mappings alone need one command."""
        self.done(operations.register(self.session, Group(mappings=(MAPPING,))), "SetMappings")
        self.assertEqual(self.mapped(), [MAPPING[:3]])

    def test_refused_services(self) -> None:
        """Nothing is asked after a refusal, and nothing kept."""
        group = Group((("a b", "80", 0),), (MAPPING,))
        with self.assertRaises(InvalidService):
            self.done(operations.register(self.session, group))
        self.assertEqual(self.connection.asked, ["Register"])
        self.assertEqual(list(self.session.registrations), [])

    def test_refused_mappings(self) -> None:
        """The services are taken back."""
        self.other.set(MAPPING)
        with self.assertRaises(AlreadyRegistered):
            self.done(operations.register(self.session, Group((A,), (MAPPING,))))
        self.assertEqual(self.connection.asked, ["Register", "SetMappings", "Deregister"])
        self.assertEqual(self.names(), [])
        self.assertEqual(list(self.session.registrations), [])

    def test_deregister(self) -> None:
        """The mappings go with the last service on their port."""
        run(operations.register(self.session, Group((A, ("c", "80", 0)), (MAPPING,))))
        self.done(operations.deregister(self.session, [A[:2]]), "Deregister")
        self.assertEqual(self.mapped(), [MAPPING[:3]])
        self.done(operations.deregister(self.session, [("c", "80")]), "Deregister", "UnsetMappings")
        self.assertEqual((self.names(), self.mapped()), ([], []))
        self.assertEqual(list(self.session.registrations), [])

    def test_deregister_what_was_unset(self) -> None:
        """A mapping that the superuser has unset is not an error."""
        run(operations.register(self.session, Group((A,), (MAPPING,))))
        self.connection.session.unset(MAPPING)
        self.done(operations.deregister(self.session, [A[:2]]), "Deregister", "UnsetMappings")

    def test_deregister_refused(self) -> None:
        """What is refused changes nothing that is kept."""
        run(operations.register(self.session, Group((A,))))
        with self.assertRaises(NotRegistered):
            run(operations.deregister(self.session, [A[:2], B[:2]]))
        self.assertEqual(list(self.session.registrations), [Group((A,))])

    def test_unset(self) -> None:
        """A mapping leaves its group."""
        run(operations.register(self.session, Group((A,), (MAPPING,))))
        self.done(operations.unset(self.session, MAPPING), "UnsetMappings")
        self.assertEqual(list(self.session.registrations), [Group((A,))])
        with self.assertRaises(NotRegistered):
            run(operations.unset(self.session, MAPPING))

    def test_changes(self) -> None:
        """What changes registrations says so, for it must not be left half done."""
        run(operations.register(self.session, Group((A,), (MAPPING,))))
        run(operations.unset(self.session, MAPPING))
        run(operations.deregister(self.session, [A[:2]]))
        run(operations.list_services(self.session, {}))
        run(operations.list_mappings(self.session))
        self.assertEqual(self.session.changes, [True, True, True, False, False])


class ListTests(OperationsTestCase):
    """Listings."""

    def test_pages(self) -> None:
        """Listings come whole, whatever their pages."""
        self.patch(listing, "MAX_LOOKED_AT", 2)
        self.other.register(*((name, "80", 0) for name in "abcde"))
        found = self.done(operations.list_services(self.session, {"names": None}), *["List"] * 3)
        self.assertEqual(found, [Service(name, 104, 8, 80, "") for name in "abcde"])
        self.other.set(MAPPING)
        self.assertEqual(run(operations.list_mappings(self.session)), [RpcMapping(*MAPPING, "104")])

    def test_endless(self) -> None:
        """A listing of more pages, or of more rows, than any that makes sense is given up."""
        self.other.register(*((name, "80", 0) for name in "abcdefgh"))
        for limit, looked_at in (("MAX_PAGES", 2), ("MAX_ROWS", 4)):
            self.patch(listing, "MAX_LOOKED_AT", looked_at)
            self.patch(operations, limit, 2)
            with self.assertRaisesRegex(DaemonUnreachable, "no end"):
                run(operations.list_services(self.session, {}))

    def test_pid2exe(self) -> None:
        """The executable of the process that announces it; empty if none does."""
        self.assertEqual(run(operations.pid2exe(self.session, [8])), "")
        self.other.register(("pid2exe.portmapd", "*", 2))
        self.assertEqual(run(operations.pid2exe(self.session, [8])), "/bin/a")
        self.assertEqual(run(operations.pid2exe(self.session, [9])), "")

    def test_greet(self) -> None:
        """The daemon is greeted with our version; its refusal is raised."""
        self.done(operations.greet(self.connection), "Hello")

        def refuse(name: str) -> None:
            raise UnsupportedVersion("version 1: this daemon speaks 2")

        with self.assertRaises(UnsupportedVersion):
            run(operations.greet(MemoryConnection(self.host.connect(), refuse)))


class RestoreTests(OperationsTestCase):
    """Registering everything again."""

    def test_all(self) -> None:
        """Every group is registered as it was; none is refused."""
        groups = [Group((A, B)), Group((("c", "82", 0),), (MAPPING,))]
        self.assertEqual(run(operations.restore(self.connection, groups)), [])
        self.assertEqual(self.names(), ["a", "b", "c"])
        self.assertEqual(self.connection.slept, [])

    def test_passing(self) -> None:
        """What is in the way for a moment only is waited for."""

        def before(name: str) -> None:
            if name == "sleep" and len(self.connection.slept) == RETRIES:
                self.other.close()

        self.other = self.host.connect(pid=7)
        self.other.register(("a", "80", 1))
        self.connection = MemoryConnection(self.host.connect(), before)
        self.assertEqual(run(operations.restore(self.connection, [Group((A,))])), [])
        self.assertEqual(self.connection.slept, [RETRY_WAIT] * RETRIES)
        self.assertEqual(self.names(), ["a"])

    def test_for_good(self) -> None:
        """What stays in the way is refused at last; a wrong field is not tried again."""
        taken = self.host.connect(pid=9)
        taken.register(("b", "1", 1))
        groups = [Group((A,)), Group((("a b", "1", 0),)), Group((B,), (MAPPING,))]
        refused = run(operations.restore(self.connection, groups))
        self.assertEqual({group for group, _ in refused}, set(groups[1:]))
        self.assertEqual({type(why) for _, why in refused}, {InvalidService, AlreadyRegistered})
        self.assertEqual(self.connection.asked.count("Register"), 3 + RETRIES)
        self.assertEqual((self.names(), self.mapped()), (["b", "a"], []))
