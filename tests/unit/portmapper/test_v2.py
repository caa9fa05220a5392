"""Version 2 of program 100000."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import AuthRefused
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import AUTH_TOOWEAK, XID
from portmapd.oncrpc.netid import TCP, TCP6, UDP6
from portmapd.oncrpc.program import (
    PROGRAM,
    Pmap,
    read_pmap,
)
from portmapd.oncrpc.record import mark
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.statistics import MAX_SUBJECTS
from portmapd.portmapper.v2 import GetportReplies
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import (
    FALSE,
    PROPERTY,
    TRUE,
    PortMapper,
    call,
    local,
    loopback,
    pmap,
    remote,
)
from tests.support.rpc_server import Serving

NULL, SET, UNSET, GETPORT, DUMP = range(5)
ROOT, USER = local(0), local(104)
HERE = loopback()
#: Programs from here on share a count.
OTHERS = 400_000


class Version2TestCase(SynchronousTestCase):
    """A port mapper, asked in version 2."""

    def setUp(self) -> None:
        self.mapper = PortMapper()

    def set(
        self, program: int, version: int, protocol: int, port: int, caller: Caller = ROOT
    ) -> bytes | None:
        """The results of SET."""
        return self.mapper.ask(caller, 2, SET, pmap(program, version, protocol, port))

    def unset(self, program: int, version: int, caller: Caller = ROOT) -> bytes | None:
        """The results of UNSET."""
        return self.mapper.ask(caller, 2, UNSET, pmap(program, version, 99, 99))

    def port(self, program: int, version: int, protocol: int = 17) -> int:
        """What GETPORT answers."""
        results = self.mapper.ask(loopback(), 2, GETPORT, pmap(program, version, protocol, 99))
        return int.from_bytes(results or b"", "big")

    def addresses(self) -> list[str]:
        """The addresses of all that is mapped."""
        return [address for _, _, _, address, _ in self.mapper.rows()]


class NullTests(Version2TestCase):
    """NULL."""

    def test_null(self) -> None:
        """It answers nothing, to anyone, whatever is sent along."""
        for arguments in (b"", b"12345678"):
            self.assertEqual(self.mapper.ask(remote(), 2, NULL, arguments), b"")


class SetTests(Version2TestCase):
    """SET."""

    def test_set(self) -> None:
        """A mapping of any address is made, for its caller."""
        self.assertEqual(self.set(100003, 3, 17, 2049), TRUE)
        self.assertEqual(self.set(100003, 3, 6, 2050, USER), TRUE)
        self.assertEqual(
            self.mapper.rows(),
            [
                (100003, 3, "tcp", "0.0.0.0.8.2", "104"),
                (100003, 3, "udp", "0.0.0.0.8.1", "superuser"),
            ],
        )

    def test_owner_is_the_caller(self) -> None:
        """Over loopback, a reserved port stands for the superuser."""
        for program, (caller, owner) in enumerate(
            [(loopback(port=1023), "superuser"), (loopback(TCP6, port=1024), "unknown")]
        ):
            self.assertEqual(self.set(program, 1, 17, 9, caller), TRUE)
            self.assertEqual(self.mapper.rows()[-1][-1], owner)

    def test_limits(self) -> None:
        """Ports from 1 to 65535 are taken, others not."""
        for port in (0, 65_536, 0xFFFF_FFFF):
            self.assertEqual(self.set(7, 1, 17, port), FALSE)
        self.assertEqual(self.addresses(), [])
        self.assertEqual(self.set(7, 1, 17, 1), TRUE)
        self.assertEqual(self.set(7, 2, 17, 65_535), TRUE)
        self.assertEqual(self.addresses(), ["0.0.0.0.0.1", "0.0.0.0.255.255"])

    def test_protocols(self) -> None:
        """Only TCP and UDP are protocols of version 2."""
        for protocol in (0, 1, 132, 0xFFFF_FFFF):
            self.assertEqual(self.set(7, 1, protocol, 9), FALSE)
        self.assertEqual(self.addresses(), [])

    def test_any_numbers(self) -> None:
        """Programs and versions may be any numbers, but not the port mapper's own."""
        for program, version in ((0, 0), (0xFFFF_FFFF, 0xFFFF_FFFF)):
            self.assertEqual(self.set(program, version, 17, 9), TRUE)
        self.assertEqual(self.set(PROGRAM, 2, 17, 9), FALSE)
        self.assertEqual(self.set(PROGRAM, 99, 6, 9), FALSE)

    def test_again(self) -> None:
        """The same mapping again is TRUE, for everyone, and changes nothing."""
        self.set(7, 1, 17, 9, USER)
        self.mapper.bound.add("0.0.0.0.0.9")
        before = self.mapper.rows()
        for caller in (USER, ROOT, local(105), loopback()):
            self.assertEqual(self.set(7, 1, 17, 9, caller), TRUE)
        self.assertEqual(self.mapper.rows(), before)

    def test_same_port_of_one_address(self) -> None:
        """To version 2, which knows ports alone, another address is the same mapping."""
        self.mapper.registry.map(mapping(7, 1, "udp", "127.0.0.1.0.9"))
        self.assertEqual(self.set(7, 1, 17, 9), TRUE)
        self.assertEqual(self.addresses(), ["127.0.0.1.0.9"])

    def test_bound_mapping_stays(self) -> None:
        """Another port is refused, even to the superuser, while the first is bound."""
        self.set(7, 1, 17, 9)
        self.mapper.bound.add("0.0.0.0.0.9")
        self.assertEqual(self.set(7, 1, 17, 10), FALSE)
        self.assertEqual(self.addresses(), ["0.0.0.0.0.9"])

    def test_dead_mapping_is_replaced(self) -> None:
        """It is taken once the first is bound no longer, by its owner or the superuser."""
        self.set(7, 1, 17, 9, USER)
        self.assertEqual(self.set(7, 1, 17, 10, local(105)), FALSE)
        self.assertEqual(self.set(7, 1, 17, 10, loopback()), FALSE)
        self.assertEqual(self.set(7, 1, 17, 10, USER), TRUE)
        self.assertEqual(self.set(7, 1, 17, 11, ROOT), TRUE)
        self.assertEqual(self.mapper.rows(), [(7, 1, "udp", "0.0.0.0.0.11", "superuser")])

    def test_held_mapping_stays(self) -> None:
        """What a connection holds is not replaced, not even by the superuser."""
        holder = self.mapper.registry.open(Holder(104, 1))
        self.mapper.registry.map(mapping(7, 1, "udp", "0.0.0.0.0.9", "104", holder))
        for caller in (USER, ROOT):
            self.assertEqual(self.set(7, 1, 17, 10, caller), FALSE)

    def test_from_elsewhere(self) -> None:
        """Other hosts are refused, for the registry is this host's."""
        for caller in (remote(), remote(TCP), remote(UDP6, Audience.TRUSTED)):
            fault = self.assertRaises(AuthRefused, self.set, 7, 1, 17, 9, caller)
            assert isinstance(fault, AuthRefused)
            self.assertEqual(fault.stat, AUTH_TOOWEAK)
        self.assertEqual(self.addresses(), [])

    def test_from_elsewhere_insecure(self) -> None:
        """They are not where the administrator said so, but own nothing by their port."""
        self.mapper = PortMapper(Policy(insecure=True))
        self.assertEqual(self.set(7, 1, 17, 9, remote(port=999)), TRUE)
        self.assertEqual(self.mapper.rows()[0][-1], "unknown")


class UnsetTests(Version2TestCase):
    """UNSET."""

    def test_every_protocol(self) -> None:
        """It removes a version from every transport, and no other version."""
        for netid, address in (
            ("udp", "0.0.0.0.0.9"),
            ("tcp", "0.0.0.0.0.9"),
            ("udp6", "::.0.9"),
            ("tcp6", "::.0.9"),
            ("local", "/run/s"),
        ):
            self.mapper.registry.map(mapping(7, 1, netid, address))
        self.set(7, 2, 17, 10)
        self.set(8, 1, 17, 11)
        self.assertEqual(self.unset(7, 1), TRUE)
        self.assertEqual([row[:2] for row in self.mapper.rows()], [(7, 2), (8, 1)])

    def test_nothing_there(self) -> None:
        """What is not registered is unset already."""
        self.assertEqual(self.unset(7, 1), TRUE)

    def test_bound(self) -> None:
        """It does not matter whether the service runs."""
        self.set(7, 1, 17, 9)
        self.mapper.bound.add("0.0.0.0.0.9")
        self.assertEqual(self.unset(7, 1), TRUE)
        self.assertEqual(self.addresses(), [])

    def test_owners(self) -> None:
        """Only the owner and the superuser may."""
        self.set(7, 1, 17, 9, USER)
        for caller in (local(105), loopback(port=1024)):
            self.assertEqual(self.unset(7, 1, caller), FALSE)
        self.assertEqual(self.unset(7, 1, USER), TRUE)
        self.set(7, 1, 17, 9, USER)
        self.assertEqual(self.unset(7, 1, loopback(port=1023)), TRUE)
        self.assertEqual(self.addresses(), [])

    def test_all_or_nothing(self) -> None:
        """If one transport's is another's, all stay."""
        self.set(7, 1, 17, 9, USER)
        self.set(7, 1, 6, 9, ROOT)
        self.assertEqual(self.unset(7, 1, USER), FALSE)
        self.assertEqual(len(self.addresses()), 2)

    def test_port_mapper_stays(self) -> None:
        """The port mapper is not removed, not even by the superuser."""
        self.mapper.registry.map(mapping(PROGRAM, 2, "udp", "0.0.0.0.0.111"))
        self.assertEqual(self.unset(PROGRAM, 2), FALSE)

    def test_held(self) -> None:
        """What a connection holds, the superuser alone removes."""
        holder = self.mapper.registry.open(Holder(104, 1))
        self.mapper.registry.map(mapping(7, 1, "udp", "0.0.0.0.0.9", "104", holder))
        self.assertEqual(self.unset(7, 1, USER), FALSE)
        self.assertEqual(self.unset(7, 1, ROOT), TRUE)
        self.assertEqual(holder.mappings, {})

    def test_from_elsewhere(self) -> None:
        """Other hosts are refused."""
        self.set(7, 1, 17, 9)
        self.assertRaises(AuthRefused, self.unset, 7, 1, remote())
        self.assertEqual(len(self.addresses()), 1)


class GetportTests(Version2TestCase):
    """GETPORT."""

    def test_found(self) -> None:
        """It answers each protocol's port; the port that is sent does not matter."""
        self.set(7, 1, 17, 9)
        self.set(7, 1, 6, 65_535)
        self.assertEqual((self.port(7, 1), self.port(7, 1, 6)), (9, 65_535))

    def test_not_found(self) -> None:
        """Where there is none, it is 0."""
        self.set(7, 1, 17, 9)
        self.assertEqual(self.port(7, 1, 6), 0)
        self.assertEqual(self.port(8, 1), 0)
        self.assertEqual(self.port(7, 1, 132), 0)

    def test_another_version(self) -> None:
        """Another version stands in, the latest one that was set."""
        self.set(7, 3, 17, 9)
        self.set(7, 2, 17, 10)
        self.assertEqual((self.port(7, 3), self.port(7, 2), self.port(7, 1)), (9, 10, 10))

    def test_of_one_address(self) -> None:
        """A port is a port, whatever address it has."""
        self.mapper.registry.map(mapping(7, 1, "tcp", "192.0.2.9.1.0"))
        self.assertEqual(self.port(7, 1, 6), 256)


class DumpTests(Version2TestCase):
    """DUMP."""

    def rows(self) -> tuple[Pmap, ...]:
        """What DUMP answers."""
        results = self.mapper.ask(loopback(TCP), 2, DUMP)
        return Reader(results or b"").sequence(read_pmap)

    def test_empty(self) -> None:
        """Without mappings, it is an empty list."""
        self.assertEqual(self.mapper.ask(loopback(TCP), 2, DUMP), xdr.uint(0))

    def test_all(self) -> None:
        """It tells of all that version 2 has a protocol for."""
        self.set(7, 2, 6, 10)
        self.set(7, 1, 17, 9)
        self.mapper.registry.map(mapping(7, 1, "udp6", "::.0.9"), mapping(7, 1, "local", "/s"))
        self.assertEqual(self.rows(), (Pmap(7, 1, 17, 9), Pmap(7, 2, 6, 10)))

    def test_fresh(self) -> None:
        """It is of this moment."""
        for port in (9, 10, 11):
            self.set(7, port, 17, port)
            self.assertIn(Pmap(7, port, 17, port), self.rows())
        self.unset(7, 10)
        self.assertEqual([row.port for row in self.rows()], [9, 11])


class GetportRepliesTests(SynchronousTestCase):
    """A port mapper with look-ups of so many programs that further ones share a count."""

    def setUp(self) -> None:
        self.serving = Serving()
        for version, netid, port in ((1, "udp", 9), (2, "udp", 10), (2, "tcp", 11)):
            address = f"0.0.0.0.0.{port}"
            self.serving.registry.map(mapping(OTHERS, version, netid, address))
        counted = range(MAX_SUBJECTS)
        self.serving.registry.map(*(mapping(n, 1, "udp", "0.0.0.0.0.9") for n in counted))
        for program in counted:
            self.dispatched(call(2, 3, pmap(program, 1)))
        self.serving.cache.clear()
        self.replies = GetportReplies(self.serving.registry, self.serving.statistics, "udp")

    def dispatched(self, message: bytes) -> bytes | None:
        """The reply that dispatch makes."""
        return self.serving.mapper.dispatch(message, HERE).reply

    def direct(self, message: bytes) -> bytes | None:
        """The reply that is made without it; None if there is none."""
        reply = self.replies.find(message[XID:])
        if reply is None:
            return None
        reply.count.value += 1
        return message[:XID] + reply.body

    @PROPERTY
    @given(
        st.sampled_from((OTHERS, OTHERS + 1)),
        st.integers(0, 4),
        st.sampled_from((6, 17)),
        st.integers(0, 0xFFFF_FFFF),
    )
    def test_same_as_dispatch(self, program: int, version: int, protocol: int, port: int) -> None:
        """Both ways give the same answer, of versions that are registered and of others."""
        question = call(2, 3, pmap(program, version, protocol, port))
        found = self.direct(question)
        self.assertIsNotNone(found)
        self.assertEqual(found, self.dispatched(question))

    def test_follows_the_registry(self) -> None:
        """What changes is answered at once."""
        question = call(2, 3, pmap(OTHERS + 5, 1))
        before = self.direct(question)
        self.serving.registry.map(mapping(OTHERS + 5, 1, "udp", "0.0.0.0.0.77"))
        after = self.direct(question)
        assert before is not None
        assert after is not None
        self.assertEqual((before[-1], after[-1]), (0, 77))

    def test_other_questions(self) -> None:
        """Everything else is left to dispatch: other procedures, protocols, lengths, programs."""
        plain = call(2, 3, pmap(OTHERS, 1))
        others = (
            call(2, 0),
            call(3, 3, pmap(OTHERS, 1)),
            call(2, 3, pmap(OTHERS, 1, 132)),
            plain + b"more",
            plain[:-1],
            plain[:20],
            b"",
            call(2, 3, pmap(0, 1)),
        )
        for message in others:
            self.assertIsNone(self.direct(message))

    def test_counted(self) -> None:
        """GETSTAT counts these answers, too."""
        before = self.serving.statistics.calls(2, 3)
        for _ in range(3):
            self.direct(call(2, 3, pmap(OTHERS, 1)))
        self.assertEqual(self.serving.statistics.calls(2, 3), before + 3)

    def test_marks(self) -> None:
        """The record marks are those of this request and of its reply."""
        question = call(2, 3, pmap(OTHERS, 1))
        reply = self.replies.find(question[XID:])
        assert reply is not None
        self.assertEqual(reply.request_mark + question, mark(question))
        whole = mark(self.direct(question) or b"")
        self.assertEqual(reply.mark + question[:XID] + reply.body, whole)

    def test_served(self) -> None:
        """The tables of the reply cache find these replies."""
        question = call(2, 3, pmap(OTHERS, 1))
        self.assertIsNotNone(self.serving.call_server.table(HERE).find(question[XID:]))
        self.assertEqual(len(self.serving.call_server.table(HERE)), 0)

    def test_excluded(self) -> None:
        """Callers that may not ask get no reply this way either."""
        caller = remote(audience=Audience.EXCLUDED)
        table = self.serving.call_server.table(caller)
        self.assertIsNone(table.find(call(2, 3, pmap(OTHERS, 1))[XID:]))
