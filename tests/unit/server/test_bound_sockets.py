"""What is bound on this host, seen with real sockets on loopback addresses."""

# Not "from contextlib import suppress": trial takes a module's "suppress" for its own.
import contextlib
import socket
from tempfile import TemporaryDirectory

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.netid import NETIDS, format_address
from portmapd.registry.mapping import mapping
from portmapd.server.bound_sockets import TABLES, is_bound, read_bound, read_proc
from portmapd.server.sock_diag import ANY_STATE, LISTEN, local_addresses

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
PROTOCOLS = {UDP: socket.IPPROTO_UDP, TCP: socket.IPPROTO_TCP}


def has_ipv6() -> bool:
    """Does this host have ``::1``?"""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, UDP) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@frozen
class Sample:
    """A socket, and which mappings of its port are bound by it.

    :param kind: the socket's type.
    :param host: the address that it is bound to.
    :param bound: pairs of netid and host.
    :param unbound: the same.
    """

    kind: socket.SocketKind
    host: str
    bound: tuple[tuple[str, str], ...]
    unbound: tuple[tuple[str, str], ...]


SAMPLES = [
    Sample(
        UDP,
        "127.0.0.1",
        (("udp", "127.0.0.1"), ("udp", "0.0.0.0")),
        (("udp", "127.0.0.2"), ("tcp", "127.0.0.1"), ("tcp", "0.0.0.0"), ("udp6", "::")),
    ),
    Sample(
        UDP,
        "0.0.0.0",
        (("udp", "127.0.0.1"), ("udp", "0.0.0.0"), ("udp", "192.0.2.9")),
        (("tcp", "0.0.0.0"), ("udp6", "::1"), ("udp6", "::")),
    ),
    Sample(
        TCP,
        "127.0.0.1",
        (("tcp", "127.0.0.1"), ("tcp", "0.0.0.0")),
        (("tcp", "127.0.0.2"), ("udp", "127.0.0.1"), ("udp", "0.0.0.0"), ("tcp6", "::")),
    ),
]

SAMPLES6 = [
    Sample(
        UDP,
        "::1",
        (("udp6", "::1"), ("udp6", "::")),
        (("udp6", "::2"), ("tcp6", "::1"), ("udp", "127.0.0.1")),
    ),
    Sample(
        UDP,
        "::",
        (("udp6", "::1"), ("udp6", "::"), ("udp6", "fe80::1%eth0"), ("udp", "127.0.0.1")),
        (("tcp6", "::"), ("tcp", "0.0.0.0")),
    ),
    Sample(TCP, "::1", (("tcp6", "::1"), ("tcp6", "::")), (("udp6", "::1"), ("tcp6", "::2"))),
    Sample(
        TCP,
        "::ffff:127.0.0.1",
        (("tcp", "127.0.0.1"), ("tcp", "0.0.0.0")),
        (("tcp", "127.0.0.2"), ("udp", "127.0.0.1")),
    ),
]


def opened(kind: socket.SocketKind, host: str) -> socket.socket:
    """A socket that is bound there, at a port that was free, and listens if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, kind)
    made.bind((host, 0))
    if kind is TCP:
        made.listen()
    return made


def bound(netid: str, address: str) -> bool:
    """Is that address bound now?"""
    return is_bound(mapping(7, 1, netid, address))


class BoundTests(SynchronousTestCase):
    """The kernel's tables."""

    def test_internet(self) -> None:
        """A socket binds its own address, a wildcard every one, and every one the wildcard."""
        for sample in SAMPLES + (SAMPLES6 if has_ipv6() else []):
            with opened(sample.kind, sample.host) as skt:
                port = skt.getsockname()[1]
                for netid, host in sample.bound:
                    self.assertTrue(bound(netid, format_address(host, port)), (sample, netid, host))
                for netid, host in sample.unbound:
                    self.assertFalse(
                        bound(netid, format_address(host, port)), (sample, netid, host)
                    )
            for netid, host in sample.bound:
                self.assertFalse(bound(netid, format_address(host, port)))

    def test_two_sources(self) -> None:
        """The kernel's files tell the same as its socket diagnosis, which they stand in for."""
        for sample in SAMPLES + (SAMPLES6 if has_ipv6() else []):
            with opened(sample.kind, sample.host) as skt:
                port = skt.getsockname()[1].to_bytes(2, "big")
                table = ("tcp" if sample.kind is TCP else "udp") + "6" * (":" in sample.host)
                states = LISTEN if sample.kind is TCP else ANY_STATE
                asked = local_addresses(skt.family, PROTOCOLS[sample.kind], states)
                told = [address for address in asked if address.startswith(port)]
                self.assertEqual(len(told), 1)
                self.assertEqual([a for a in read_proc(table) if a.startswith(port)], told)

    def test_listening_only(self) -> None:
        """A TCP socket that does not listen serves nobody, nor does a connection."""
        with socket.socket() as skt:
            skt.bind(("127.0.0.1", 0))
            address = format_address("127.0.0.1", skt.getsockname()[1])
            self.assertFalse(bound("tcp", address))
            skt.listen()
            self.assertTrue(bound("tcp", address))
            with socket.create_connection(skt.getsockname()) as client:
                theirs = format_address("127.0.0.1", client.getsockname()[1])
                self.assertFalse(bound("tcp", theirs))

    def test_local(self) -> None:
        """A UNIX socket is bound while it listens, whatever its path has in it."""
        with TemporaryDirectory() as folder:
            for name in ("s", "a b", "é", " "):
                path = f"{folder}/{name}"
                with socket.socket(socket.AF_UNIX) as skt:
                    skt.bind(path)
                    self.assertFalse(bound("local", path))
                    skt.listen()
                    self.assertTrue(bound("local", path))
                    self.assertFalse(bound("local", f"{path}x"))
                self.assertFalse(bound("local", path))

    def test_odd_paths(self) -> None:
        """No path of another's socket stands in the way of reading the tables."""
        with TemporaryDirectory() as folder:
            names = (b"\xff", b"a\nb", b"a\nb c d zz e f g h", b"a\n", b"a\n0: 0 0 zz")
            for name in names:
                with socket.socket(socket.AF_UNIX) as skt:
                    skt.bind(folder.encode() + b"/" + name)
                    skt.listen()
                    read_bound()

    def test_tables(self) -> None:
        """Every netid has its tables, and only those asked for are read."""
        self.assertEqual(set(TABLES), set(NETIDS))
        self.assertEqual(set(read_bound(()).locals), set())
        self.assertEqual(set(read_bound(("udp",)).locals), {"udp", "udp6"})
        self.assertEqual(set(read_bound().locals), {"udp", "udp6", "tcp", "tcp6", "unix"})
