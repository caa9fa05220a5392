"""Universal addresses and netbufs: pairs, both ways, and what is refused."""

import re
import socket
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidMapping
from portmapd.oncrpc.netid import (
    LOCAL,
    MAX_PATH,
    NETIDS,
    PROTOCOLS,
    TCP,
    TCP6,
    UDP,
    UDP6,
    Netid,
    UniversalAddress,
    canonical_address,
    format_address,
    from_sockaddr,
    parse_address,
    split_address,
    to_sockaddr,
)
from tests.support.rpc_samples import ADDRESSES, PORTS, PROPERTY

PAGE = Path(__file__).resolve().parents[3] / "docs" / "replace-rpcbind.rst"

#: Netid, address in its canonical text, host, port, scope.
VALID = [
    (UDP, "127.0.0.1.0.111", "127.0.0.1", 111, ""),
    (TCP, "0.0.0.0.255.255", "0.0.0.0", 65_535, ""),
    (TCP, "192.0.2.1.8.1", "192.0.2.1", 2_049, ""),
    (UDP6, "::.0.1", "::", 1, ""),
    (UDP6, "::1.0.111", "::1", 111, ""),
    (TCP6, "2001:db8::7.3.232", "2001:db8::7", 1_000, ""),
    (TCP6, "2001:db8:0:1:1:1:1:1.3.232", "2001:db8:0:1:1:1:1:1", 1_000, ""),
    (TCP6, "fe80::1.8.1", "fe80::1", 2_049, ""),
    (TCP6, "fe80::1%eth0.8.1", "fe80::1", 2_049, "eth0"),
    (UDP6, "fe80::1%eth0.100.0.2", "fe80::1", 2, "eth0.100"),
    (UDP6, "fe80::1%12.0.2", "fe80::1", 2, "12"),
]

#: Netid, an address in another spelling, the canonical one.
SPELLINGS = [
    # Java writes the wildcard so.
    (UDP6, "0:0:0:0:0:0:0:0.19.136", "::.19.136"),
    (TCP6, "0000:0000:0000:0000:0000:0000:0000:0000.19.136", "::.19.136"),
    (TCP6, "0::0.19.136", "::.19.136"),
    (UDP6, "0:0:0:0:0:0:0:1.19.136", "::1.19.136"),
    (UDP6, "2001:DB8::A.19.136", "2001:db8::a.19.136"),
    (UDP6, "2001:0db8:0:0:1:0:0:1.19.136", "2001:db8::1:0:0:1.19.136"),
    (UDP6, "FE80::1%Eth0.19.136", "fe80::1%Eth0.19.136"),
    # Bytes of the port with leading zeros, as printf("%03d") writes them.
    (UDP, "127.0.0.1.000.111", "127.0.0.1.0.111"),
    (UDP6, "::1.019.008", "::1.19.8"),
    # The wildcard of the other family, in every spelling of it.
    (UDP, "::.19.136", "0.0.0.0.19.136"),
    (TCP, "0:0:0:0:0:0:0:0.19.136", "0.0.0.0.19.136"),
    (TCP, "::ffff:0.0.0.0.19.136", "0.0.0.0.19.136"),
    (TCP6, "0.0.0.0.19.136", "::.19.136"),
    (UDP6, "::ffff:0.0.0.0.19.136", "::.19.136"),
    (TCP6, "::ffff:0.0.0.0.19.136", "::.19.136"),
    (TCP6, "::FFFF:0:0.19.136", "::.19.136"),
    # An IPv4-mapped address is an IPv4 address.
    (UDP, "::ffff:192.0.2.1.19.136", "192.0.2.1.19.136"),
    (TCP, "0:0:0:0:0:ffff:7f00:1.19.136", "127.0.0.1.19.136"),
]

#: Netid, address, a part of what is said about it.
INVALID = [
    (UDP, "", "does not end with the two bytes of a port"),
    (UDP, "junk", "does not end with"),
    (UDP, ".", "does not end with"),
    (UDP, "..", "does not end with"),
    (UDP, "1.2", "does not end with"),
    (UDP, "127.0.0.1", "is not an inet address"),
    (UDP, "127.0.0.1.0.256", "does not end with"),
    (UDP, "127.0.0.1.256.0", "does not end with"),
    (UDP, "127.0.0.1.0.-1", "does not end with"),
    (UDP, "127.0.0.1.0.+1", "does not end with"),
    (UDP, "127.0.0.1.0. 1", "does not end with"),
    (UDP, "127.0.0.1.0.1 ", "does not end with"),
    (UDP, "127.0.0.1.0.0x1", "does not end with"),
    (UDP, "127.0.0.1.0.0001", "does not end with"),
    (UDP, "127.0.0.1.0.\u0661", "does not end with"),
    (UDP, "127.0.0.1.0.\u00b2", "does not end with"),
    (UDP, "127.0.0.1.0.", "does not end with"),
    (UDP, "127.0.0.1.0.0", "has port 0"),
    (UDP, "127.1.0.111", "is not an inet address"),
    (UDP, "localhost.0.111", "is not an inet address"),
    (UDP, "::1.0.111", "is not an inet address"),
    (UDP, "127.0.0.1%lo.0.111", "is not an inet address"),
    (UDP, "127.0.0.1\0.0.111", "is not an inet address"),
    (UDP, "127.0.0.1\n.0.111", "is not an inet address"),
    (TCP, "/run/socket", "does not end with"),
    (UDP, "010.0.0.1.0.111", "is not an inet address"),
    (UDP, " 127.0.0.1.0.111", "is not an inet address"),
    (UDP, "127.0.0.1 .0.111", "is not an inet address"),
    (UDP, "::ffff:192.0.2.1%lo.0.111", "is not an inet address"),
    (UDP, "::%lo.0.111", "is not an inet address"),
    (UDP, "2001:db8::7.0.111", "is not an inet address"),
    (UDP6, "0.0.0.0.0.111", "is not an inet6 address"),
    (UDP6, "127.0.0.1.0.111", "is not an inet6 address"),
    (UDP6, "::ffff:192.0.2.1.0.111", "is not an inet6 address"),
    (UDP6, " ::1.0.111", "is not an inet6 address"),
    (UDP6, "::1 .0.111", "is not an inet6 address"),
    (UDP6, "::%eth0.0.111", "is not an inet6 address"),
    (UDP6, "2001:db8::1%eth0.0.111", "is not an inet6 address"),
    (UDP6, "00000::1.0.111", "is not an inet6 address"),
    (UDP6, "[::1].0.111", "is not an inet6 address"),
    (UDP6, ":::1.0.111", "is not an inet6 address"),
    (UDP6, "%lo.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%a%b.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%a b.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%a/b.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%a\n.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%é.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%\udcff.0.111", "is not an inet6 address"),
    (UDP6, "fe80::1%sixteencharacter.0.111", "is not an inet6 address"),
    (LOCAL, "", "is not an absolute path"),
    (LOCAL, "run/socket", "is not an absolute path"),
    (LOCAL, "127.0.0.1.0.111", "is not an absolute path"),
    (LOCAL, "/run/\n", "is not an absolute path"),
    (LOCAL, "/run/\0", "is not an absolute path"),
    (LOCAL, "/run/\udcff", "is not an absolute path"),
    (LOCAL, "/" + "x" * MAX_PATH, "at most 107 bytes"),
    (LOCAL, "/" + "é" * 54, "at most 107 bytes"),
]


def family(number: int) -> bytes:
    """An address family as a ``sockaddr`` has it."""
    return number.to_bytes(2, sys.byteorder)


INET, INET6, UNIX = family(socket.AF_INET), family(socket.AF_INET6), family(socket.AF_UNIX)
ONE = bytes(15) + b"\1"

#: Netid, address, netbuf.
NETBUFS = [
    (UDP, "127.0.0.1.0.111", INET + b"\0\x6f\x7f\0\0\1" + bytes(8)),
    (TCP, "255.255.255.255.255.255", INET + b"\xff" * 6 + bytes(8)),
    (UDP6, "::1.0.111", INET6 + b"\0\x6f" + bytes(4) + ONE + bytes(4)),
    (TCP6, "::.8.1", INET6 + b"\x08\1" + bytes(24)),
    (LOCAL, "/run/socket", UNIX + b"/run/socket"),
    (LOCAL, "/" + "x" * 106, UNIX + b"/" + b"x" * 106),
]


class NetidTests(SynchronousTestCase):
    """The table of transports."""

    def test_page(self) -> None:
        """The page's table of spellings says what becomes of each."""
        page = PAGE.read_text().partition("Spellings of addresses\n---")[2].partition("\nDead")[0]
        rows = re.findall(r"\* - (\w+)\n +- ``(.+)``\n +- (refused|``(.+?)``)", page)
        self.assertGreater(len(rows), 10)
        for netid, address, becomes, canonical in rows:
            if becomes == "refused":
                self.assertRaises(InvalidMapping, canonical_address, NETIDS[netid], address)
            else:
                self.assertEqual(canonical_address(NETIDS[netid], address)[0], canonical)

    def test_names(self) -> None:
        """Each netid is found by its name, and in version 2 by its protocol."""
        self.assertEqual(list(NETIDS), ["udp", "tcp", "udp6", "tcp6", "local"])
        self.assertTrue(all(netid.name == name for name, netid in NETIDS.items()))
        self.assertEqual(PROTOCOLS, {17: UDP, 6: TCP})

    def test_protocol_numbers(self) -> None:
        """Exactly the netids of version 2 know their protocol's number."""
        numbers = {n.number: n for n in NETIDS.values() if n.number is not None}
        self.assertEqual(numbers, PROTOCOLS)


class AddressTests(SynchronousTestCase):
    """Universal addresses."""

    def test_parse(self) -> None:
        """A valid address has a host and a port."""
        for netid, address, host, port, scope in VALID:
            self.assertEqual(parse_address(netid, address), UniversalAddress(host, port, scope))
            whole = f"{host}%{scope}" if scope else host
            self.assertEqual(split_address(address), (whole, port))

    def test_canonical(self) -> None:
        """All spellings of an address have one canonical text, which is its own."""
        same = [(netid, address, address) for netid, address, *_ in VALID]
        for netid, address, canonical in (*SPELLINGS, *same):
            port = split_address(canonical)[1]
            self.assertEqual(canonical_address(netid, address), (canonical, port), address)

    def test_format(self) -> None:
        """Host and port make the address again."""
        for _, address, host, port, scope in VALID:
            self.assertEqual(str(UniversalAddress(host, port, scope)), address)

    def test_path(self) -> None:
        """The address of netid local is a path, without a port."""
        for path in ("/", "/run/rpcbind.sock", "/run/a b.0.1", "/é", "/" + "x" * 106):
            self.assertEqual(canonical_address(LOCAL, path), (path, 0))

    def test_refused(self) -> None:
        """All else is refused with a sentence that says what is wrong."""
        for netid, address, said in INVALID:
            with self.assertRaisesRegex(InvalidMapping, said):
                canonical_address(netid, address)


class NetbufTests(SynchronousTestCase):
    """``sockaddr`` in a netbuf."""

    def test_to_sockaddr(self) -> None:
        """Addresses become their bytes."""
        for netid, address, netbuf in NETBUFS:
            self.assertEqual(to_sockaddr(netid, address), netbuf)

    def test_from_sockaddr(self) -> None:
        """Bytes become their addresses."""
        for netid, address, netbuf in NETBUFS:
            self.assertEqual(from_sockaddr(netid, netbuf), address)

    def test_scope_is_no_part(self) -> None:
        """Interfaces have other numbers elsewhere: the netbuf does without."""
        self.assertEqual(to_sockaddr(TCP6, "fe80::1%eth0.0.1"), to_sockaddr(TCP6, "fe80::1.0.1"))

    def test_path_with_an_end(self) -> None:
        """A path ends with its ``sockaddr_un``, or earlier with a zero."""
        for tail in (b"", b"\0", b"\0rest", bytes(102)):
            self.assertEqual(from_sockaddr(LOCAL, UNIX + b"/run/s" + tail), "/run/s")

    def test_to_sockaddr_refused(self) -> None:
        """What is not an address has no netbuf."""
        for netid, address, said in INVALID:
            with self.assertRaisesRegex(InvalidMapping, said):
                to_sockaddr(netid, address)

    def test_sizes(self) -> None:
        """Any other size is refused."""
        for netid, prefix, sizes in (
            (UDP, INET, {16}),
            (TCP, INET, {16}),
            (UDP6, INET6, {28}),
            (TCP6, INET6, {28}),
            (LOCAL, UNIX, set(range(3, 111))),
        ):
            for size in set(range(130)) - sizes:
                netbuf = prefix.ljust(size, b"\0")[:size]
                with self.assertRaisesRegex(
                    InvalidMapping, f"not a sockaddr of netid {netid.name}"
                ):
                    from_sockaddr(netid, netbuf)

    def test_families(self) -> None:
        """The address of one family is refused for the other families' netids."""
        for owner, _, netbuf in NETBUFS:
            for netid in NETIDS.values():
                if netid.family != owner.family:
                    self.assertRaises(InvalidMapping, from_sockaddr, netid, netbuf)

    def test_foreign_family_of_the_right_size(self) -> None:
        """The family's number counts, not the size alone."""
        for netid, size in ((UDP, 16), (UDP6, 28), (LOCAL, 110)):
            for number in (0, 255):
                netbuf = family(number) + bytes(size - 2)
                self.assertRaises(InvalidMapping, from_sockaddr, netid, netbuf)


class AddressProperties(SynchronousTestCase):
    """What holds for all addresses and all text."""

    @PROPERTY
    @given(ADDRESSES)
    def test_netbufs_round_trip(self, sample: tuple[Netid, str]) -> None:
        """An address survives as a netbuf, all but its scope."""
        netid, address = sample
        again = from_sockaddr(netid, to_sockaddr(netid, address))
        if netid is LOCAL:
            self.assertEqual(again, address)
            return
        before, after = parse_address(netid, address), parse_address(netid, again)
        self.assertEqual((after.host, after.port), (before.host, before.port))

    @PROPERTY
    @given(ADDRESSES)
    def test_canonical_text_is_stable(self, sample: tuple[Netid, str]) -> None:
        """The canonical text of an address is its own canonical text."""
        netid, address = sample
        canonical, _ = canonical_address(netid, address)
        self.assertEqual(canonical_address(netid, canonical)[0], canonical)

    @PROPERTY
    @given(st.ip_addresses(v=6), PORTS)
    def test_every_spelling(self, host: IPv6Address, port: int) -> None:
        """However an IPv6 address is written, its canonical text is the same."""
        assume(host.ipv4_mapped is None)
        spellings = (str(host), host.exploded, host.exploded.upper())
        texts = {canonical_address(TCP6, format_address(text, port))[0] for text in spellings}
        self.assertEqual(len(texts), 1)

    @PROPERTY
    @given(st.ip_addresses(v=4), PORTS)
    def test_ipv4_mapped(self, host: IPv4Address, port: int) -> None:
        """An IPv4-mapped address is the IPv4 address."""
        mapped = canonical_address(TCP, format_address(f"::ffff:{host}", port))
        self.assertEqual(mapped, canonical_address(TCP, format_address(str(host), port)))

    @PROPERTY
    @given(st.sampled_from(list(NETIDS.values())), st.text() | st.text("0123456789.:%/a"))
    def test_parse_is_total(self, netid: Netid, address: str) -> None:
        """Any text is an address with a netbuf, or refused with InvalidMapping."""
        try:
            canonical_address(netid, address)
        except InvalidMapping:
            self.assertRaises(InvalidMapping, to_sockaddr, netid, address)
        else:
            self.assertTrue(to_sockaddr(netid, address))

    @PROPERTY
    @given(
        st.sampled_from(list(NETIDS.values())),
        st.sampled_from((b"", INET, INET6, UNIX)),
        st.binary(max_size=120),
    )
    def test_from_sockaddr_is_total(self, netid: Netid, prefix: bytes, rest: bytes) -> None:
        """Any bytes are an address, or refused with InvalidMapping."""
        try:
            from_sockaddr(netid, prefix + rest)
        except InvalidMapping:
            pass
