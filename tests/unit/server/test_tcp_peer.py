"""Users of TCP connections on loopback, as the kernel tells them."""

import os
import socket
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.tcp_peer import Endpoint, peer_uid
from tests.support.exchange import connect, run_as


class PeerUidTests(SynchronousTestCase):
    """The user of the other end."""

    def found(self, host: str, uid: int) -> int | None:
        """The user that is told for a connection of that user."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as server:
            port = server.getsockname()[1]
            with run_as(uid, lambda: connect(socket.SOCK_STREAM, host, port)) as skt:
                self.ends = Endpoint(*skt.getsockname()[:2]), Endpoint(host, port)
                return peer_uid(*self.ends)

    def test_own(self) -> None:
        """It is ours, if we connected; when it is closed, nobody's."""
        for host in ("127.0.0.1", "127.0.0.5", "::1"):
            self.assertEqual(self.found(host, os.geteuid()), os.geteuid())
            self.assertIsNone(peer_uid(*self.ends))

    @skipIf(os.geteuid() != 0, "only root can act for other users")
    def test_other(self) -> None:
        """It is another user's, if that one connected."""
        for host in ("127.0.0.1", "::1"):
            self.assertEqual(self.found(host, 1234), 1234)

    def test_no_connection(self) -> None:
        """A connection that does not exist is nobody's."""
        self.assertIsNone(peer_uid(Endpoint("192.0.2.1", 1), Endpoint("127.0.0.1", 1)))
