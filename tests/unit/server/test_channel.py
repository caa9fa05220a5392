"""Connections of the local channel over socket pairs: order, back-pressure, breaks, ends."""

import gc
import os
import socket
import weakref
from typing import Any

from twisted.logger import LogEvent, capturedLogs, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader
from portmapd.registry.holder import Holder
from portmapd.registry.registry import Registry
from portmapd.server import watchers
from portmapd.server.channel import MAX_HELD, UNREAD, WAITING, ChannelFactory, ChannelProtocol
from portmapd.server.peer_lookups import DELAY, PeerLookups
from portmapd.server.peer_process import Processes
from portmapd.server.quota import Budget
from portmapd.server.rate_limited_log import MAX_LINES, RateLimitedLog
from portmapd.server.turns import TurnQueue
from portmapd.server.watchers import MAX_WAITING
from tests.support.stepped_reactor import Turns, is_closed

#: Two bytes that are the length of no key.
BREAK = b"\xff\xff"


def boxes(data: bytes) -> list[Box]:
    """The boxes in *data*."""
    return list(BoxReader().feed(data))


def register(name: str, tag: bytes = b"1") -> bytes:
    """A box that registers a service."""
    return c.REGISTER.ask(tag, {"services": [(name, "80", 0)]})


class ChannelTestCase(SynchronousTestCase):
    """A channel without a listening socket."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.registry = Registry()
        self.factory = self.made()

    def made(self, descriptors: int = 100, limit: int = 100_000) -> ChannelFactory:
        """A factory."""
        reactor = self.turns.reactor
        self.processes = Processes(self.turns.epoll_group, reactor, limit, limit)
        return ChannelFactory(
            self.registry,
            self.processes,
            PeerLookups(reactor),
            RateLimitedLog(reactor),
            TurnQueue(reactor),
            descriptors,
        )

    def connect(self) -> socket.socket:
        """A connection of this process."""
        peer = self.turns.connect(self.factory.buildProtocol(None))
        self.addCleanup(self.turns.run)
        self.addCleanup(peer.close)
        return peer

    def names(self) -> list[str]:
        """What is registered."""
        return [service.name for service in self.registry.services()]

    def fill(self, count: int) -> None:
        """Register services whose rows have about 300 bytes."""
        holder = self.registry.open(Holder(104, 1))
        new = [holder.new_service(f"{number}" + "x" * 200, "80", 0) for number in range(count)]
        self.registry.register(*new)


class AnswerTests(ChannelTestCase):
    """Answers, in order, for those that read them."""

    def test_pipelined(self) -> None:
        """Commands that come at once are answered in order, each with its tag."""
        peer = self.connect()
        data = b"".join(register(f"n{number}", b"%d" % number) for number in range(2_000))
        answers = boxes(self.turns.exchange(peer, data))
        self.assertEqual([box[b"_answer"] for box in answers], [b"%d" % n for n in range(2_000)])
        self.assertEqual(len(self.names()), 2_000)

    def test_byte_by_byte(self) -> None:
        """It does not matter in what pieces a command comes."""
        peer = self.connect()
        data = register("a") + c.HELLO.ask(b"2", {"version": 1})
        received = b"".join(self.turns.exchange(peer, data[at : at + 1]) for at in range(len(data)))
        answer, hello = boxes(received)
        self.assertEqual(answer, {b"_answer": b"1"})
        self.assertEqual(hello[b"pid"], b"%d" % os.getpid())
        self.assertEqual(hello[b"uid"], b"%d" % os.geteuid())

    def test_events_in_turns(self) -> None:
        """Watchers are told in turns, each in order: its events, then answers that know of them."""
        self.patch(watchers, "TURN", -1.0)
        watching = [self.connect() for _ in range(20)]
        for peer in watching:
            self.turns.exchange(peer, c.WATCH.ask(b"1", {}))
        working = self.connect()
        self.turns.exchange(working, c.WATCH.ask(b"1", {}))
        working.send(register("a", b"2") + register("b", b"3"))
        self.turns.run()
        own = [box.get(b"_answer") or box[b"name"] for box in boxes(self.turns.exchange(working))]
        self.assertEqual(own, [b"a", b"2", b"b", b"3"])
        for peer in watching:
            told = boxes(self.turns.exchange(peer, c.LIST.ask(b"4", {})))
            self.assertEqual([box.get(b"name") for box in told], [b"a", b"b", None])
            self.assertIn(b"b", told[-1][b"services"])

    def test_peer_that_does_not_read(self) -> None:
        """Its commands wait where they are; all are answered when it reads."""
        self.fill(300)
        peer = self.connect()
        data = b"".join(c.LIST.ask(b"%d" % number, {}) for number in range(200))
        peer.send(data + register("a"))
        self.turns.run()
        self.assertNotIn("a", self.names())
        received = b"".join(self.turns.exchange(peer) for _ in range(3))
        self.assertIn("a", self.names())
        self.assertEqual(len(boxes(received)), 201)

    def test_others_meanwhile(self) -> None:
        """While one has much answered, others have their turns."""
        self.fill(2_000)
        busy, other = self.connect(), self.connect()
        busy.send(c.LIST.ask(b"1", {"users": [5]}) * 600)
        other.send(c.HELLO.ask(b"1", {"version": 1}))
        for _ in range(10):
            self.turns.turn()
        self.assertEqual(len(boxes(other.recv(1_000))), 1)
        self.assertEqual(len(boxes(self.turns.exchange(busy))), 600)

    def test_events_among_answers(self) -> None:
        """An event comes behind the answers to the commands before it."""
        peer = self.connect()
        unregister = c.DEREGISTER.ask(b"3", {"services": [("a", "80")]})
        told = boxes(
            self.turns.exchange(peer, c.WATCH.ask(b"1", {}) + register("a", b"2") + unregister)
        )
        order = [box.get(b"_answer") or box[b"change"] for box in told]
        self.assertEqual(order, [b"1", b"registered", b"2", b"deregistered", b"3"])


class WatchTests(ChannelTestCase):
    """Events, for those that read them."""

    def test_watcher_that_does_not_read(self) -> None:
        """It gets what fits, in order, then an overflow; later events as ever."""
        watching, working = self.connect(), self.connect()
        self.turns.exchange(watching, c.WATCH.ask(b"1", {}))
        name = "x" * 200
        events = 0
        while events * 200 < 4 * MAX_WAITING:
            unregister = c.DEREGISTER.ask(b"2", {"services": [(name, "80")]})
            self.turns.exchange(working, (register(name) + unregister) * 50)
            events += 100
        *told, last = boxes(b"".join(self.turns.exchange(watching) for _ in range(5)))
        self.assertEqual(last, {b"_command": b"Overflow"})
        self.assertLess(len(told), events)
        changes = [box[b"change"] for box in told]
        self.assertEqual(
            changes, [(b"registered", b"deregistered")[at % 2] for at in range(len(told))]
        )
        self.turns.exchange(working, register("a"))
        (event,) = boxes(self.turns.exchange(watching))
        self.assertEqual((event[b"change"], event[b"name"]), (b"registered", b"a"))

    def test_peer_that_does_neither(self) -> None:
        """A watcher that sends commands and reads nothing gets all of it in the end, in order."""
        self.fill(300)
        peer = self.connect()
        peer.send(c.WATCH.ask(b"w", {}) + c.LIST.ask(b"l", {}) * 20 + register("a", b"r"))
        self.turns.run()
        holder = self.registry.open(Holder(104, 1))
        self.registry.register(holder.new_service("b", "80", 0))
        answers = boxes(b"".join(self.turns.exchange(peer) for _ in range(3)))
        order = [box.get(b"_answer") or box[b"name"] for box in answers]
        self.assertEqual([each for each in order if each != b"l"], [b"w", b"b", b"a", b"r"])
        self.assertEqual(order.count(b"l"), 20)


class BreakTests(ChannelTestCase):
    """What breaks the framing."""

    def test_behind_the_answers(self) -> None:
        """The connection is closed behind the answers to what came before; all of it is gone."""
        peer = self.connect()
        answers = boxes(self.turns.exchange(peer, register("a") + register("b", b"2") + BREAK))
        self.assertEqual([box[b"_answer"] for box in answers], [b"1", b"2"])
        self.assertTrue(is_closed(peer))
        self.assertEqual(self.names(), [])

    def test_peer_that_does_not_read(self) -> None:
        """Neither does it stay open if the peer reads its answers late, or never."""
        self.fill(300)
        for count in range(1, 12):
            peer = self.connect()
            peer.send(c.LIST.ask(b"1", {}) * count + BREAK)
            self.turns.run()
            answers = boxes(b"".join(self.turns.exchange(peer) for _ in range(3)))
            self.assertIn(len(answers), range(1, count + 1))
            self.assertTrue(is_closed(peer))
            late = self.connect()
            late.send(c.LIST.ask(b"1", {}) * count + BREAK)
            self.turns.run()
            late.close()
            self.turns.run()
        self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_gone_at_once(self) -> None:
        """What it registered is gone, even if the peer never reads."""
        self.fill(300)
        peer = self.connect()
        self.turns.exchange(peer, register("a"))
        peer.send(c.LIST.ask(b"1", {}) * 3 + BREAK)
        self.turns.run()
        self.assertNotIn("a", self.names())

    def test_others_stay(self) -> None:
        """Other connections of the process stay."""
        peers = [self.connect() for _ in range(3)]
        for number, peer in enumerate(peers):
            self.turns.exchange(peer, register(f"n{number}"))
        self.turns.exchange(peers[1], BREAK)
        self.assertEqual(self.names(), ["n0", "n2"])
        self.assertEqual(len(boxes(self.turns.exchange(peers[2], register("b")))), 1)

    def test_log(self) -> None:
        """It is in the log with who did it, at a bounded rate."""
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for _ in range(3 * MAX_LINES):
            peer = self.connect()
            self.turns.exchange(peer, BREAK)
            peer.close()
        said = [event for event in events if "fault" in event]
        self.assertEqual(len(said), MAX_LINES)
        self.assertIn(f"pid {os.getpid()}", said[0]["fault"])
        self.assertEqual(said[0]["caller"], f"uid {os.geteuid()}")


class EndTests(ChannelTestCase):
    """The end of connections."""

    def test_closed_by_peer(self) -> None:
        """When the peer closes, what it registered is gone."""
        peer = self.connect()
        self.turns.exchange(peer, register("a"))
        peer.close()
        self.turns.run()
        self.assertEqual(self.names(), [])
        self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_half_closed(self) -> None:
        """So it is when the peer will send nothing more; what it sent before is answered."""
        peer = self.connect()
        peer.send(register("a"))
        peer.shutdown(socket.SHUT_WR)
        self.assertEqual(len(boxes(self.turns.exchange(peer))), 1)
        self.assertTrue(is_closed(peer))
        self.assertEqual(self.names(), [])

    def test_closed_while_not_reading(self) -> None:
        """So it is when it closes with answers unread, and commands unanswered."""
        self.fill(300)
        peer = self.connect()
        self.turns.exchange(peer, register("a"))
        peer.send(c.LIST.ask(b"1", {}) * 200)
        self.turns.run()
        peer.close()
        self.turns.run()
        self.assertNotIn("a", self.names())
        self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_all(self) -> None:
        """All can be ended at once; that is told when they are closed."""
        self.assertIsNone(self.successResultOf(self.factory.end()))
        peers = [self.connect() for _ in range(5)]
        for number, peer in enumerate(peers):
            self.turns.exchange(peer, register(f"n{number}"))
        ended = self.factory.end()
        self.assertEqual(self.names(), [])
        self.assertNoResult(ended)
        self.turns.run()
        self.assertIsNone(self.successResultOf(ended))
        self.assertTrue(all(map(is_closed, peers)))
        self.assertEqual(self.turns.reactor.getReaders(), [])

    def test_limit(self) -> None:
        """Connections are refused beyond so many descriptors of connections and processes."""
        self.factory = self.made(descriptors=4)
        peers = [self.connect() for _ in range(3)]
        self.assertIsNone(self.factory.buildProtocol(None))
        peers.pop().close()
        self.turns.run()
        self.connect()
        self.assertIsNone(self.factory.buildProtocol(None))

    def test_process(self) -> None:
        """Who only asks is known by its process a while later; who registers, at once."""
        asking, registering = self.connect(), self.connect()
        self.turns.exchange(asking, c.LIST.ask(b"1", {}))
        self.assertEqual(len(self.processes), 0)
        self.turns.exchange(registering, register("a"))
        self.assertEqual(len(self.processes), 1)
        registering.close()
        self.turns.run()
        self.assertEqual(len(self.processes), 0)
        self.turns.reactor.advance(DELAY)
        self.assertEqual(len(self.processes), 1)

    def test_process_of_old_kernels(self) -> None:
        """It is, at once, where the kernel could not tell later whose socket it is."""
        self.processes.has_peer_pidfd = False
        self.connect()
        self.assertEqual(len(self.processes), 1)

    def test_process_of_the_broken(self) -> None:
        """So is the process of a peer that broke the framing, and does not read its answers."""
        self.fill(300)
        channel: Any = self.factory.buildProtocol(None)
        peer = self.turns.connect(channel)
        channel.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        peer.send(c.LIST.ask(b"1", {}) + BREAK)
        self.turns.run()
        self.turns.reactor.advance(DELAY)
        self.assertEqual(len(self.processes), 1)
        peer.close()
        self.turns.run()
        self.assertEqual(len(self.processes), 0)

    def test_share(self) -> None:
        """No user but root has more than a quarter of the connections."""
        if os.geteuid() != 0:
            raise SkipTest("to be several users takes root")
        self.factory = self.made(descriptors=40)
        mine = [self.connect_as(1) for _ in range(11)]
        others = [self.connect_as(2), self.connect()]
        self.turns.run()
        self.assertEqual([is_closed(each) for each in mine], [False] * 10 + [True])
        self.assertFalse(any(map(is_closed, others)))
        mine[0].close()
        self.turns.run()
        self.assertFalse(is_closed(self.connect_as(1)))
        self.assertTrue(is_closed(self.connect_as(1)))

    def test_kept(self) -> None:
        """Whatever four users take, newcomers and root have connections; the log says so."""
        if os.geteuid() != 0:
            raise SkipTest("to be several users takes root")
        self.factory = self.made(descriptors=160)
        taken: list[socket.socket] = []
        with capturedLogs() as events:
            for uid in range(1, 5):
                taken += [self.connect_as(uid) for _ in range(50)]
        refused = [event for event in events if "why" in event]
        self.assertEqual(len(refused), MAX_LINES)
        self.assertEqual(refused[0]["caller"], "uid 1")
        for uid in (5, 0):
            self.assertFalse(is_closed(self.connect_as(uid)), uid)
        kept = [self.connect() for _ in range(10)]
        self.assertFalse(any(map(is_closed, kept)))

    def connect_as(self, uid: int) -> socket.socket:
        """A connection of another user."""
        os.seteuid(uid)
        try:
            peer = self.connect()
        finally:
            os.seteuid(0)
        self.turns.run()
        return peer

    def test_unfinished_boxes(self) -> None:
        """They are bounded in all; the log names the limit, and what has ended is given back."""
        self.factory.held = Budget("bytes held", 100_000)
        half = b"\0\1a\xff\xff" + bytes(10_000)
        with capturedLogs() as events:
            peers = [self.connect() for _ in range(12)]
            for peer in peers:
                self.turns.exchange(peer, half)
            self.assertEqual([is_closed(peer) for peer in peers], [False] * 9 + [True] * 3)
        why = [event["why"] for event in events if "why" in event]
        self.assertEqual(len(why), 3)
        self.assertIn("may have 100000 bytes held", why[0])
        for peer in peers:
            peer.close()
        self.turns.run()
        self.factory.held.take(0, 100_000)

    def test_finished_boxes(self) -> None:
        """A box takes nothing once it is whole."""
        peer = self.connect()
        data = register("a")
        for _ in range(50):
            self.turns.exchange(peer, data[:20])
            self.turns.exchange(peer, data[20:])
        self.factory.held.take(0, MAX_HELD)

    def test_unread_answers(self) -> None:
        """Connections whose peers do not read are bounded in all, and take nothing once they do."""
        # For three of them, and not for a fourth.
        room = 4 * (UNREAD + 190 * WAITING) - 1
        self.factory.held = Budget("bytes held", room)
        self.fill(300)
        peers = [self.connect() for _ in range(4)]
        for peer in peers:
            peer.send(b"".join(c.LIST.ask(b"%d" % number, {}) for number in range(200)))
            self.turns.run()
        read = [len(boxes(b"".join(self.turns.exchange(peer) for _ in range(4)))) for peer in peers]
        self.assertEqual(read[:3], [200] * 3)
        self.assertLess(read[3], 200)
        self.factory.held.take(0, room)

    def test_no_cycles(self) -> None:
        """A connection that has ended takes no memory, without the collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for data in (b"", register("a"), c.WATCH.ask(b"1", {}), c.LIST.ask(b"1", {}), BREAK):
            channel: Any = self.factory.buildProtocol(None)
            peer = self.turns.connect(channel)
            self.turns.exchange(peer, data)
            remains = [weakref.ref(channel), weakref.ref(channel.transport)]
            del channel
            peer.close()
            self.turns.run()
            self.assertEqual([ref() for ref in remains], [None, None])

    def test_nothing_grows(self) -> None:
        """A thousand connections later there is not one object more."""
        before = _alive()
        for _ in range(1_000):
            peer = self.turns.connect(self.factory.buildProtocol(None))
            self.turns.exchange(peer, register("a") + c.WATCH.ask(b"1", {"names": ["a"]}))
            peer.close()
            self.turns.run()
        self.assertLessEqual(_alive(), before)


def _alive() -> int:
    """How many connections, and holders, of this and other tests there are."""
    return sum(isinstance(each, ChannelProtocol | Holder) for each in gc.get_objects())
