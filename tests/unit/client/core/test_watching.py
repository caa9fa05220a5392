"""The watchers of one client: what they are told, over listings, overflows and connections."""

import random
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.client.core import watches
from portmapd.client.core.async_connection import AsyncConnection
from portmapd.client.core.watch_state import WatchState
from portmapd.client.core.watching import AsyncChanges, Watchers
from portmapd.client.twisted.connection import ChannelClientProtocol
from portmapd.client.twisted.runtime import ReactorRuntime
from portmapd.client.values import Change, Service
from portmapd.errors import ClientClosed, InternalError
from portmapd.server import listing
from portmapd.server import watchers as serving
from tests.support.channel_sessions import Connection, Host
from tests.support.client_wire import PATH, PortmapperTestCase, Wire
from tests.support.rpc_samples import PROPERTY


def next_of(watching: AsyncChanges) -> "Deferred[Change]":
    """The next change."""
    return Deferred.fromCoroutine(watching.__anext__())


class WatchTests(PortmapperTestCase):
    """What a consumer is told."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.host.connect(pid=8)

    def settle(self) -> None:
        """Let everything travel."""
        self.socket.wires[-1].settle()

    def taken(self, watching: AsyncChanges) -> list[tuple[str, Any]]:
        """What waits for the consumer: kinds, and names or netids."""
        changes = [self.successResultOf(next_of(watching)) for _ in tuple(watching.state.changes)]
        return [(one.kind, getattr(one.subject, "name", None)) for one in changes]

    def test_beginning(self) -> None:
        """It begins with what is registered, before and after; mappings, too."""
        self.other.register(("a", "80", 0))
        self.other.set((9, 1, "tcp", "0.0.0.0.0.80"))
        watching = self.client.watch()
        wire = self.connect()
        self.assertEqual(self.taken(watching), [("mapped", None), ("registered", "a")])
        self.other.register(("b", "80", 0))
        self.other.deregister(("a", "80"))
        self.other.unset((9, 1, "tcp", "0.0.0.0.0.80"))
        self.settle()
        self.assertEqual(
            self.taken(watching), [("registered", "b"), ("deregistered", "a"), ("unmapped", None)]
        )
        self.assertEqual(wire.commands, [b"Hello", b"Watch", b"ListMappings", b"List"])

    def test_several(self) -> None:
        """Each of several watchings has its own names; the daemon is asked for all of them."""
        self.other.register(("a", "80", 0), ("b", "80", 0), ("c", "80", 0))
        first, second = self.client.watch("a"), self.client.watch(["b", "c"])
        self.connect()
        third = self.client.watch(["c", "d"])
        self.settle()
        self.other.register(("d", "80", 0))
        self.other.deregister(("c", "80"))
        self.settle()
        came, went = "registered", "deregistered"
        self.assertEqual(self.taken(first), [(came, "a")])
        self.assertEqual(self.taken(second), [(came, "b"), (came, "c"), (went, "c")])
        self.assertEqual(self.taken(third), [(came, "c"), (came, "d"), (went, "c")])

    def test_same_names(self) -> None:
        """Two consumers of the same name are both told."""
        watchings = [self.client.watch("a"), self.client.watch("a"), self.client.watch()]
        self.connect()
        self.other.register(("a", "80", 0))
        self.settle()
        for watching in watchings:
            self.assertEqual(self.taken(watching), [("registered", "a")])

    def test_too_many_names(self) -> None:
        """More names than fit a message are watched all the same."""
        self.patch(watches, "MAX_NAMES", 20)
        watching = self.client.watch(["a" * 10, "b" * 10])
        self.connect()
        self.other.register(("a" * 10, "80", 0), ("c", "80", 0))
        self.other.set((9, 1, "tcp", "0.0.0.0.0.80"))
        self.settle()
        self.assertEqual(self.taken(watching), [("registered", "a" * 10)])

    def test_waiting(self) -> None:
        """A consumer that waits is woken; one that gives up loses nothing."""
        watching = self.client.watch("a")
        self.connect()
        waiting = next_of(watching)
        self.assertNoResult(waiting)
        self.failureResultOf(next_of(watching), RuntimeError)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.other.register(("a", "80", 0))
        self.settle()
        self.assertEqual(self.taken(watching), [("registered", "a")])

    def test_restart(self) -> None:
        """Over a restart, what is different is told, and nothing else."""
        self.other.register(("a", "80", 0), ("b", "80", 0))
        watching = self.client.watch()
        self.connect()
        self.taken(watching)
        self.restart()
        self.host.connect(pid=8).register(("b", "80", 0), ("c", "80", 0))
        self.reconnect()
        self.connect()
        self.assertEqual(self.taken(watching), [("deregistered", "a"), ("registered", "c")])

    def test_without_a_daemon(self) -> None:
        """A watching waits for a daemon."""
        watching = self.client.watch()
        self.socket.refuse()
        self.other.register(("a", "80", 0))
        self.reconnect()
        self.connect()
        self.assertEqual(self.taken(watching), [("registered", "a")])

    def test_abandoned(self) -> None:
        """A watching goes on when another operation's end closed the connection."""
        watching = self.client.watch()
        wire = self.registered("a")
        self.client.list().addErrback(lambda _: None).cancel()
        wire.lose()
        self.reconnect()
        self.connect()
        changes = [("registered", "a"), ("deregistered", "a")]
        self.assertEqual(self.taken(watching), changes)

    def test_lost_while_listing(self) -> None:
        """A connection that is lost meanwhile is made again, and everything listed."""
        self.other.register(("a", "80", 0))
        watching = self.client.watch()
        wire = self.socket.accept()
        for _ in range(3):
            wire.serve()
            wire.deliver()
        wire.serve()
        wire.lose()
        self.reconnect()
        self.connect()
        self.assertEqual(self.taken(watching), [("registered", "a")])

    def test_refused(self) -> None:
        """A daemon that refuses to be watched ends the iteration, and nothing else."""
        watching = self.client.watch()
        waiting = next_of(watching)
        result = self.client.reg("a", 80)
        wire = self.socket.accept()
        while b"Watch" not in wire.commands:
            wire.serve()
            if b"Watch" not in wire.commands:
                wire.deliver()
        wire.forget()
        wire.send(c.encode_refusal(b"2", InternalError("its log tells how")))
        self.failureResultOf(waiting, InternalError)
        self.failureResultOf(next_of(watching), InternalError)
        wire.send(c.REGISTER.reply(b"3", {}))
        self.successResultOf(result)
        self.assertFalse(wire.transport.disconnecting)

    def test_close(self) -> None:
        """A closed watching ends after what came; the last one tells the daemon."""
        first, second = self.client.watch("a"), self.client.watch("b")
        wire = self.connect()
        self.other.register(("a", "80", 0))
        self.settle()
        first.close()
        first.close()
        self.settle()
        self.assertNotIn(b"Unwatch", wire.commands)
        self.assertEqual(self.taken(first), [("registered", "a")])
        self.failureResultOf(next_of(first), StopAsyncIteration)
        waiting = next_of(second)
        second.close()
        self.failureResultOf(waiting, StopAsyncIteration)
        self.settle()
        self.assertIn(b"Unwatch", wire.commands)
        wire.lose()
        self.idle()

    def test_after_the_last(self) -> None:
        """A watching that begins after the last one was closed is told."""
        self.client.watch("a").close()
        watching = self.client.watch("a")
        self.connect()
        watching.close()
        watching = self.client.watch("a")
        self.settle()
        self.other.register(("a", "80", 0))
        self.settle()
        self.assertEqual(self.taken(watching), [("registered", "a")])

    def test_client_closes(self) -> None:
        """Closing the client ends every iteration."""
        watchings = [self.client.watch(), self.client.watch("a")]
        waiting = [next_of(watching) for watching in watchings]
        wire = self.connect()
        self.client.close()
        for one in waiting:
            self.failureResultOf(one, StopAsyncIteration)
        wire.lose()
        self.assertRaises(ClientClosed, self.client.watch)
        self.idle()

    def test_application_fails(self) -> None:
        """A consumer that fails harms neither the connection nor other consumers."""

        async def consume(watching: AsyncChanges) -> None:
            async for _ in watching:
                raise ZeroDivisionError

        consumers = [Deferred.fromCoroutine(consume(self.client.watch())) for _ in range(2)]
        other = self.client.watch()
        wire = self.connect()
        self.other.register(("a", "80", 0))
        self.settle()
        for consumer in consumers:
            self.failureResultOf(consumer, ZeroDivisionError)
        self.assertEqual(self.taken(other), [("registered", "a")])
        self.assertFalse(wire.transport.disconnecting)

    def test_application_watches(self) -> None:
        """A consumer may begin and end watchings, and use the client, from within."""
        found: list[AsyncChanges] = []

        async def consume(watching: AsyncChanges) -> None:
            async for _ in watching:
                found.append(self.client.watch("a"))
                await self.client.reg("b", 80)
                watching.close()

        consumer = Deferred.fromCoroutine(consume(self.client.watch()))
        self.connect()
        self.other.register(("a", "80", 0))
        self.settle()
        self.successResultOf(consumer)
        self.assertEqual(self.taken(found[0]), [("registered", "a")])
        self.assertIn("b", self.names())

    def test_overflow(self) -> None:
        """What the daemon left out is found by listing again; many overflows need few listings."""
        watching = self.client.watch()
        wire = self.connect()
        self.other.register(*((f"a{number}", "80", 0) for number in range(10)))
        wire.forget()
        for _ in range(50):
            wire.queue(c.OVERFLOW_BOX)
        self.settle()
        self.assertEqual(len(self.taken(watching)), 10)
        self.assertLessEqual(wire.commands.count(b"List"), 3)


NAMES = ("a", "b", "c")

#: What happens: a connection registers or deregisters a service (if it does not or does hold it),
#: sets or unsets a mapping, or ends; the client's connection is paused, and goes on; another
#: watching begins; so many boxes travel each way.
STEPS = st.lists(
    st.one_of(
        *[st.tuples(st.just("service"), st.integers(0, 3), st.sampled_from(NAMES))] * 4,
        *[st.tuples(st.just("travel"), st.integers(1, 3))] * 3,
        st.tuples(st.just("mapping"), st.integers(0, 3), st.integers(1, 3)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["pause", "resume", "watch"])),
    ),
    max_size=60,
)


class Story:
    """A daemon with small pages, four connections of two processes, and a client that watches."""

    def __init__(self, names: frozenset[str]) -> None:
        self.host = Host(limit=1_000)
        self.connections = [self._connection(at) for at in range(4)]
        for connection in self.connections:
            connection.register(*((name, "80", 0) for name in NAMES[:2]))
        reactor: Any = MemoryReactorClock()
        runtime = ReactorRuntime(reactor)
        self.watchers = Watchers(runtime)
        take: Any = self.watchers.take
        self.connection = AsyncConnection(runtime, PATH, take, lambda connection: None)
        self.wire = Wire(ChannelClientProtocol(self.connection), self.host)
        self.watchings = [self.watchers.watch(names)]
        self.watchers.begin(self.connection)

    def _connection(self, at: int) -> Connection:
        return self.host.connect(pid=100 + at % 2)

    def tell(self, what: str, *how: Any) -> None:
        """Let a step happen."""
        getattr(self, f"_{what}")(*how)

    def _service(self, at: int, name: str) -> None:
        connection = self.connections[at]
        if (name, "80") in connection.holder.services:
            connection.deregister((name, "80"))
        else:
            connection.register((name, "80", 0))

    def _mapping(self, at: int, program: int) -> None:
        connection, mapping = self.connections[at], (program, 1, "tcp", f"0.0.0.0.0.{at + 1}")
        if (program, 1, "tcp") in connection.holder.mappings:
            connection.unset(mapping)
        elif self.host.registry.mappings.get(program, 1, "tcp") is None:
            connection.set(mapping)

    def _end(self, at: int) -> None:
        self.connections[at].close()
        self.connections[at] = self._connection(at)

    def _pause(self) -> None:
        self.wire.pause()

    def _resume(self) -> None:
        self.wire.resume()

    def _watch(self) -> None:
        self.watchings.append(self.watchers.watch(frozenset({"a"})))
        self.watchers.begin(self.connection)

    def _travel(self, times: int) -> None:
        for _ in range(times):
            self.wire.serve()
            self.wire.deliver()

    def registered(self, state: WatchState) -> Counter[Any]:
        """What is registered, of what is watched."""
        rows: list[Any] = [
            Service(s.name, s.uid, s.pid, int(s.port), s.exe) for s in self.host.registry.services()
        ]
        rows += [(m.program, m.address) for m in self.host.registry.mappings.after((0, 0, ""))]
        return Counter(
            row for row in rows if not state.names or getattr(row, "name", "") in state.names
        )


def added_up(changes: "list[Change]") -> Counter[Any]:
    """What changes add up to; nothing may go that did not come."""
    known: Counter[Any] = Counter()
    for change in changes:
        subject: Any = change.subject
        key = subject if isinstance(subject, Service) else (subject.program, subject.address)
        known[key] += 1 if change.kind in {"registered", "mapped"} else -1
        assert known[key] >= 0, change
    return +known


class WatchersProperties(SynchronousTestCase):
    """What holds whatever happens between the daemon and the client."""

    @PROPERTY
    @given(STEPS, st.sampled_from([frozenset[str](), frozenset({"a", "b"})]))
    def test_adds_up(self, steps: list[tuple[Any, ...]], names: frozenset[str]) -> None:
        """In the end each consumer knows what is registered, equal services included."""
        self.patch(listing, "MAX_LOOKED_AT", 2)
        self.patch(serving, "MAX_WAITING", 200)
        story = Story(names)
        for step in steps:
            story.tell(*step)
        story.tell("resume")
        story.wire.settle()
        for watching in story.watchings:
            self.assertEqual(
                added_up(list(watching.state.changes)), story.registered(watching.state)
            )

    def test_storm(self) -> None:
        """The same again and again, with each watching beginning in the midst of changes."""
        self.patch(listing, "MAX_LOOKED_AT", 2)
        dice = random.Random(7)
        for _ in range(200):
            story = Story(frozenset())
            for _ in range(100):
                story.tell("service", dice.randrange(4), dice.choice(NAMES))
                story.tell("mapping", dice.randrange(4), dice.randrange(1, 4))
                story.tell("travel", dice.randrange(3))
            story.wire.settle()
            state = story.watchings[0].state
            self.assertEqual(added_up(list(state.changes)), story.registered(state))
