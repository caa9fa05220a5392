"""Versions 3 and 4 of program 100000."""

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import AuthRefused, GarbageArguments, ProcedureUnavailable
from portmapd.oncrpc import xdr
from portmapd.oncrpc.netid import LOCAL, NETIDS, TCP, TCP6, UDP, UDP6, to_sockaddr
from portmapd.oncrpc.program import MAX_NETBUF, PROGRAM, Rpcb, read_rpcb
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.statistics import Lookup
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import (
    FALSE,
    PROCEDURES,
    TRUE,
    PortMapper,
    local,
    loopback,
    remote,
    rpcb,
)
from tests.unit.portmapper.test_statistics import decode

SET, UNSET, GETADDR, DUMP = range(1, 5)
GETTIME, UADDR2TADDR, TADDR2UADDR, GETVERSADDR, _, GETADDRLIST, GETSTAT = range(6, 13)
ROOT, USER = local(0), local(104)
VERSIONS = (3, 4)


class RpcbindTestCase(SynchronousTestCase):
    """A port mapper, asked in version 4 where nothing else is said."""

    def setUp(self) -> None:
        self.mapper = PortMapper()

    def map(self, *rows: tuple[int, int, str, str]) -> None:
        """Have these programs, versions, netids and addresses registered."""
        self.mapper.registry.map(*(mapping(*row) for row in rows))

    def text(self, caller: Caller, procedure: int, arguments: bytes, version: int = 4) -> str:
        """The string that a procedure answers."""
        reader = Reader(self.mapper.ask(caller, version, procedure, arguments) or b"")
        text = reader.string()
        self.assertEqual(reader.rest(), b"")
        return text


class SetTests(RpcbindTestCase):
    """SET and UNSET."""

    def test_every_netid(self) -> None:
        """Mappings of every netid are made; the owner that is sent does not matter."""
        addresses = ("0.0.0.0.0.9", "127.0.0.1.0.9", "::.0.9", "fe80::1%eth0.0.9", "/run/s")
        for version in VERSIONS:
            for netid, address in zip(NETIDS, addresses, strict=True):
                arguments = rpcb(7, version, netid, address, "superuser")
                self.assertEqual(self.mapper.ask(USER, version, SET, arguments), TRUE)
                self.assertIn((7, version, netid, address, "104"), self.mapper.rows())

    def test_refused(self) -> None:
        """Unknown netids and malformed addresses are FALSE."""
        for netid, address in (
            ("", "0.0.0.0.0.9"),
            ("sctp", "0.0.0.0.0.9"),
            ("UDP", "0.0.0.0.0.9"),
            ("\udcff", "0.0.0.0.0.9"),
            ("udp", ""),
            ("udp", "junk"),
            ("udp", "0.0.0.0.0.0"),
            ("udp", "0.0.0.0.0.256"),
            ("udp", "::1.0.9"),
            ("udp6", "127.0.0.1.0.9"),
            ("tcp", "\udcff"),
            ("local", "run/s"),
        ):
            arguments = rpcb(7, 1, netid, address)
            self.assertEqual(self.mapper.ask(ROOT, 4, SET, arguments), FALSE, address)
        self.assertEqual(self.mapper.rows(), [])

    def test_wildcards_of_java(self) -> None:
        """A server that writes one IPv6 wildcard for every netid is found on all of them."""
        spelled = "0:0:0:0:0:0:0:0.19.136"
        for netid in ("udp", "tcp", "udp6", "tcp6"):
            for version in VERSIONS:
                answer = self.mapper.ask(USER, version, SET, rpcb(7, 1, netid, spelled))
                self.assertEqual(answer, TRUE, netid)
        addresses = {netid: address for *_, netid, address, _ in self.mapper.rows()}
        self.assertEqual(
            addresses,
            {
                "udp": "0.0.0.0.19.136",
                "tcp": "0.0.0.0.19.136",
                "udp6": "::.19.136",
                "tcp6": "::.19.136",
            },
        )
        reached = self.mapper.ask(remote(TCP6), 4, 3, rpcb(7, 1))
        self.assertEqual(reached, xdr.string("2001:db8::1.19.136"))

    def test_spellings_are_the_same_mapping(self) -> None:
        """Another spelling of the registered address replaces nothing, and is TRUE."""
        for address in ("::.19.136", "0:0:0:0:0:0:0:0.19.136", "0::0.019.136", "0.0.0.0.19.136"):
            answer = self.mapper.ask(USER, 4, SET, rpcb(7, 1, "tcp6", address))
            self.assertEqual(answer, TRUE, address)
        self.assertEqual(self.mapper.rows(), [(7, 1, "tcp6", "::.19.136", "104")])

    def test_port_mapper_is_taken(self) -> None:
        """Nobody registers as the port mapper."""
        for netid, address in (("udp", "0.0.0.0.0.9"), ("local", "/run/s")):
            arguments = rpcb(PROGRAM, 4, netid, address)
            self.assertEqual(self.mapper.ask(ROOT, 4, SET, arguments), FALSE)

    def test_replace(self) -> None:
        """The rules of version 2 hold: same, bound, dead, another's."""
        same, other = rpcb(7, 1, "tcp6", "::.0.9"), rpcb(7, 1, "tcp6", "::1.0.9")
        self.assertEqual(self.mapper.ask(USER, 3, SET, same), TRUE)
        self.assertEqual(self.mapper.ask(local(105), 3, SET, same), TRUE)
        self.assertEqual(self.mapper.ask(local(105), 3, SET, other), FALSE)
        self.mapper.bound.add("::.0.9")
        self.assertEqual(self.mapper.ask(USER, 3, SET, other), FALSE)
        self.mapper.bound.clear()
        self.assertEqual(self.mapper.ask(USER, 3, SET, other), TRUE)
        self.assertEqual(self.mapper.rows(), [(7, 1, "tcp6", "::1.0.9", "104")])

    def test_unset_one(self) -> None:
        """UNSET with a netid removes that one."""
        self.map((7, 1, "udp", "0.0.0.0.0.9"), (7, 1, "tcp", "0.0.0.0.0.9"))
        self.assertEqual(self.mapper.ask(ROOT, 3, UNSET, rpcb(7, 1, "udp", "junk")), TRUE)
        self.assertEqual([row[2] for row in self.mapper.rows()], ["tcp"])

    def test_unset_all(self) -> None:
        """Without one, it removes all of the version."""
        self.map((7, 1, "udp", "0.0.0.0.0.9"), (7, 1, "local", "/s"), (7, 2, "local", "/s"))
        self.assertEqual(self.mapper.ask(ROOT, 4, UNSET, rpcb(7, 1)), TRUE)
        self.assertEqual([row[:3] for row in self.mapper.rows()], [(7, 2, "local")])

    def test_unset_owners(self) -> None:
        """Only the owner and the superuser may."""
        self.mapper.ask(USER, 4, SET, rpcb(7, 1, "udp", "0.0.0.0.0.9"))
        for caller in (local(105), loopback()):
            self.assertEqual(self.mapper.ask(caller, 4, UNSET, rpcb(7, 1)), FALSE)
        self.assertEqual(self.mapper.ask(USER, 4, UNSET, rpcb(7, 1)), TRUE)
        self.assertEqual(self.mapper.rows(), [])

    def test_unset_nothing(self) -> None:
        """What is not there is unset already, whatever its netid is called."""
        for netid in ("", "udp", "sctp", "\udcff"):
            self.assertEqual(self.mapper.ask(USER, 4, UNSET, rpcb(7, 1, netid)), TRUE)

    def test_from_elsewhere(self) -> None:
        """Other hosts are refused."""
        for version in VERSIONS:
            for procedure in (SET, UNSET):
                arguments = rpcb(7, 1, "udp", "0.0.0.0.0.9")
                with self.assertRaises(AuthRefused):
                    self.mapper.ask(remote(TCP), version, procedure, arguments)


class GetaddrTests(RpcbindTestCase):
    """GETADDR and GETVERSADDR."""

    def test_transport_decides(self) -> None:
        """The caller's transport counts, not the netid it names."""
        self.map((7, 1, "udp", "192.0.2.9.0.1"), (7, 1, "tcp6", "2001:db8::9.0.2"))
        for netid in ("", "udp", "tcp", "sctp"):
            for version in VERSIONS:
                arguments = rpcb(7, 1, netid)
                self.assertEqual(
                    self.text(loopback(UDP), GETADDR, arguments, version), "192.0.2.9.0.1"
                )
                self.assertEqual(
                    self.text(loopback(TCP6), GETADDR, arguments, version), "2001:db8::9.0.2"
                )
                self.assertEqual(self.text(loopback(TCP), GETADDR, arguments, version), "")

    def test_reached_address(self) -> None:
        """Where a service listens on any address, it is told the one that was asked."""
        self.map((7, 1, "udp", "0.0.0.0.8.1"), (7, 1, "udp6", "::.8.1"))
        four = evolve(remote(UDP, Audience.TRUSTED), reached="203.0.113.5")
        six = evolve(remote(UDP6, Audience.TRUSTED), reached="fe80::5")
        self.assertEqual(self.text(four, GETADDR, rpcb(7, 1)), "203.0.113.5.8.1")
        self.assertEqual(self.text(six, GETADDR, rpcb(7, 1)), "fe80::5.8.1")

    def test_local(self) -> None:
        """Over the rpcbind socket, it is a path."""
        self.map((7, 1, "local", "/run/s"), (7, 1, "udp", "0.0.0.0.8.1"))
        self.assertEqual(self.text(USER, GETADDR, rpcb(7, 1)), "/run/s")

    def test_another_version(self) -> None:
        """Another version stands in for GETADDR, never for GETVERSADDR."""
        self.map((7, 3, "tcp", "192.0.2.9.0.1"))
        caller = loopback(TCP)
        self.assertEqual(self.text(caller, GETADDR, rpcb(7, 1)), "192.0.2.9.0.1")
        self.assertEqual(self.text(caller, GETVERSADDR, rpcb(7, 1)), "")
        self.assertEqual(self.text(caller, GETVERSADDR, rpcb(7, 3)), "192.0.2.9.0.1")

    def test_versaddr_transport(self) -> None:
        """GETVERSADDR, too, answers for the caller's transport and where it reached us."""
        self.map((7, 1, "udp", "0.0.0.0.8.1"), (7, 1, "tcp", "192.0.2.9.0.1"))
        self.assertEqual(self.text(loopback(UDP), GETVERSADDR, rpcb(7, 1)), "127.0.0.1.8.1")


class DumpTests(RpcbindTestCase):
    """DUMP."""

    def test_dump(self) -> None:
        """It tells of every mapping as it was registered, with its owner."""
        self.mapper.ask(USER, 4, SET, rpcb(7, 1, "udp", "0.0.0.0.0.9"))
        self.map((7, 1, "local", "/run/s"), (1, 9, "tcp6", "::.1.0"))
        for version in VERSIONS:
            results = self.mapper.ask(loopback(TCP), version, DUMP) or b""
            self.assertEqual(
                Reader(results).sequence(read_rpcb),
                (
                    Rpcb(1, 9, "tcp6", "::.1.0", "superuser"),
                    Rpcb(7, 1, "local", "/run/s", "superuser"),
                    Rpcb(7, 1, "udp", "0.0.0.0.0.9", "104"),
                ),
            )

    def test_fresh(self) -> None:
        """It is of this moment."""
        self.assertEqual(self.mapper.ask(ROOT, 4, DUMP), xdr.uint(0))
        self.map((7, 1, "local", "/run/s"))
        self.assertNotEqual(self.mapper.ask(ROOT, 4, DUMP), xdr.uint(0))
        self.mapper.ask(ROOT, 4, UNSET, rpcb(7, 1))
        self.assertEqual(self.mapper.ask(ROOT, 4, DUMP), xdr.uint(0))


class TimeTests(RpcbindTestCase):
    """GETTIME."""

    def test_time(self) -> None:
        """It is whole seconds since 1970, of now, in 32 bits."""
        for now, told in ((1e9, 10**9), (1e9 + 1.99, 10**9 + 1), (2.0**32 + 5, 5)):
            self.mapper.now = now
            for version in VERSIONS:
                self.assertEqual(self.mapper.ask(loopback(), version, GETTIME), xdr.uint(told))


class NetbufTests(RpcbindTestCase):
    """UADDR2TADDR and TADDR2UADDR."""

    pairs = (
        (loopback(UDP), UDP, "127.0.0.1.0.111"),
        (loopback(TCP6), TCP6, "::1.0.111"),
        (ROOT, LOCAL, "/run/s"),
    )

    def test_both_ways(self) -> None:
        """Addresses of the caller's transport become netbufs, and the other way round."""
        for caller, netid, address in self.pairs:
            buffer = to_sockaddr(netid, address)
            netbuf = xdr.uint(len(buffer)) + xdr.opaque(buffer)
            for version in VERSIONS:
                arguments = xdr.string(address)
                self.assertEqual(self.mapper.ask(caller, version, UADDR2TADDR, arguments), netbuf)
                self.assertEqual(self.text(caller, TADDR2UADDR, netbuf, version), address)

    def test_junk(self) -> None:
        """What is not an address of the caller's transport becomes nothing."""
        for address in ("junk", "", "/run/s", "::1.0.111", "\udcff"):
            arguments = xdr.string(address)
            self.assertEqual(self.mapper.ask(loopback(UDP), 4, UADDR2TADDR, arguments), bytes(8))
        for data in (b"", b"abc", to_sockaddr(TCP6, "::1.0.111"), bytes(MAX_NETBUF)):
            netbuf = xdr.uint(len(data)) + xdr.opaque(data)
            self.assertEqual(self.text(loopback(UDP), TADDR2UADDR, netbuf), "")

    def test_capacity_is_ignored(self) -> None:
        """Of a netbuf, its content counts, not how large it might be."""
        data = to_sockaddr(UDP, "127.0.0.1.0.111")
        for capacity in (0, 1, 0xFFFF_FFFF):
            netbuf = xdr.uint(capacity) + xdr.opaque(data)
            self.assertEqual(self.text(loopback(UDP), TADDR2UADDR, netbuf), "127.0.0.1.0.111")

    def test_too_long(self) -> None:
        """A longer netbuf than any ``sockaddr`` is garbage."""
        with self.assertRaises(GarbageArguments):
            self.mapper.ask(ROOT, 4, TADDR2UADDR, xdr.uint(0) + xdr.opaque(bytes(MAX_NETBUF + 1)))


@frozen
class Entry:
    """``struct rpcb_entry``."""

    address: str
    netid: str
    semantics: int
    family: str
    protocol: str


def read_entry(reader: Reader) -> Entry:
    """Take a ``struct rpcb_entry`` off *reader*."""
    address, netid = reader.string(), reader.string()
    return Entry(address, netid, reader.uint(), reader.string(), reader.string())


class AddressListTests(RpcbindTestCase):
    """GETADDRLIST."""

    def entries(self, caller: Caller, program: int, version: int) -> tuple[Entry, ...]:
        """What it answers."""
        arguments = rpcb(program, version, "ignored")
        return Reader(self.mapper.ask(caller, 4, GETADDRLIST, arguments) or b"").sequence(
            read_entry
        )

    def setUp(self) -> None:
        super().setUp()
        self.map(
            (7, 1, "udp", "0.0.0.0.0.9"),
            (7, 1, "tcp", "192.0.2.9.0.9"),
            (7, 1, "tcp6", "::.0.9"),
            (7, 1, "local", "/run/s"),
            (7, 2, "udp", "0.0.0.0.0.8"),
        )

    def test_family(self) -> None:
        """It lists the transports of the caller's protocol family."""
        inet = (
            Entry("127.0.0.1.0.9", "udp", 1, "inet", "udp"),
            Entry("192.0.2.9.0.9", "tcp", 3, "inet", "tcp"),
        )
        self.assertEqual(self.entries(loopback(UDP), 7, 1), inet)
        self.assertEqual(self.entries(loopback(TCP), 7, 1), inet)
        self.assertEqual(
            self.entries(loopback(UDP6), 7, 1), (Entry("::1.0.9", "tcp6", 3, "inet6", "tcp"),)
        )
        self.assertEqual(self.entries(USER, 7, 1), (Entry("/run/s", "local", 3, "loopback", "-"),))

    def test_this_version_only(self) -> None:
        """No other version stands in."""
        self.assertEqual(len(self.entries(loopback(), 7, 2)), 1)
        self.assertEqual(self.entries(loopback(), 7, 3), ())
        self.assertEqual(self.entries(loopback(), 8, 1), ())


class StatisticsTests(RpcbindTestCase):
    """GETSTAT."""

    def test_counts(self) -> None:
        """It tells of every version what was asked and found before it."""
        self.mapper.ask(ROOT, 3, SET, rpcb(7, 1, "udp", "0.0.0.0.0.9"))
        self.mapper.ask(ROOT, 3, SET, rpcb(7, 1, "udp", "junk"))
        self.mapper.ask(ROOT, 4, UNSET, rpcb(8, 1))
        self.mapper.ask(loopback(), 3, GETADDR, rpcb(7, 9))
        self.mapper.ask(loopback(), 3, GETADDR, rpcb(8, 9))
        self.assertRaises(AuthRefused, self.mapper.ask, remote(), 4, SET, rpcb(7, 1))
        rows = decode(self.mapper.ask(loopback(), 4, GETSTAT) or b"")
        self.assertEqual(rows[2].calls, (0,) * 13)
        self.assertEqual((rows[3].calls[:4], rows[3].sets, rows[3].unsets), ((0, 2, 0, 2), 1, 0))
        self.assertEqual((rows[4].calls[:4], rows[4].sets, rows[4].unsets), ((0, 1, 1, 0), 0, 1))
        found = {Lookup(7, 1, "udp"): (1, 0), Lookup(8, 9, "udp"): (0, 1)}
        self.assertEqual(rows[3].lookups, found)

    def test_counts_itself(self) -> None:
        """The second time, it tells of the first."""
        self.mapper.ask(loopback(), 4, GETSTAT)
        rows = decode(self.mapper.ask(loopback(), 4, GETSTAT) or b"")
        self.assertEqual(rows[4].calls[12], 1)


class VersionTests(RpcbindTestCase):
    """What tells the versions apart."""

    def test_version_4_only(self) -> None:
        """Procedures from 9 on are version 4's."""
        for version, procedures in PROCEDURES.items():
            for procedure in range(len(procedures), 16):
                with self.assertRaises(ProcedureUnavailable):
                    self.mapper.ask(ROOT, version, procedure, rpcb(7, 1))

    def test_surplus(self) -> None:
        """Surplus bytes behind the arguments are ignored."""
        self.map((7, 1, "udp", "192.0.2.9.0.1"))
        more = rpcb(7, 1) + b"surplus!"
        self.assertEqual(self.text(loopback(), GETADDR, more), "192.0.2.9.0.1")
        self.assertEqual(self.mapper.ask(ROOT, 3, UNSET, more), TRUE)
