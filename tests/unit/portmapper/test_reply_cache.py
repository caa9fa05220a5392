"""The answer cache: what is kept for whom and how long, and that all of it is counted."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import XID, decode_reply
from portmapd.oncrpc.netid import TCP, UDP
from portmapd.oncrpc.record import mark
from portmapd.portmapper.access import PROGRAM, Policy
from portmapd.portmapper.cached_reply import Shelf
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.reply_cache import ALLOWANCE, MAX_KEPT, MAX_REPLY, MAX_REQUEST, MAX_SHELVES
from portmapd.registry.change import Kind
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.server.call_server import MAX_HOSTS
from tests.support.rpc_samples import (
    PROCEDURES,
    PortMapper,
    call,
    local,
    loopback,
    pmap,
    remote,
    rpcb,
)
from tests.support.rpc_server import Serving

HERE = loopback()
GETPORT = call(2, 3, pmap(7, 1))


def never(reply: bytes) -> None:
    """For answers that are there at once."""
    raise AssertionError


class AnswersTestCase(SynchronousTestCase):
    """A port mapper with its cache."""

    def setUp(self) -> None:
        self.serving = Serving()
        self.serving.registry.map(mapping(7, 1, "udp", "0.0.0.0.0.9"))

    def shelf(self, caller: Caller) -> Shelf:
        """The replies known for that caller."""
        return self.serving.call_server.shelf(caller.netid, caller.audience, caller.reached)

    def ask(self, message: bytes, caller: Caller = HERE) -> bytes | None:
        """Ask as transports do: the shelf first, and then whoever knows."""
        known = self.shelf(caller).get(message[XID:])
        if known is not None:
            known.hits += 1
            return message[:XID] + known.reply
        return self.serving.call_server.answer(message, caller, never)


class KeepingTests(AnswersTestCase):
    """What is kept."""

    def test_kept(self) -> None:
        """An answer is known from then on, whatever the xid."""
        first = self.ask(GETPORT)
        assert first is not None
        self.assertEqual(list(self.shelf(HERE)), [GETPORT[XID:]])
        again = self.ask(b"\xff\0\xff\0" + GETPORT[XID:])
        assert again is not None
        self.assertEqual((again[:XID], again[XID:]), (b"\xff\0\xff\0", first[XID:]))

    def test_forms(self) -> None:
        """It is kept in the forms that transports send: record marks, size and place."""
        reply = self.ask(GETPORT)
        assert reply is not None
        known = self.shelf(HERE)[GETPORT[XID:]]
        self.assertEqual(known.asked + GETPORT, mark(GETPORT))
        self.assertEqual(known.mark + GETPORT[:XID] + known.reply, mark(reply))
        self.assertEqual(known.size, len(reply) - XID)

    def test_what(self) -> None:
        """Questions are kept; changes, calls, the time and the counts are not."""
        for version, procedures in PROCEDURES.items():
            for procedure in procedures:
                self.ask(call(version, procedure, bytes(20)))
        kept = {
            (int.from_bytes(key[12:16], "big"), int.from_bytes(key[16:20], "big"))
            for key in self.shelf(HERE)
        }
        lasting = {(v, p) for v in (3, 4) for p in (0, 3, 4, 7, 8)}
        self.assertEqual(kept, {(2, 0), (2, 3), (2, 4), (4, 9), (4, 11)} | lasting)

    def test_errors(self) -> None:
        """Errors and silence are not."""
        for message in (b"", b"junk", call(2, 99), call(9, 0), call(2, 3), call(2, 0, program=7)):
            self.ask(message)
        self.assertEqual(self.shelf(HERE), {})

    def test_readers(self) -> None:
        """Each kind of reader has its own: transport, audience, the address that was asked."""
        self.ask(GETPORT)
        others = (
            loopback(TCP),
            local(),
            remote(UDP),
            remote(UDP, Audience.TRUSTED),
            Caller(UDP, Audience.LOCAL, "127.0.0.1", 5, "127.0.0.9"),
        )
        for other in others:
            self.assertEqual(self.shelf(other), {})
        for other in (loopback(port=5), Caller(UDP, Audience.LOCAL, "127.9.9.9", 5, "127.0.0.1")):
            self.assertIn(GETPORT[XID:], self.shelf(other))

    def test_reached(self) -> None:
        """So nobody is told an address that another one reached."""
        for address in ("127.0.0.1", "127.0.0.9"):
            caller = Caller(UDP, Audience.LOCAL, "127.0.0.1", 5, address)
            for _ in range(2):
                reply = self.ask(call(4, 3, rpcb(7, 1)), caller)
                self.assertEqual(decode_reply(reply or b""), xdr.string(f"{address}.0.9"))


class ChangeTests(AnswersTestCase):
    """How long it is kept."""

    def test_mapped(self) -> None:
        """Every mapping that comes or goes empties all shelves, which stay valid."""
        shelf, other = self.shelf(HERE), self.shelf(local())
        registry = self.serving.registry
        old, new = mapping(7, 1, "udp", "0.0.0.0.0.9"), mapping(7, 1, "udp", "0.0.0.0.0.8")
        elsewhere = mapping(8, 1, "local", "/run/s")
        holder = registry.open(Holder(104, 1))
        held = mapping(9, 1, "udp", "0.0.0.0.0.7", holder=holder)
        for change in (
            lambda: registry.replace(old, new),
            lambda: registry.map(elsewhere, held),
            lambda: registry.unmap(elsewhere),
            lambda: registry.close(holder),
        ):
            self.ask(GETPORT)
            self.ask(GETPORT, local())
            self.assertEqual((len(shelf), len(other)), (1, 1))
            change()
            self.assertEqual((shelf, other), ({}, {}))
            self.assertIs(self.shelf(HERE), shelf)

    def test_never_stale(self) -> None:
        """An answer is always that of this moment."""
        for port in (9, 10, 11):
            self.serving.mapper.ask(local(), 2, 1, pmap(7, 1, 17, port))
            for _ in range(2):
                self.assertEqual(decode_reply(self.ask(GETPORT) or b""), xdr.uint(port))
        self.serving.mapper.ask(local(), 2, 2, pmap(7, 1))
        self.assertEqual(decode_reply(self.ask(GETPORT) or b""), xdr.uint(0))

    def test_services(self) -> None:
        """Named services are no part of any answer: they change nothing here."""
        self.ask(GETPORT)
        holder = self.serving.registry.open(Holder(104, 1))
        self.serving.registry.register(holder.new_service("a", "80", 0))
        self.serving.registry.close(holder)
        self.assertEqual(len(self.shelf(HERE)), 1)

    def test_told_of_kinds(self) -> None:
        """The kinds that matter are these, of all that there are."""
        self.assertEqual(
            {kind for kind in Kind if "mapped" in kind.value}, {Kind.MAPPED, Kind.UNMAPPED}
        )


class CountingTests(AnswersTestCase):
    """Answers from the cache are counted like all others."""

    def test_counted(self) -> None:
        """GETSTAT and everyone who asks is told of each."""
        for _ in range(5):
            self.ask(GETPORT)
        self.assertEqual(self.serving.statistics.calls(2, 3), 5)
        self.assertEqual(self.serving.statistics.calls(2, 3), 5)
        self.ask(GETPORT)
        self.assertEqual(self.serving.statistics.calls(2, 3), 6)

    def test_same_as_without(self) -> None:
        """The statistics are the same as without a cache, to the byte."""
        plain = PortMapper()
        plain.registry.map(*self.serving.registry.mappings)
        messages = [GETPORT, call(3, 3, rpcb(8, 1)), call(2, 0), call(4, 4), GETPORT, GETPORT]
        for message in messages * 3:
            plain.dispatch(message, HERE)
            self.ask(message)
        self.assertEqual(self.serving.statistics.encode(), plain.statistics.encode())

    def test_counted_before_they_are_forgotten(self) -> None:
        """What is forgotten has been counted."""
        for _ in range(3):
            self.ask(GETPORT)
        self.serving.registry.map(mapping(8, 1, "udp", "0.0.0.0.0.9"))
        self.ask(GETPORT)
        self.ask(GETPORT)
        self.serving.answers.clear()
        self.assertEqual(self.serving.statistics.calls(2, 3), 5)


class BoundTests(AnswersTestCase):
    """What the cache may take."""

    def test_long_requests(self) -> None:
        """Longer requests are not kept."""
        for size, kept in ((MAX_REQUEST, 1), (MAX_REQUEST + 4, 1)):
            reply = self.ask(GETPORT.ljust(size, b"\0"))
            self.assertEqual(decode_reply(reply or b""), xdr.uint(9))
            self.assertEqual(len(self.shelf(HERE)), kept)

    def test_long_replies(self) -> None:
        """Longer replies are not kept."""
        caller = loopback(TCP)
        self.serving.registry.map(
            *(mapping(9, version, "udp", "0.0.0.0.0.9") for version in range(4_000))
        )
        for message, kept in ((call(2, 4), False), (GETPORT, True)):
            self.ask(message, caller)
            self.assertEqual(message[XID:] in self.shelf(caller), kept)
        self.assertGreater(len(self.ask(call(2, 4), caller) or b""), MAX_REPLY)

    def test_many_requests(self) -> None:
        """Of any number of requests, only so many are kept, and the latest is."""
        most = MAX_KEPT // ALLOWANCE
        for number in range(most + 10):
            message = call(2, 0, number.to_bytes(4, "big"))
            self.ask(message)
            self.assertIn(message[XID:], self.shelf(HERE))
            self.assertLessEqual(len(self.shelf(HERE)), most)
        self.assertLess(len(self.shelf(HERE)), most)
        self.assertEqual(self.serving.statistics.calls(2, 0), most + 10)

    def test_many_readers(self) -> None:
        """Of any number of readers, so many have a shelf; the others are answered, too."""
        for number in range(MAX_SHELVES + 10):
            reached = f"10.0.{number >> 8}.{number & 255}"
            caller = Caller(UDP, Audience.TRUSTED, "192.0.2.7", 5, reached)
            for _ in range(2):
                self.assertEqual(decode_reply(self.ask(GETPORT, caller) or b""), xdr.uint(9))
            self.assertEqual(len(self.shelf(caller)), number < MAX_SHELVES)
        self.assertEqual(self.serving.statistics.calls(2, 3), 2 * (MAX_SHELVES + 10))


class AnsweringTests(AnswersTestCase):
    """The way past the cache."""

    def test_audience(self) -> None:
        """Hosts are looked up in the policy, however many ask."""
        self.serving = Serving(Policy())
        call_server = self.serving.call_server
        for number in range(MAX_HOSTS + 10):
            host = f"10.0.{number >> 8}.{number & 255}"
            self.assertIs(call_server.audience(host), Audience.STRANGER)
        for _ in range(2):
            self.assertIs(call_server.audience("127.0.0.1"), Audience.LOCAL)

    def test_failure(self) -> None:
        """A failure of ours is logged, and costs that message alone."""
        context = self.serving.mapper.context
        self.serving.mapper.ask(local(), 2, 1, pmap(PROGRAM + 1, 1, 17, 9))
        self.patch(self.serving.mapper, "bound", None)
        self.assertIsNone(self.ask(call(2, 1, pmap(PROGRAM + 1, 1, 17, 10)), local()))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertIsNotNone(self.ask(GETPORT))
        self.assertEqual(context.statistics.malformed, 0)
