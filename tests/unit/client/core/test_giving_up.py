"""Giving up: operations that are cancelled, and clients that are closed, at any moment."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from portmapd.errors import ClientClosed, DaemonUnreachable
from tests.support.client_wire import PortmapperTestCase


class CancellingTests(PortmapperTestCase):
    """Giving up operations."""

    def test_waiting_for_the_connection(self) -> None:
        """One operation gives up; the others get their connection, and nothing stays of it."""
        first, second, third = (self.client.reg(name, 80) for name in ("a", "b", "c"))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.connect()
        self.successResultOf(first)
        self.successResultOf(third)
        self.assertEqual(self.names(), ["a", "c"])

    def test_the_one_that_began(self) -> None:
        """The same if it is the one for which the connection was asked."""
        first, second = self.client.reg("a", 80), self.client.reg("b", 80)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.connect()
        self.successResultOf(second)
        self.assertEqual(self.names(), ["b"])

    def test_while_greeting(self) -> None:
        """The same while the connection is greeted on."""
        first, second = self.client.reg("a", 80), self.client.reg("b", 80)
        wire = self.socket.accept()
        wire.serve()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertTrue(wire.transport.disconnecting)
        wire.lose()
        self.connect()
        self.successResultOf(second)
        self.assertEqual(self.names(), ["b"])

    def test_the_only_one(self) -> None:
        """Nobody else waits: there will be no connection."""
        result = self.client.list()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.idle()

    def test_everything_is_gone(self) -> None:
        """The connection is closed; what was registered is gone, and is not registered again."""
        wire = self.registered("a", "b")
        result = self.client.list()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertTrue(wire.transport.disconnecting)
        wire.lose()
        self.assertEqual(self.names(), [])
        self.idle()

    def test_others_are_told(self) -> None:
        """Other operations that wait on the connection fail with the reason."""
        wire = self.registered("a")
        other, result = self.client.reg("b", 80), self.client.list()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        wire.lose()
        self.fails(other, "another operation was cancelled", DaemonUnreachable)

    def test_next_one_connects(self) -> None:
        """An operation that comes before the old connection is gone gets a new one."""
        wire = self.registered("a")
        self.client.list().addErrback(lambda _: None).cancel()
        result = self.client.reg("b", 80)
        self.assertEqual(self.socket.asked, 2)
        wire.lose()
        self.connect()
        self.successResultOf(result)
        self.assertEqual(self.names(), ["b"])

    def test_while_restoring(self) -> None:
        """What was registered again until then is gone, and others get another connection."""
        self.registered("a", "b")
        self.restart()
        first, second = self.client.list(), self.client.list()
        wire = self.socket.accept()
        while b"Register" not in wire.commands:
            self.assertTrue(wire.serve() or wire.deliver())
        self.assertIn("a", self.names())
        first.cancel()
        self.failureResultOf(first, CancelledError)
        wire.settle()
        self.assertEqual(self.names(), [])
        self.connect()
        self.assertEqual(self.successResultOf(second), [])
        self.assertEqual(self.lost, [])

    def test_between_two_steps(self) -> None:
        """A registration with a mapping that is given up between the two leaves neither."""
        result = self.client.reg("a", 80, rpc=(9, 1))
        wire = self.socket.accept()
        while b"Register" not in wire.commands:
            self.assertTrue(wire.serve() or wire.deliver())
        result.cancel()
        self.failureResultOf(result, CancelledError)
        wire.settle()
        self.assertEqual(self.names(), [])
        self.assertNotIn(b"SetMappings", wire.commands)
        self.idle()

    def test_in_a_callback(self) -> None:
        """An operation may be given up in the callback of another that came with it."""
        first, second, third = (self.client.reg(name, 80) for name in ("a", "b", "c"))
        first.addCallback(lambda _: second.cancel())
        wire = self.connect()
        self.failureResultOf(second, CancelledError)
        self.fails(third, "another operation was cancelled", DaemonUnreachable)
        self.assertFalse(wire.deliver())
        self.assertEqual(self.names(), [])
        self.idle()


class ClosingTests(PortmapperTestCase):
    """Closing the client."""

    def closed(self) -> None:
        """Assert that it was closed, and stays so."""
        self.idle()
        self.fails(self.client.list(), "closed", ClientClosed)
        self.assertRaises(ClientClosed, self.client.watch)
        self.successResultOf(self.client.close())
        self.idle()

    def test_unused(self) -> None:
        """A client that was never used is closed at once."""
        self.successResultOf(self.client.close())
        self.closed()

    def test_connected(self) -> None:
        """It is closed when its connection is gone, and everything with it."""
        wire = self.registered("a")
        result = self.client.list()
        closing, again = self.client.close(), self.client.close()
        self.fails(result, "closed", ClientClosed)
        self.assertNoResult(closing)
        wire.lose()
        self.successResultOf(closing)
        self.successResultOf(again)
        self.assertEqual(self.names(), [])
        self.closed()

    def test_connecting(self) -> None:
        """While it connects, the attempt ends, and so do the operations that wait for it."""
        results: list[Deferred[Any]] = [self.client.reg("a", 80), self.client.list()]
        self.successResultOf(self.client.close())
        for result in results:
            self.fails(result, "closed", ClientClosed)
        self.closed()

    def test_greeting(self) -> None:
        """The same while it greets."""
        result = self.client.list()
        wire = self.socket.accept()
        closing = self.client.close()
        self.fails(result, "closed", ClientClosed)
        wire.lose()
        self.successResultOf(closing)
        self.closed()

    def test_restoring(self) -> None:
        """While it registers again, nothing of that stays."""
        self.registered("a")
        self.restart()
        self.reconnect()
        wire = self.socket.accept()
        while b"Register" not in wire.commands:
            self.assertTrue(wire.serve() or wire.deliver())
        closing = self.client.close()
        wire.lose()
        self.successResultOf(closing)
        self.assertEqual(self.names(), [])
        self.closed()

    def test_between_retries(self) -> None:
        """The same while it waits to try once more what was refused."""
        self.registered("a")
        self.restart()
        self.host.connect(pid=99).register(("a", "80", 1))
        self.reconnect()
        wire = self.connect()
        closing = self.client.close()
        wire.lose()
        self.successResultOf(closing)
        self.closed()
        self.assertEqual(self.lost, [])

    def test_waiting_to_connect(self) -> None:
        """While it waits to connect again, it waits no more."""
        self.registered("a")
        self.restart()
        self.successResultOf(self.client.close())
        self.closed()

    def test_in_a_callback(self) -> None:
        """It may be closed in the callback of an operation, whose companions fail."""
        first, second = self.client.reg("a", 80), self.client.reg("b", 80)
        first.addCallback(lambda _: [self.client.close()])
        self.connect()
        self.successResultOf(first)
        self.fails(second, "closed", ClientClosed)
        self.assertEqual(self.names(), [])
        self.closed()

    def test_abandoned_connection(self) -> None:
        """A connection that was given up before counts, too."""
        wire = self.registered("a")
        self.client.list().addErrback(lambda _: None).cancel()
        closing = self.client.close()
        self.assertNoResult(closing)
        wire.lose()
        self.successResultOf(closing)
        self.closed()
