"""A port mapper up to its sockets, which are in memory, with a clock that tests advance."""

from typing import Any

from twisted.internet.interfaces import IListeningPort, IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from zope.interface import implementer

from portmapd.portmapper.access import Policy
from portmapd.portmapper.reply_cache import ReplyCache
from portmapd.portmapper.v2 import getport_replies
from portmapd.server.call_forwarder import CallForwarder
from portmapd.server.call_server import CallServer
from portmapd.server.rate_limited_log import RateLimitedLog
from tests.support.rpc_samples import PortMapper


@implementer(IListeningPort)
class MemoryPort:
    """A UDP socket of :class:`MemoryReactor`.

    :ivar sent: what was sent, and where to.
    :ivar fault: if there is one, it is raised where something is sent.
    """

    def __init__(self, protocol: DatagramProtocol, interface: str) -> None:
        self.protocol = protocol
        self.interface = interface
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.fault: Exception | None = None
        self.stopped = False

    def startListening(self) -> None:
        """Be there."""

    def getHost(self) -> Any:
        """There is no address in memory."""

    def write(self, datagram: bytes, address: tuple[str, int]) -> None:
        """Send *datagram*."""
        if self.fault is not None:
            raise self.fault
        self.sent.append((datagram, address))

    def receive(self, datagram: bytes, address: tuple[str, int]) -> None:
        """Have *datagram* come in from there."""
        self.protocol.datagramReceived(datagram, address)

    def stopListening(self) -> None:
        """Be closed."""
        self.stopped = True


@implementer(IReactorUDP)
@implementer(IReactorUDP)
class MemoryReactor(Clock):
    """A reactor whose time and sockets are a test's own.

    :ivar sockets: the UDP sockets that were made.
    :ivar fault: if there is one, it is raised where a socket is made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sockets: list[MemoryPort] = []
        self.fault: Exception | None = None

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192
    ) -> MemoryPort:
        """Make a UDP socket."""
        if self.fault is not None:
            raise self.fault
        self.sockets.append(MemoryPort(protocol, interface))
        return self.sockets[-1]


class Serving:
    """Everything between the sockets and the registry."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.reactor = MemoryReactor()
        self.mapper = PortMapper(policy)
        self.registry = self.mapper.registry
        self.statistics = self.mapper.statistics
        self.cache = ReplyCache(self.registry, getport_replies(self.registry, self.statistics))
        self.forwarder = CallForwarder(self.reactor, self.reactor)
        self.call_server = CallServer(
            self.mapper.context.policy,
            self.mapper.dispatcher,
            self.cache,
            self.forwarder,
            RateLimitedLog(self.reactor),
        )
