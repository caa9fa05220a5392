"""Filters by interface, with real sockets on loopback."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.interface_filter import hear_loopback, hear_others, steer


class InterfaceFilterTests(SynchronousTestCase):
    """What sockets hear of datagrams that come in over loopback."""

    def make_socket(self, port: int = 0) -> socket.socket:
        """A bound socket that shares its port."""
        skt = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(skt.close)
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        skt.setblocking(False)
        skt.bind(("127.0.0.1", port))
        return skt

    def received(self, *sockets: socket.socket) -> list[int]:
        """How many of many datagrams, from as many ports, each socket receives."""
        for _ in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"datagram", sockets[0].getsockname())
        return [self.count(skt) for skt in sockets]

    def count(self, skt: socket.socket) -> int:
        """How many datagrams wait."""
        count = 0
        while True:
            try:
                skt.recv(100)
            except BlockingIOError:
                return count
            count += 1

    def test_hear_loopback(self) -> None:
        """What comes in over loopback is kept whole."""
        skt = self.make_socket()
        hear_loopback(skt)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(60_000), skt.getsockname())
        self.assertEqual(skt.recv(65_535), bytes(60_000))

    def test_hear_others(self) -> None:
        """What comes in over loopback is dropped."""
        skt = self.make_socket()
        hear_others(skt)
        self.assertEqual(self.received(skt), [0])

    def test_steer(self) -> None:
        """Of two sockets, the one for loopback gets all that comes in there, from any port."""
        others = self.make_socket()
        loopback = self.make_socket(others.getsockname()[1])
        hear_others(others)
        hear_loopback(loopback)
        steer(others)
        self.assertEqual(self.received(others, loopback), [0, 20])
