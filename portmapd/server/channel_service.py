"""The local channel on its UNIX socket, as one service."""

import os
import resource
from typing import Any

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError

from portmapd.config import MAX_SERVICES
from portmapd.registry.holder import Holder
from portmapd.registry.registry import Registry
from portmapd.server.bind_errors import unusable_socket
from portmapd.server.channel import ChannelFactory
from portmapd.server.fast.epoll_group import EpollGroup
from portmapd.server.fast.transports import UnixPort
from portmapd.server.peer_lookups import PeerLookups
from portmapd.server.peer_process import Processes
from portmapd.server.rate_limited_log import RateLimitedLog

#: The name under which the daemon lists itself.
ITSELF = "portmapd.portmapd"
#: Everyone may enter the directory of the socket, and connect.
DIRECTORY_MODE = 0o755


class ChannelService(TwistedService):
    """Serves the local channel, and lists itself there.

    :param path: the path of its socket; a directory that is missing is made.
    :param reactor: the application's reactor.
    :param registry: what connections register in; None: a registry of its own.
    :param limit: the most services and mappings that one process may hold.
    :param epoll_group: where the sockets are served; None: a epoll_group of its own.
    :ivar path: the path of its socket.
    :ivar registry: what is registered; it may be read, changed and followed directly.
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        registry: Registry | None = None,
        limit: int = MAX_SERVICES,
        epoll_group: EpollGroup | None = None,
    ) -> None:
        self.registry = Registry() if registry is None else registry
        self.path = path
        self._hub = EpollGroup(reactor) if epoll_group is None else epoll_group
        self._limit = limit
        self._complaints = RateLimitedLog(reactor)
        self._factory: ChannelFactory | None = None
        self._port: UnixPort | None = None
        self._holder: Holder | None = None

    def privilegedStartService(self) -> None:
        """Bind the socket.

        :raises ConfigurationError: it cannot be bound; the message says what to do.
        """
        if self._port is not None:
            return
        processes = Processes(self._hub, self._limit)
        peer_lookups, most = PeerLookups(self._hub), _most_descriptors()
        factory = ChannelFactory(self.registry, processes, peer_lookups, self._complaints, most)
        port = UnixPort(self.path, factory, self._hub)
        try:
            _make_directory(os.path.dirname(self.path))
            port.startListening()
        except (OSError, CannotListenError) as error:
            raise unusable_socket(self.path, error, "--local-socket") from error
        self._factory, self._port = factory, port

    def startService(self) -> None:
        self.privilegedStartService()
        super().startService()
        # Not before: twistd has become the user that it was told to be by now.
        if self._holder is None:
            self._holder = self.registry.open(Holder(os.geteuid(), os.getpid()))
            self.registry.register(self._holder.new_service(ITSELF, self.path, 0))

    def stopService(self) -> Deferred[Any]:
        """Close the socket and every connection; the deferred fires when they are closed."""
        super().stopService()
        factory, port = self._factory, self._port
        if factory is None or port is None:
            return succeed(None)
        self._factory = self._port = None
        if self._holder is not None:
            self.registry.close(self._holder)
            self._holder = None
        return gatherResults([maybeDeferred(port.stopListening), factory.end()])


def _make_directory(path: str) -> None:
    """Make the directory, which others may enter whatever our umask is."""
    mask = os.umask(0o777 & ~DIRECTORY_MODE)
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        os.umask(mask)


def _most_descriptors() -> int:
    """Three quarters of the descriptors that we may have: the rest is for everything else."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4
