"""What is bound on this host, as the kernel tells it in two ways."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from portmapd.net import bound
from portmapd.net.bound import TABLES, is_bound, locals_of, read_bound, read_proc
from portmapd.oncrpc.address import format_address
from portmapd.registry.mapping import mapping

_INET = ("udp", "tcp", "udp6", "tcp6")


class BoundTests(SynchronousTestCase):
    """Sockets of this very process are seen, and seen to go."""

    def open(self, family: int, kind: int, host: str) -> socket.socket:
        """A socket bound to *host*, listening if it is a stream."""
        skt = socket.socket(family, kind)
        self.addCleanup(skt.close)
        skt.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            skt.listen()
        return skt

    def test_comes_and_goes(self) -> None:
        """A mapping is bound while a socket is, on the wildcard address as on its own."""
        for netid, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
            skt = self.open(socket.AF_INET, kind, "127.0.0.1")
            port = skt.getsockname()[1]
            there = mapping(300000, 1, netid, format_address("127.0.0.1", port))
            anywhere = mapping(300000, 1, netid, format_address("0.0.0.0", port))
            elsewhere = mapping(300000, 1, netid, format_address("127.0.0.9", port))
            self.assertEqual(
                (True, True, False), tuple(map(is_bound, (there, anywhere, elsewhere)))
            )
            skt.close()
            self.assertEqual((False, False), (is_bound(there), is_bound(anywhere)))

    def test_socket_that_does_not_listen(self) -> None:
        """A TCP socket that is bound and does not listen serves nobody."""
        skt = socket.socket()
        self.addCleanup(skt.close)
        skt.bind(("127.0.0.1", 0))
        address = format_address("0.0.0.0", skt.getsockname()[1])
        self.assertFalse(is_bound(mapping(300000, 1, "tcp", address)))

    def test_unix(self) -> None:
        """A path is bound while a socket listens there."""
        path = self.mktemp()
        absolute = f"/tmp/{path.replace('/', '-')[-60:]}"
        skt = socket.socket(socket.AF_UNIX)
        self.addCleanup(skt.close)
        skt.bind(absolute)
        there = mapping(300000, 1, "local", absolute)
        self.assertFalse(is_bound(there))
        skt.listen()
        self.assertTrue(is_bound(there))

    def test_two_sources_agree(self) -> None:
        """``/proc/net``, which serves where netlink does not, tells the same."""
        self.open(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
        listening = self.open(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
        address = format_address("127.0.0.1", listening.getsockname()[1])
        found = mapping(300000, 1, "tcp", address)
        wanted = locals_of(found)
        self.assertFalse(wanted.isdisjoint(read_bound(("tcp",)).locals["tcp"]))
        self.assertFalse(wanted.isdisjoint(read_proc("tcp")))

    def test_without_netlink(self) -> None:
        """Where the kernel refuses netlink, ``/proc/net`` is read."""
        listening = self.open(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
        address = format_address("127.0.0.1", listening.getsockname()[1])
        self.patch(bound, "local_addresses", _refuse)
        self.assertTrue(is_bound(mapping(300000, 1, "tcp", address)))

    def test_tables(self) -> None:
        """Every netid's tables can be read on this host."""
        self.assertEqual({*_INET, "unix"}, set(read_bound(tuple(TABLES)).locals))


def _refuse(family: int, protocol: int, states: int) -> list[bytes]:
    """What asking over netlink comes to in a sandbox without it."""
    raise PermissionError("no netlink here")
