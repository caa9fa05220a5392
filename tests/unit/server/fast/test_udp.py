"""The UDP sockets of an address: who may bind it, on loopback."""

import socket
from typing import NoReturn, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorFDSet
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.datagram import PortmapDatagramProtocol
from portmapd.server.fast.udp import listen
from tests.support.exchange import PATIENCE, question
from tests.support.rpc_server import Serving


class ListenTests(SynchronousTestCase):
    """Two port mappers never share an address, though two sockets of one do."""

    def listen(self, host: str, port: int = 0) -> IListeningPort:
        """Serve there until the test ends."""
        protocol = PortmapDatagramProtocol(Serving().call_server, host)
        self.reactor = reactor = MemoryReactorClock()
        made = listen(port, protocol, host, cast("IReactorFDSet", self.reactor))
        self.addCleanup(reactor.advance, 0)
        self.addCleanup(made.stopListening)
        return made

    def test_taken(self) -> None:
        """An address that one serves is taken for the next one, wholly or in part."""
        for first in ("0.0.0.0", "127.0.0.1"):
            port = cast("IPv4Address", self.listen(first).getHost()).port
            for second in ("0.0.0.0", "127.0.0.1"):
                self.assertRaises(CannotListenError, self.listen, second, port)

    def test_shared_by_others(self) -> None:
        """So is one that another program of the user lets others share."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("0.0.0.0", 0))
            self.assertRaises(CannotListenError, self.listen, "0.0.0.0", other.getsockname()[1])

    def test_out_of_memory(self) -> None:
        """Datagrams that cannot be served are lost; the socket is not."""
        protocol = PortmapDatagramProtocol(Serving().call_server, "127.0.0.1")
        reactor = MemoryReactorClock()
        made = listen(0, protocol, "127.0.0.1", cast("IReactorFDSet", reactor))
        self.addCleanup(reactor.advance, 0)
        self.addCleanup(made.stopListening)

        def fail(*arguments: object) -> NoReturn:
            raise MemoryError

        port = cast("IPv4Address", made.getHost()).port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
            skt.settimeout(PATIENCE)
            skt.connect(("127.0.0.1", port))
            patch = self.patch(protocol, "serve", fail)
            skt.send(question(2, 0))
            self.assertTrue(made.serve())
            patch.restore()
            self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
            self.assertFalse(made.serve())
            skt.send(question(2, 0))
            self.assertTrue(made.serve())
            self.assertEqual(len(skt.recv(99)), 24)

    def test_sockets(self) -> None:
        """An address of loopback has one socket, any other one more; IPv6 watches interfaces."""
        for host, count in (("127.0.0.5", 1), ("::1", 1), ("0.0.0.0", 2), ("::", 3)):
            self.listen(host)
            self.assertEqual(len(self.reactor.getReaders()), count)
