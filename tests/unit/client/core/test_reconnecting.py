"""The client's connection: made once for all who need it, made again, given up without harm."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from portmapd.channel import commands as c
from portmapd.channel.socket_path import asking_socket
from portmapd.client.core.connecting import FIRST_WAIT, LONGEST_WAIT, QUEUE_WAIT, TIMEOUT
from portmapd.client.core.operations import RETRIES, RETRY_WAIT
from portmapd.client.core.reconnecting import GREETING_TIMEOUT
from portmapd.client.core.registrations import Group
from portmapd.client.twisted import Portmapper
from portmapd.errors import (
    AlreadyRegistered,
    ClientClosed,
    DaemonUnreachable,
    InvalidService,
    PortmapdError,
    UnsupportedVersion,
)
from portmapd.waiting import JITTER
from tests.support.client_wire import PATH, PortmapperTestCase


class ConnectingTests(PortmapperTestCase):
    """Making the connection."""

    def test_shared(self) -> None:
        """It is made when it is first needed, once for all operations, and greets first."""
        self.assertEqual(self.socket.asked, 0)
        wire = self.registered("a", "b")
        self.assertEqual(self.socket.asked, 1)
        self.assertEqual(wire.commands, [b"Hello", b"Register", b"Register"])
        result = self.client.list("a")
        wire.settle()
        self.assertEqual(len(self.successResultOf(result)), 1)
        self.assertEqual(self.socket.asked, 1)

    def test_default_path(self) -> None:
        """Without a path, it is the daemon's default socket."""
        self.client = Portmapper(self.reactor)
        self.registered("a")
        self.assertEqual(self.reactor.unixClients[0][0], asking_socket())

    def test_refused(self) -> None:
        """All operations fail, saying where there is no daemon and what to do."""
        results: list[Deferred[Any]] = [self.client.reg("a", 80), self.client.list()]
        self.socket.refuse()
        for result in results:
            self.fails(result, f"no daemon answers at {PATH}", DaemonUnreachable)
        self.idle()

    def test_full_queue(self) -> None:
        """A daemon whose queue is full is asked again, for some time, and with short waits."""
        result = self.client.list()
        for _ in range(round(TIMEOUT / QUEUE_WAIT / 2)):
            self.socket.fill()
            self.reactor.advance(QUEUE_WAIT)
        self.assertNoResult(result)
        self.connect()
        self.successResultOf(result)

    def test_full_queue_stays(self) -> None:
        """One whose queue stays full does not answer; the error says why."""
        result = self.client.list()
        self.socket.fill()
        self.reactor.advance(TIMEOUT)
        self.socket.fill()
        self.fails(result, "its queue of connections is full); is portmapd", DaemonUnreachable)
        self.idle()

    def test_closed_while_the_queue_is_full(self) -> None:
        """A client that is closed meanwhile asks no more."""
        result = self.client.list()
        self.socket.fill()
        self.successResultOf(self.client.close())
        self.failureResultOf(result, ClientClosed)
        self.idle()

    def test_again_after_a_refusal(self) -> None:
        """The next operation tries anew."""
        self.client.reg("a", 80).addErrback(lambda _: None)
        self.socket.refuse()
        self.registered("b")
        self.assertEqual(self.names(), ["b"])

    def test_again_in_the_callback(self) -> None:
        """An operation that is begun when another one fails is not failed with it."""
        again: list[Deferred[Any]] = []
        self.client.list().addErrback(lambda _: again.append(self.client.list()))
        self.socket.refuse()
        self.assertNoResult(again[0])
        self.connect()
        self.successResultOf(again[0])

    def test_silence(self) -> None:
        """What takes the connection and says nothing is given up after a while."""
        result = self.client.list()
        wire = self.socket.accept()
        self.reactor.advance(GREETING_TIMEOUT - 1)
        self.assertNoResult(result)
        self.reactor.advance(1)
        self.assertTrue(wire.transport.disconnecting)
        self.fails(result, f"what listens at {PATH} does not answer", DaemonUnreachable)
        self.idle()

    def test_garbage(self) -> None:
        """What speaks another language is said to be no portmapd."""
        result = self.client.list()
        wire = self.socket.accept()
        wire.send(b"220 mail.example.com ESMTP\r\n")
        wire.lose()
        self.fails(result, f"what serves at {PATH} is not a portmapd", DaemonUnreachable)
        self.idle()

    def test_other_version(self) -> None:
        """A daemon of another version is refused."""
        result = self.client.list()
        wire = self.socket.accept()
        refusal = c.encode_refusal(b"1", UnsupportedVersion("version 1: this daemon speaks 2"))
        wire.send(refusal)
        self.fails(result, "speaks 2", UnsupportedVersion)
        self.assertTrue(wire.transport.disconnecting)
        self.idle()

    def test_arguments_come_first(self) -> None:
        """Nonsense is refused without a connection."""
        self.fails(self.client.reg("a", 0), "port 0", InvalidService)
        self.assertEqual(self.socket.asked, 0)


class RestoringTests(PortmapperTestCase):
    """Connecting again, and what is registered then."""

    def test_groups(self) -> None:
        """Everything is registered again in the groups in which it was, without being asked."""
        results = [
            self.client.reg([("a", 80, 0), ("b", [81, 82], 1)]),
            self.client.reg("c", "/run/c", rpc=(9, 1)),
            self.client.set(9, 2, "udp", "0.0.0.0.0.80"),
            self.client.reg("d", 83),
        ]
        self.connect()
        for result in results:
            self.successResultOf(result)
        dereg = self.client.dereg([("d", 83), ("b", 82)])
        self.socket.wires[-1].settle()
        self.successResultOf(dereg)
        self.restart()
        self.reconnect()
        wire = self.connect()
        self.assertEqual(self.names(), ["a", "b", "c"])
        self.assertEqual(
            [m.key for m in self.host.registry.mappings.after((0, 0, ""))],
            [(9, 1, "local"), (9, 2, "udp")],
        )
        self.assertEqual(wire.commands.count(b"Register"), 2)
        self.assertEqual(self.lost, [])
        self.idle()

    def test_nothing_registered(self) -> None:
        """Without registrations there is no reason to connect again."""
        wire = self.registered("a")
        dereg = self.client.dereg("a", 80)
        wire.settle()
        self.successResultOf(dereg)
        self.restart()
        self.idle()

    def test_waits(self) -> None:
        """The waits between attempts double, up to the longest, with some jitter."""
        self.registered("a")
        self.restart()
        wait = FIRST_WAIT
        for _ in range(10):
            (later,) = self.reactor.getDelayedCalls()
            span = later.getTime() - self.reactor.seconds()
            self.assertGreaterEqual(span, wait * (1 - JITTER / 2))
            self.assertLessEqual(span, wait * (1 + JITTER / 2))
            self.reactor.advance(span)
            self.socket.refuse()
            wait = min(2 * wait, LONGEST_WAIT)
        self.reconnect()
        self.connect()
        self.assertEqual(self.names(), ["a"])
        self.restart()
        (later,) = self.reactor.getDelayedCalls()
        self.assertLess(later.getTime() - self.reactor.seconds(), 2 * FIRST_WAIT)

    def test_operation_comes_first(self) -> None:
        """An operation does not wait for the next attempt; it finds everything restored."""
        self.registered("a")
        self.restart()
        result = self.client.list()
        self.connect()
        self.assertEqual([service.name for service in self.successResultOf(result)], ["a"])
        self.reactor.advance(LONGEST_WAIT)
        self.assertEqual(self.socket.asked, 2)

    def test_broken_while_it_waits(self) -> None:
        """An operation that waits when the daemon ends fails, and is not done again."""
        wire = self.registered("a")
        result = self.client.reg("b", 81)
        self.restart()
        self.assertFalse(wire.deliver())
        self.fails(result, "was lost", DaemonUnreachable)
        self.reconnect()
        self.connect()
        self.assertEqual(self.names(), ["a"])

    def test_dereg_that_is_not_answered(self) -> None:
        """What was not deregistered for sure is still registered."""
        self.registered("a")
        result = self.client.dereg("a", 80)
        self.restart()
        self.fails(result, "was lost", DaemonUnreachable)
        self.reconnect()
        self.connect()
        self.assertEqual(self.names(), ["a"])

    def test_broken_while_restoring(self) -> None:
        """A connection that breaks meanwhile is made once more."""
        self.registered("a", "b")
        for _ in range(3):
            self.restart()
            self.reconnect()
            wire = self.socket.accept()
            wire.serve()
            wire.deliver()
            wire.serve()
        self.restart()
        self.reconnect()
        self.connect()
        self.assertEqual(self.names(), ["a", "b"])

    def test_lost(self) -> None:
        """What another one took meanwhile is told of, with the reason; the rest is registered."""
        self.registered("a", "b")
        self.restart()
        self.host.connect(pid=99).register(("a", "80", 1))
        self.reconnect()
        wire = self.socket.accept()
        wire.settle()
        for _ in range(RETRIES):
            self.assertEqual(self.lost, [])
            self.reactor.advance(RETRY_WAIT)
            wire.settle()
        self.reactor.advance(0)
        ((group, why),) = self.lost
        self.assertEqual(group, Group((("a", "80", 0),)))
        self.assertIsInstance(why, AlreadyRegistered)
        self.assertIn("pid 99", str(why))
        self.assertEqual(self.names(), ["a", "b"])
        self.restart()
        self.reconnect()
        self.connect()
        self.assertEqual(self.names(), ["b"])

    def test_lost_as_a_group(self) -> None:
        """A group of which a part is refused is not registered at all."""
        result = self.client.reg("a", 80, rpc=(9, 1))
        self.connect()
        self.successResultOf(result)
        self.restart()
        self.host.connect(pid=99).set((9, 1, "tcp", "0.0.0.0.0.99"))
        self.reconnect()
        self._pass_retries()
        self.assertEqual([group.services for group, _ in self.lost], [(("a", "80", 0),)])
        self.assertEqual(self.names(), [])

    def _pass_retries(self) -> None:
        wire = self.connect()
        for _ in range(RETRIES):
            self.reactor.advance(RETRY_WAIT)
            wire.settle()
        self.reactor.advance(0)

    def test_passing_refusal(self) -> None:
        """What is in the way only for a moment, as our own old connection may be, is not a loss."""
        self.registered("a")
        self.restart()
        ghost = self.host.connect(pid=7)
        ghost.register(("a", "80", 1))
        self.reconnect()
        wire = self.connect()
        ghost.close()
        self.reactor.advance(RETRY_WAIT)
        wire.settle()
        self.reactor.advance(0)
        self.assertEqual(self.names(), ["a"])
        self.assertEqual(self.lost, [])

    def test_many_are_lost_together(self) -> None:
        """Operations do not wait longer for many lost groups than for one."""
        self.registered(*(f"a{number}" for number in range(50)))
        self.restart()
        other = self.host.connect(pid=99)
        for number in range(10):
            other.register((f"a{number}", "80", 1))
        result = self.client.list("a0")
        self._pass_retries()
        self.successResultOf(result)
        self.assertEqual(len(self.lost), 10)
        self.assertEqual(len(self.names()), 50)

    def test_application_fails(self) -> None:
        """A callback that fails is logged, and harms nothing."""
        self.client = Portmapper(self.reactor, PATH, lambda group, why: 1 // 0)
        self.registered("a", "b")
        self.restart()
        self.host.connect(pid=99).register(("a", "80", 1))
        self.reconnect()
        self._pass_retries()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(sorted(self.names()), ["a", "b"])
        self.idle()

    def test_application_uses_the_client(self) -> None:
        """The callback may register something else, and close the client."""
        done: list[Deferred[Any]] = []

        def use(group: Group, why: PortmapdError) -> None:
            done.append(self.client.reg("other", 80))
            done.append(self.client.close())

        self.client = Portmapper(self.reactor, PATH, use)
        self.registered("a", "b")
        self.restart()
        self.host.connect(pid=99).register(("a", "80", 1))
        self.reconnect()
        self._pass_retries()
        self.socket.wires[-1].lose()
        self.failureResultOf(done[0], ClientClosed)
        self.successResultOf(done[1])

    def test_log(self) -> None:
        """Without a callback, the log tells what was lost."""
        self.client = Portmapper(self.reactor, PATH)
        self.registered("a")
        self.restart()
        self.host.connect(pid=99).register(("a", "80", 1))
        self.reconnect()
        with capturedLogs() as events:
            self._pass_retries()
        (event,) = [event for event in events if event["log_level"] == LogLevel.warn]
        self.assertIn("pid 99", str(event["why"]))
