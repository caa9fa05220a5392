"""Program 100000 on its sockets, as one service."""

import errno
import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from portmapd.config import Config
from portmapd.errors import ConfigurationError
from portmapd.oncrpc.netid import LOCAL, TCP, TCP6, UDP, UDP6, format_address
from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.context import Context
from portmapd.portmapper.dispatch import TABLE, Dispatcher
from portmapd.portmapper.reply_cache import ReplyCache
from portmapd.portmapper.v2 import GetportReplies
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import SUPERUSER, mapping
from portmapd.registry.registry import Registry
from portmapd.server.bind_errors import unusable, unusable_socket
from portmapd.server.bound_sockets import is_bound
from portmapd.server.call_forwarder import CallForwarder
from portmapd.server.call_server import CallServer
from portmapd.server.datagram import DatagramPort, PortmapDatagramProtocol
from portmapd.server.fast.epoll_group import EpollGroup
from portmapd.server.fast.transports import TcpPort, UnixPort
from portmapd.server.liveness import Liveness
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.stream import PortmapStreamFactory

#: Addresses that a host without IPv6 does not have, and what it says of them.
_IPV6_DEFAULTS = ("::1", "::")
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


#: How often a free port is chosen: one that is free over UDP need not be over TCP.
CHOICES = 8


class RpcService(Service):
    """Serves program 100000 on UDP, TCP and the rpcbind socket, and registers itself.

    :param config: where, and for whom.
    :param registry: what it serves.
    :param reactor: gives the sockets and measures time.
    :param liveness: looks at new mappings before their SET is replied to.
    :ivar port: the port that it serves, once it is bound.
    :ivar epoll_group: the streams' descriptors; streams of other services may be there, too.
    """

    _log = Logger()

    def __init__(
        self, config: Config, registry: Registry, reactor: Any, liveness: Liveness
    ) -> None:
        self.port = config.port
        self.epoll_group = EpollGroup(reactor)
        self._config = config
        self._registry = registry
        self._reactor = reactor
        self._liveness = liveness
        self._forwarder = CallForwarder(reactor, reactor)
        self._call_server = self._make_call_server()
        self._ports: list[Any] = []
        self._holder: Holder | None = None

    def _make_call_server(self) -> CallServer:
        context = Context(self._registry, self._config.policy, is_bound, self._reactor.seconds)
        return CallServer(
            self._config.policy,
            Dispatcher(context),
            ReplyCache(self._registry, GetportReplies(self._registry, context.statistics).find),
            self._forwarder,
            RateLimitedLog(self._reactor),
            self._liveness.look_at_new,
        )

    def privilegedStartService(self) -> None:
        """Bind every socket, or none.

        :raises ConfigurationError: one cannot be bound; the message says what to do.
        """
        if self._ports:
            return
        try:
            netids = self._listen()
        except BaseException:
            self._close()
            raise
        self._register(netids)

    def startService(self) -> None:
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Close every socket; the deferred fires when they are closed."""
        super().stopService()
        return self._close()

    def _listen(self) -> dict[str, str]:
        """Bind; return the address to register for each netid served."""
        netids = self._listen_to_network(CHOICES)
        path = self._config.rpc_socket
        if path is not None:
            self._listen_locally(path)
            netids[LOCAL.name] = path
        return netids

    def _listen_to_network(self, choices: int) -> dict[str, str]:
        """Serve UDP and TCP, with so many choices of a port where any free one is to be served."""
        self.port = self._config.port
        netids: dict[str, str] = {}
        try:
            for interface in self._config.interfaces:
                pair = (UDP6, TCP6) if ":" in interface else (UDP, TCP)
                if self._listen_on(interface):
                    netids |= {n.name: format_address(n.wildcard, self.port) for n in pair}
        except ConfigurationError:
            if self._config.port or choices == 1:
                raise
            self._close()
            return self._listen_to_network(choices - 1)
        return netids

    def _listen_on(self, interface: str) -> bool:
        """Serve UDP and TCP on *interface*; False if this host has no IPv6."""
        datagrams = DatagramPort(
            self.port, PortmapDatagramProtocol(self._call_server, interface), self._reactor
        )
        try:
            datagrams.startListening()
        except CannotListenError as error:
            if interface in _IPV6_DEFAULTS and error.socketError.errno in _NO_IPV6:
                self._log.info("{interface} is not served: no IPv6 here", interface=interface)
                return False
            raise unusable(error, UDP.name) from error
        self._ports.append(datagrams)
        self.port = datagrams.getHost().port
        streams = TcpPort(self.port, self._make_factory(), interface, self.epoll_group)
        try:
            streams.startListening()
        except CannotListenError as error:
            raise unusable(error, TCP.name) from error
        self._ports.append(streams)
        return True

    def _listen_locally(self, path: str) -> None:
        streams = UnixPort(path, self._make_factory(), self.epoll_group)
        try:
            streams.startListening()
        except CannotListenError as error:
            raise unusable_socket(path, error, "--rpc-socket") from error
        self._ports.append(streams)

    def _make_factory(self) -> PortmapStreamFactory:
        config = self._config
        return PortmapStreamFactory(
            self._call_server, self._reactor, config.idle, config.max_streams
        )

    def _register(self, addresses: dict[str, str]) -> None:
        """Have program 100000 listed, for as long as it is served."""
        self._holder = self._registry.open(Holder(os.geteuid(), os.getpid()))
        self._registry.map(
            *(
                mapping(PROGRAM, version, netid, address, SUPERUSER, self._holder)
                for netid, address in addresses.items()
                for version in sorted(TABLE, reverse=True)
            )
        )

    def _close(self) -> Deferred[Any]:
        """Close what is open; what it registered goes with it."""
        if self._holder is not None:
            self._registry.close(self._holder)
        ports, self._ports = self._ports, []
        stopped = [maybeDeferred(port.stopListening) for port in ports]
        return gatherResults([self._forwarder.stop(), *stopped])
