"""The local channel on its UNIX socket, as one service."""

import os
import resource
from typing import Any
from uuid import uuid4

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from portmapd.channel.box import Box, BoxReader
from portmapd.local.process import Process, Processes, read_executable
from portmapd.local.session import Daemon, Session
from portmapd.local.watching import Watcher, Watchers
from portmapd.net.credentials import peer_credentials
from portmapd.net.hub import Hub
from portmapd.net.listening import UnixPort
from portmapd.net.pipelined import Pipelined
from portmapd.net.taken import unusable_socket
from portmapd.registry.holder import Holder
from portmapd.registry.registry import Registry

#: The name under which the daemon lists itself.
ITSELF = "portmapd.portmapd"
#: Everyone may enter the directory of the socket, and connect.
DIRECTORY_MODE = 0o755


class Channel(Pipelined[Box]):
    """One connection."""

    factory: "ChannelFactory"
    _log = Logger()
    _session: Session | None = None
    _process: Process | None = None

    def connectionMade(self) -> None:
        self._reader = BoxReader()
        skt = self.transport.getHandle()
        peer = peer_credentials(skt)
        try:
            self._process = process = self.factory.processes.join(self, skt, peer.pid)
        except OSError as error:
            self._log.debug("pid {pid} is gone: {error}", pid=peer.pid, error=error)
            self.transport.abortConnection()
            return
        exe = read_executable(peer.pid, process.pidfd)
        self._watcher = Watcher(self.send)
        self._session = self.factory.daemon.open(
            Holder(peer.uid, peer.pid, exe, process.allowance), self._watcher
        )
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.take(self._reader.feed(data))

    def answer(self, request: Box) -> bytes:
        return self._session.answer(request) if self._session is not None else b""

    def broke(self, fault: str) -> None:
        self._log.info("a connection is closed: {fault}", fault=fault)

    def pauseProducing(self) -> None:
        self._watcher.pause()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._watcher.resume()
        super().resumeProducing()

    def end(self) -> None:
        """End the connection and all that it holds, for its process has ended."""
        self._close()
        self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        self._close()
        if self._process is not None:
            self.factory.processes.leave(self, self._process)
            self._process = None
            # It leads back here: without it, nothing has to wait for the collector.
            del self._watcher
        self.factory.closed(self)

    def _close(self) -> None:
        if self._session is not None:
            self._session.end()
            self._session = None


class ChannelFactory(Factory):
    """The connections of one socket.

    :param registry: what they register in.
    :param hub: where their processes are watched.
    :param limit: the most services and mappings that one process may hold.
    :param connections: the most connections; further ones are closed at once.
    """

    noisy = False

    def __init__(self, registry: Registry, hub: Hub, limit: int, connections: int) -> None:
        self.daemon = Daemon(registry, Watchers(registry), uuid4().hex)
        self.processes = Processes(hub, limit)
        self._limit = connections
        self._open: set[Channel] = set()

    def buildProtocol(self, addr: Any) -> Any:
        if len(self._open) >= self._limit:
            return None
        channel = Channel()
        channel.factory = self
        self._open.add(channel)
        return channel

    def closed(self, channel: Channel) -> None:
        """*channel* has ended."""
        self._open.discard(channel)

    def stopFactory(self) -> None:
        for channel in tuple(self._open):
            channel.transport.abortConnection()


class ChannelService(TwistedService):
    """Serves the local channel, and lists itself there.

    :param path: the path of its socket; a directory that is missing is made.
    :param registry: what connections register in.
    :param hub: where their sockets are served.
    :param limit: the most services and mappings that one process may hold.
    """

    def __init__(self, path: str, registry: Registry, hub: Hub, limit: int) -> None:
        self._path = path
        self._registry = registry
        self._hub = hub
        self._limit = limit
        self._port: UnixPort | None = None
        self._holder: Holder | None = None

    def privilegedStartService(self) -> None:
        """Bind the socket.

        :raises ConfigurationError: it cannot be bound; the message says what to do.
        """
        if self._port is not None:
            return
        factory = ChannelFactory(self._registry, self._hub, self._limit, _most_connections())
        port = UnixPort(self._path, factory, self._hub)
        try:
            os.makedirs(os.path.dirname(self._path), DIRECTORY_MODE, exist_ok=True)
            port.startListening()
        except (OSError, CannotListenError) as error:
            raise unusable_socket(self._path, error, "--local-socket") from error
        self._port = port
        self._holder = self._registry.open(Holder(os.geteuid(), os.getpid()))
        self._registry.register(self._holder.new_service(ITSELF, self._path, 0))

    def startService(self) -> None:
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Close the socket and every connection; the deferred fires when they are closed."""
        super().stopService()
        port, self._port = self._port, None
        if self._holder is not None:
            self._registry.close(self._holder)
        return maybeDeferred(port.stopListening) if port else maybeDeferred(lambda: None)


def _most_connections() -> int:
    """Three quarters of the descriptors that we may have: the rest is for everything else."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4
