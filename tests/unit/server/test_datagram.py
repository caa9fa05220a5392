"""Datagrams over a transport that knows nothing of packet information."""

import socket

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import ISystemHandle, IUDPTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from portmapd.errors import AuthRefused, ConfigurationError
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import decode_reply, success, xid_of
from portmapd.oncrpc.program import CallResult, encode_call_result
from portmapd.registry.mapping import mapping
from portmapd.server.datagram import PortmapDatagramProtocol
from tests.support.rpc_samples import call, pmap, remote_call, rpcb
from tests.support.rpc_server import Serving

CALLER = ("127.0.0.1", 40_000)


@implementer(IUDPTransport, ISystemHandle)
class Transport:
    """A UDP port in memory; its socket is real, but bound to nothing.

    :ivar sent: what was sent, and where to.
    :ivar fault: is raised where something is sent, if there is one.
    :ivar is_closed: was it closed?
    """

    def __init__(self, host: str) -> None:
        self._address = (IPv6Address if ":" in host else IPv4Address)("UDP", host, 111)
        self.sent: list[tuple[bytes, tuple[str, int] | None]] = []
        self.fault: Exception | None = None
        self.is_closed = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)

    def getHandle(self) -> socket.socket:
        """The socket."""
        return self.socket

    def getHost(self) -> IPv4Address | IPv6Address:
        """Where it is bound."""
        return self._address

    def write(self, packet: bytes, addr: tuple[str, int] | None) -> None:
        """Send."""
        if self.fault is not None:
            raise self.fault
        self.sent.append((packet, addr))

    def stopListening(self) -> Deferred[None] | None:
        """Be closed."""
        self.is_closed = True
        return None

    def connect(self, host: str, port: int) -> None:
        """It is not for a single peer."""

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """It broadcasts nothing."""

    def getBroadcastAllowed(self) -> bool:
        """It broadcasts nothing."""
        return False


class DatagramTests(SynchronousTestCase):
    """Requests and replies."""

    def setUp(self) -> None:
        self.serving = Serving()
        self.serving.registry.map(
            mapping(7, 1, "udp", "0.0.0.0.0.9"), mapping(7, 1, "udp6", "::.0.10")
        )
        self.protocol, self.transport = self.connected("127.0.0.5")

    def connected(
        self, host: str, address: str | None = None
    ) -> tuple[PortmapDatagramProtocol, Transport]:
        """A protocol on a port that is bound to *host*."""
        protocol = PortmapDatagramProtocol(self.serving.call_server, address)
        transport = Transport(host)
        self.addCleanup(transport.socket.close)
        protocol.makeConnection(transport)
        return protocol, transport

    def test_replies(self) -> None:
        """Every request is answered to its sender, from the cache or not, and counted."""
        for _ in range(3):
            request = call(2, 3, pmap(7, 1))
            self.protocol.datagramReceived(request, CALLER)
            reply, address = self.transport.sent.pop()
            self.assertEqual((xid_of(reply), address), (xid_of(request), CALLER))
            self.assertEqual(decode_reply(reply), xdr.uint(9))
        self.assertEqual(self.serving.statistics.calls(2, 3), 3)
        self.protocol.datagramReceived(b"junk", CALLER)
        self.assertEqual(self.transport.sent, [])

    def test_reached(self) -> None:
        """Callers are told the address that the port is bound to, without its scope."""
        for host, told in (("127.0.0.5", "127.0.0.5.0.9"), ("2001:db8::1", "2001:db8::1.0.10")):
            protocol, transport = self.connected(host)
            protocol.datagramReceived(call(4, 3, rpcb(7, 1)), (host, 40_000))
            ((reply, _),) = transport.sent
            self.assertEqual(decode_reply(reply), xdr.string(told))

    def test_forwarded(self) -> None:
        """A call that is forwarded is answered when its own answer comes, if the port is open."""
        for still_open in (True, False):
            self.protocol.datagramReceived(call(2, 5, remote_call(7, 1, 3)), CALLER)
            (port,) = self.serving.reactor.sockets
            made, address = port.sent.pop()
            if not still_open:
                self.protocol.doStop()
            port.receive(success(xid_of(made), b"results!"), address)
            expected = [encode_call_result(CallResult(9, b"results!"))] if still_open else []
            self.assertEqual([decode_reply(r) for r, _ in self.transport.sent], expected)
            self.transport.sent.clear()

    def test_lost(self) -> None:
        """A reply that cannot be sent is lost, and no more than a debug line."""
        for fault in (OSError("no route"), MessageLengthError("too long")):
            self.transport.fault = fault
            with capturedLogs() as events:
                self.protocol.datagramReceived(call(2, 0), CALLER)
            self.assertEqual([event["log_level"] for event in events], [LogLevel.debug])

    def test_closed(self) -> None:
        """After the end of its server it answers nothing."""
        self.protocol.close()
        self.protocol.datagramReceived(call(2, 0), CALLER)
        self.assertEqual(self.transport.sent, [])

    def test_refused(self) -> None:
        """A port that cannot be served rightly is closed, with a sentence that says what to do."""
        for host, address, why in (
            ("0.0.0.0", None, "listen on each address by itself, or use PortmapperService"),
            ("::", "::", "listen on each address by itself, or use PortmapperService"),
            ("fe80::1%eth0", None, "loses the scope of link-local callers"),
            ("0.0.0.0", "192.0.2.1", "give listenUDP interface='192.0.2.1'"),
            ("0.0.0.0", "::1", "give listenUDP interface='::1'"),
            ("::1", "127.0.0.1", "bound to ::1, and not to 127.0.0.1"),
        ):
            protocol = PortmapDatagramProtocol(self.serving.call_server, address)
            transport = Transport(host)
            transport.socket.close()
            error = self.assertRaises(ConfigurationError, protocol.makeConnection, transport)
            self.assertIn(why, str(error))
            self.assertTrue(transport.is_closed)

    def test_local(self) -> None:
        """Callers are of this host at a loopback address, and nowhere else, whoever they claim."""
        for host, caller, may_register in (
            ("127.0.0.5", "127.0.0.1", True),
            ("127.0.0.5", "192.0.2.7", True),
            ("::1", "2001:db8::7", True),
            ("192.0.2.1", "192.0.2.7", False),
            ("192.0.2.1", "192.0.2.1", False),
            ("2001:db8::1", "2001:db8::1", False),
        ):
            protocol, transport = self.connected(host)
            protocol.datagramReceived(call(2, 1, pmap(8, 1, 17, 9)), (caller, 700))
            ((reply, _),) = transport.sent
            if may_register:
                self.assertEqual(decode_reply(reply), xdr.uint(1))
            else:
                self.assertRaises(AuthRefused, decode_reply, reply)

    def test_forged(self) -> None:
        """Loopback addresses are not answered elsewhere, IPv4-mapped ones nowhere."""
        for host, caller in (
            ("192.0.2.1", "127.0.0.1"),
            ("2001:db8::1", "::1"),
            ("2001:db8::1", "::ffff:127.0.0.1"),
            ("::1", "::ffff:127.0.0.1"),
        ):
            protocol, transport = self.connected(host)
            protocol.datagramReceived(call(2, 0), (caller, 700))
            self.assertEqual(transport.sent, [])

    def test_received_before(self) -> None:
        """What a loopback port received before it heard loopback alone is dropped."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            protocol = PortmapDatagramProtocol(self.serving.call_server)
            transport = Transport("127.0.0.1")
            self.addCleanup(transport.socket.close)
            transport.socket.bind(("127.0.0.1", 0))
            for _ in range(3):
                sender.sendto(call(2, 0), transport.socket.getsockname())
            protocol.makeConnection(transport)
            self.assertRaises(BlockingIOError, transport.socket.recv, 1, socket.MSG_DONTWAIT)

    def test_no_address(self) -> None:
        """So is an address that is none, at once."""
        for address in ("localhost", "", "127.0.0.1:111"):
            self.assertRaises(
                ConfigurationError, PortmapDatagramProtocol, self.serving.call_server, address
            )
