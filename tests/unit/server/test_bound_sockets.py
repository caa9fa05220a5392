"""What is bound on this host, seen with real sockets on loopback addresses."""

# Not "from contextlib import suppress": trial takes a module's "suppress" for its own.
import contextlib
import os
import socket
from tempfile import TemporaryDirectory

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.netid import NETIDS, format_address
from portmapd.registry.mapping import mapping
from portmapd.server import sock_diag
from portmapd.server.bound_sockets import (
    TABLES,
    is_bound,
    read_proc,
    read_proc_unix,
    scan,
    serving_user,
    users_of,
)
from portmapd.server.sock_diag import ANY_STATE, LISTEN, inet_sockets, unix_sockets

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
                asked = inet_sockets(skt.family, PROTOCOLS[sample.kind], states, port)
                told = [bound_socket for batch in asked for bound_socket in batch]
                self.assertEqual([(a[:2], user) for a, user in told], [(port, os.geteuid())])
                self.assertEqual([row for row in read_proc(table) if row[0][:2] == port], told)

    def test_two_sources_of_paths(self) -> None:
        """So do they of UNIX sockets, with their users."""
        with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as skt:
            path = f"{folder}/s".encode()
            skt.bind(path)
            skt.listen()
            row = path, os.geteuid()
            self.assertIn(row, [each for batch in unix_sockets() for each in batch])
            self.assertIn(row, [each for batch in unix_sockets(path) for each in batch])
            self.assertIn(row, read_proc_unix())

    def test_users(self) -> None:
        """It is told whose a socket is; nobody has an address that is not bound."""
        with opened(UDP, "127.0.0.1") as skt:
            port = skt.getsockname()[1]
            for host in ("127.0.0.1", "0.0.0.0"):
                users = users_of(mapping(7, 1, "udp", format_address(host, port)))
                self.assertEqual(users, {os.geteuid()})
        self.assertEqual(users_of(mapping(7, 1, "udp", format_address("0.0.0.0", port))), set())

    def test_one_question(self) -> None:
        """One question finds the socket that serves an address, of whatever family it is."""
        for sample in SAMPLES + (SAMPLES6 if has_ipv6() else []):
            with opened(sample.kind, sample.host) as skt:
                port = skt.getsockname()[1]

                def found(netid: str, host: str, port: int = port) -> frozenset[int | None]:
                    return serving_user(mapping(7, 1, netid, format_address(host, port)))

                for where in sample.bound:
                    self.assertEqual(found(*where), {os.geteuid()}, (sample, where))
                for where in sample.unbound:
                    self.assertEqual(found(*where), set(), (sample, where))
        self.assertEqual(serving_user(mapping(7, 1, "local", "/run/s")), set())

    def test_without_diagnosis(self) -> None:
        """Where the kernel does not offer socket diagnosis, its files are read."""
        with opened(TCP, "127.0.0.1") as skt, TemporaryDirectory() as folder:
            address = format_address("127.0.0.1", skt.getsockname()[1])
            with socket.socket(socket.AF_UNIX) as unix:
                unix.bind(f"{folder}/s")
                unix.listen()
                self.patch(sock_diag, "NETLINK_SOCK_DIAG", 99)
                for netid, at in (("tcp", address), ("local", f"{folder}/s")):
                    users = users_of(mapping(7, 1, netid, at))
                    self.assertEqual(users, {os.geteuid()})

    def test_one_address_of_many(self) -> None:
        """Only the sockets of one port, or path, are told, whatever others there are."""
        with contextlib.ExitStack() as stack, TemporaryDirectory() as folder:
            opened_here = [stack.enter_context(opened(UDP, "127.0.0.1")) for _ in range(300)]
            for number in range(300):
                skt = stack.enter_context(socket.socket(socket.AF_UNIX))
                skt.bind(f"{folder}/{number}")
                skt.listen()
            port = opened_here[150].getsockname()[1].to_bytes(2, "big")
            asked = inet_sockets(socket.AF_INET, socket.IPPROTO_UDP, ANY_STATE, port)
            self.assertEqual([len(batch) for batch in asked if batch], [1])
            for number in (0, 150, 299):
                self.assertTrue(bound("local", f"{folder}/{number}"))
            self.assertFalse(bound("local", f"{folder}/300"))
            self.assertFalse(bound("local", folder))
            self.assertGreater(len([batch for table, batch in scan(("unix",)) if batch]), 1)

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
                    path = folder.encode() + b"/" + name
                    self.assertIn(path, [p for _, batch in scan(("unix",)) for p, _ in batch])
                    read_proc_unix()

    def test_tables(self) -> None:
        """Every netid has its tables, and only those asked for are read."""
        self.assertEqual(set(TABLES), set(NETIDS))
        self.assertEqual({table for table, _ in scan(())}, set())
        for names in (("udp", "udp6"), ("udp", "udp6", "tcp", "tcp6", "unix")):
            self.assertEqual({table for table, _ in scan(names)}, set(names))
