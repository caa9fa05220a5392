"""The reply cache: what is kept for whom and how long, and that all of it is counted."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import XID, decode_reply
from portmapd.oncrpc.netid import TCP, UDP
from portmapd.oncrpc.record import mark
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.reply_cache import (
    ALLOWANCE,
    MAX_REPLY,
    MAX_REQUEST,
    MAX_SIZE,
    MAX_TABLES,
    ReplyTable,
)
from portmapd.registry.change import ChangeKind
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
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


def never(reply: bytes | None) -> None:
    """For replies that do not have to wait."""
    raise AssertionError


class CacheTestCase(SynchronousTestCase):
    """A port mapper with its cache."""

    def setUp(self) -> None:
        self.serving = Serving()
        self.serving.registry.map(mapping(7, 1, "udp", "0.0.0.0.0.9"))

    def table(self, caller: Caller) -> ReplyTable:
        """The replies known for that caller."""
        return self.serving.call_server.table(caller)

    def knows(self, caller: Caller, message: bytes) -> bool:
        """Whether the reply to *message* is known for that caller."""
        return self.table(caller).find(message[XID:]) is not None

    def ask(self, message: bytes, caller: Caller = HERE) -> bytes | None:
        """Ask as transports do."""
        return self.serving.call_server.serve(message, caller, never)


class KeepingTests(CacheTestCase):
    """What is kept."""

    def test_kept(self) -> None:
        """A reply is known from then on, whatever the xid."""
        self.assertFalse(self.knows(HERE, GETPORT))
        first = self.ask(GETPORT)
        assert first is not None
        self.assertTrue(self.knows(HERE, GETPORT))
        self.assertEqual(len(self.table(HERE)), 1)
        again = self.ask(b"\xff\0\xff\0" + GETPORT[XID:])
        assert again is not None
        self.assertEqual((again[:XID], again[XID:]), (b"\xff\0\xff\0", first[XID:]))

    def test_forms(self) -> None:
        """It is kept in the forms that transports send, with record marks."""
        reply = self.ask(GETPORT)
        assert reply is not None
        known = self.table(HERE).find(GETPORT[XID:])
        assert known is not None
        self.assertEqual(known.request_mark + GETPORT, mark(GETPORT))
        self.assertEqual(known.mark + GETPORT[:XID] + known.body, mark(reply))
        self.assertEqual(len(known.body), len(reply) - XID)
        self.assertEqual(known.address, 0)

    def test_what(self) -> None:
        """Questions are kept; changes, calls, the time and the counts are not."""
        every = {
            (version, procedure): call(version, procedure, bytes(20))
            for version, procedures in PROCEDURES.items()
            for procedure in procedures
        }
        for message in every.values():
            self.ask(message)
        kept = {procedure for procedure, message in every.items() if self.knows(HERE, message)}
        both = {(v, p) for v in (3, 4) for p in (0, 3, 4, 7, 8)}
        self.assertEqual(kept, {(2, 0), (2, 3), (2, 4), (4, 9), (4, 11)} | both)
        self.assertEqual(len(self.table(HERE)), len(kept))

    def test_errors(self) -> None:
        """Errors and silence are not."""
        for message in (b"", b"junk", call(2, 99), call(9, 0), call(2, 3), call(2, 0, program=7)):
            self.ask(message)
            self.assertFalse(self.knows(HERE, message))
        self.assertEqual(len(self.table(HERE)), 0)

    def test_kinds_of_callers(self) -> None:
        """Each kind of caller has its own: transport, audience, the address that was reached."""
        self.ask(GETPORT)
        others = (
            loopback(TCP),
            local(),
            remote(UDP),
            remote(UDP, Audience.TRUSTED),
            Caller(UDP, Audience.LOCAL, "127.0.0.1", 5, "127.0.0.9"),
        )
        for other in others:
            self.assertEqual(len(self.table(other)), 0)
            self.assertFalse(self.knows(other, GETPORT))
        for other in (loopback(port=5), Caller(UDP, Audience.LOCAL, "127.9.9.9", 5, "127.0.0.1")):
            self.assertTrue(self.knows(other, GETPORT))

    def test_reached(self) -> None:
        """So nobody is told an address that another one reached."""
        for address in ("127.0.0.1", "127.0.0.9"):
            caller = Caller(UDP, Audience.LOCAL, "127.0.0.1", 5, address)
            for _ in range(2):
                reply = self.ask(call(4, 3, rpcb(7, 1)), caller)
                self.assertEqual(decode_reply(reply or b""), xdr.string(f"{address}.0.9"))


class ChangeTests(CacheTestCase):
    """How long it is kept."""

    def test_mapped(self) -> None:
        """Every mapping that comes or goes empties all tables, which stay valid."""
        table, other = self.table(HERE), self.table(local())
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
            self.assertEqual((len(table), len(other)), (1, 1))
            change()
            self.assertEqual((len(table), len(other)), (0, 0))
            self.assertFalse(self.knows(HERE, GETPORT) or self.knows(local(), GETPORT))
            self.assertIs(self.table(HERE), table)

    def test_never_stale(self) -> None:
        """An answer is always that of this moment."""
        for port in (9, 10, 11):
            self.serving.mapper.ask(local(), 2, 1, pmap(7, 1, 17, port))
            for _ in range(2):
                self.assertEqual(decode_reply(self.ask(GETPORT) or b""), xdr.uint(port))
        self.serving.mapper.ask(local(), 2, 2, pmap(7, 1))
        self.assertEqual(decode_reply(self.ask(GETPORT) or b""), xdr.uint(0))

    def test_services(self) -> None:
        """Named services are not part of any answer: they change nothing here."""
        self.ask(GETPORT)
        holder = self.serving.registry.open(Holder(104, 1))
        self.serving.registry.register(holder.new_service("a", "80", 0))
        self.serving.registry.close(holder)
        self.assertEqual(len(self.table(HERE)), 1)

    def test_told_of_kinds(self) -> None:
        """The kinds that matter are these, of all that there are."""
        self.assertEqual(
            {kind for kind in ChangeKind if "mapped" in kind.value},
            {ChangeKind.MAPPED, ChangeKind.UNMAPPED},
        )


class CloseTests(CacheTestCase):
    """The end."""

    def test_close(self) -> None:
        """A closed cache is empty, and the registry does without it."""
        self.ask(GETPORT)
        table = self.table(HERE)
        self.serving.cache.close()
        self.assertEqual(len(table), 0)
        self.ask(GETPORT)
        self.serving.registry.map(mapping(8, 1, "udp", "0.0.0.0.0.9"))
        self.assertEqual(len(table), 1)


class CountingTests(CacheTestCase):
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
        self.serving.cache.clear()
        self.assertEqual(self.serving.statistics.calls(2, 3), 5)


class BoundTests(CacheTestCase):
    """What the cache may take."""

    def test_long_requests(self) -> None:
        """Longer requests are not kept."""
        for size, kept in ((MAX_REQUEST, 1), (MAX_REQUEST + 4, 1)):
            reply = self.ask(GETPORT.ljust(size, b"\0"))
            self.assertEqual(decode_reply(reply or b""), xdr.uint(9))
            self.assertEqual(len(self.table(HERE)), kept)

    def test_long_replies(self) -> None:
        """Longer replies are not kept."""
        caller = loopback(TCP)
        self.serving.registry.map(
            *(mapping(9, version, "udp", "0.0.0.0.0.9") for version in range(4_000))
        )
        for message, kept in ((call(2, 4), False), (GETPORT, True)):
            self.ask(message, caller)
            self.assertEqual(self.knows(caller, message), kept)
        self.assertGreater(len(self.ask(call(2, 4), caller) or b""), MAX_REPLY)

    def test_many_requests(self) -> None:
        """Of any number of requests, only so many are kept, and the latest is."""
        most = MAX_SIZE // ALLOWANCE
        for number in range(most + 10):
            message = call(2, 0, number.to_bytes(4, "big"))
            self.ask(message)
            self.assertTrue(self.knows(HERE, message))
            self.assertLessEqual(len(self.table(HERE)), most)
        self.assertLess(len(self.table(HERE)), most)
        self.assertEqual(self.serving.statistics.calls(2, 0), most + 10)

    def test_many_kinds_of_callers(self) -> None:
        """Of any number of kinds of callers, so many have a table; the others are served, too."""
        for number in range(MAX_TABLES + 10):
            reached = f"10.0.{number >> 8}.{number & 255}"
            caller = Caller(UDP, Audience.TRUSTED, "192.0.2.7", 5, reached)
            for _ in range(2):
                self.assertEqual(decode_reply(self.ask(GETPORT, caller) or b""), xdr.uint(9))
            self.assertEqual(len(self.table(caller)), number < MAX_TABLES)
        self.assertEqual(self.serving.statistics.calls(2, 3), 2 * (MAX_TABLES + 10))
