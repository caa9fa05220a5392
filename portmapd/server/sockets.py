"""The sockets of a port mapper: all that a configuration names, or none of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from portmapd.config import Config
from portmapd.oncrpc.netid import LOCAL, TCP, TCP6, UDP, UDP6, format_address
from portmapd.registry.holder import Holder
from portmapd.server.bind_errors import NO_IPV6, unusable, unusable_socket
from portmapd.server.channel import ChannelFactory
from portmapd.server.directories import check_directory
from portmapd.server.engine import Engine, listen_at_one_port
from portmapd.server.handed_in_sockets import HandedInSockets
from portmapd.server.handover.passed import Descriptors
from portmapd.server.handover.taken_over import TakenOver
from portmapd.server.listening import Listening, TakenStream
from portmapd.server.own_addresses import is_own_address
from portmapd.server.pipelining import PipelinedFactory
from portmapd.server.portmap_server import PortmapServer
from portmapd.server.socket_file import make_directory

#: Addresses that a host without IPv6 does not have.
_IPV6_DEFAULTS = ("::1", "::")


class Sockets:
    """The sockets of program 100000 and of the local channel.

    :param config: says which.
    :param engine: makes them.
    :param handed_in: those that are bound already, in place of those that would be made; they are
        taken out of it as they are served, and closed with the others.
    :param uid: the user who serves once they are bound; None: the one who binds them.
    :ivar port: the port that is served over UDP and TCP, once it is bound.
    :ivar addresses: the universal addresses of program 100000, by their netids.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        engine: Engine,
        handed_in: HandedInSockets,
        uid: int | None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._handed_in = handed_in
        self._uid = uid
        self._listening: list[Listening] = []
        self.port = config.port
        self.addresses: dict[str, str] = {}

    def bind(self, server: PortmapServer) -> None:
        """Bind all of them, or none.

        :param server: serves them.
        :raises ConfigurationError: one cannot be bound; the message says what to do.
        """
        try:
            self._bind_addresses(server)
            self._bind_rpc_socket(server)
            self._bind_channel(server)
        except BaseException:
            self.close()
            raise

    def close(self) -> Deferred[Any]:
        """Close them; fires when they are closed. They can be bound again, all anew."""
        listening, self._listening = self._listening, []
        self.addresses = {}
        return gatherResults([maybeDeferred(each.port.stopListening) for each in listening])

    @property
    def hosts(self) -> list[str]:
        """The addresses that are served over UDP and TCP."""
        found = (each.host for each in self._listening)
        return [host.host for host in found if host and host.type == "UDP"]

    @property
    def channels(self) -> Iterator[tuple[Listening, ChannelFactory]]:
        """The sockets of the local channel, each with what makes its connections."""
        for each in self._listening:
            if isinstance(each.factory, ChannelFactory):
                yield each, each.factory

    def pass_on(self, descriptors: Descriptors, *, has_manager: bool) -> list[dict[str, Any]]:
        """What another process needs to go on with them, as a value of JSON.

        :param has_manager: whether a service manager hands its sockets to that process, too. They
            are not passed on then: the manager may have closed them meanwhile, to bind them anew.
        """
        return [
            each.pass_on(descriptors, is_whole=each.is_made or not has_manager)
            for each in self._listening
        ]

    def take_over(self, taken: TakenOver, holders: Mapping[int, Holder]) -> list[TakenStream]:
        """The streams that another process has had here; none is served yet.

        :param holders: the holders of the local channel, which are open, by their serials.
        :raises InvalidState: they cannot be read.
        """
        passed = {(each.kind, each.place): each for each in taken.sockets}
        return [
            stream
            for each in self._listening
            if (each.kind, each.place) in passed
            for stream in each.take_over(passed[each.kind, each.place], taken.received, holders)
        ]

    def take_files(self) -> None:
        """Have the files of UNIX sockets removed in the end, if the daemon has made them."""
        for each in self._listening:
            each.take_file()

    def _bind_addresses(self, server: PortmapServer) -> None:
        """Serve every address, all at one port: that of a socket that there is already, if any."""
        wanted = self._config.port or self._handed_in.port or 0

        def listen() -> None:
            self.port = wanted
            for host in self._config.addresses:
                self._bind_host(host, server)

        listen_at_one_port(wanted, listen, self.close)

    def _bind_host(self, host: str, server: PortmapServer) -> None:
        """Serve UDP and TCP at *host*, unless this host has no IPv6."""
        if not (_is_wildcard(host) or is_own_address(host)):
            self._log.warn("{host} is not an address of this host yet", host=host)
        if not self._bind_udp(host, server):
            self._log.info("{host} is not served: no IPv6 here", host=host)
            return
        self._bind_tcp(host, server)
        for netid in (UDP6, TCP6) if ":" in host else (UDP, TCP):
            self.addresses[netid.name] = format_address(netid.wildcard, self.port)

    def _bind_udp(self, host: str, server: PortmapServer) -> bool:
        """Serve UDP at *host*; False if it is one that a host without IPv6 does not have."""
        bound = self._handed_in.take_udp(host)
        try:
            udp = self._engine.listen_udp(self.port, server.datagramProtocol(host), host, bound)
        except CannotListenError as error:
            if host in _IPV6_DEFAULTS and error.socketError.errno in NO_IPV6:
                return False
            raise unusable(error, UDP.name) from error
        self._add("udp", str(ip_address(host)), udp, None, is_handed_in=bool(bound))
        self.port = _port_of(udp)
        return True

    def _bind_tcp(self, host: str, server: PortmapServer) -> None:
        factory, listening = server.streamFactory(), self._handed_in.take_tcp(host)
        try:
            tcp = self._engine.listen_tcp(self.port, factory, host, listening)
        except CannotListenError as error:
            raise unusable(error, TCP.name) from error
        self._add("tcp", str(ip_address(host)), tcp, factory, is_handed_in=listening is not None)

    def _bind_rpc_socket(self, server: PortmapServer) -> None:
        path = self._config.rpc_socket
        if path is None:
            return
        factory = server.streamFactory()
        with _explained(path, "--rpc-socket"):
            listening = self._handed_in.rpc.pop(path, None)
            if listening is None:
                check_directory(path, self._uid)
            self._bind_path("rpc", path, factory, listening)
        self._bind_abstractly(path, factory)
        self.addresses[LOCAL.name] = path

    def _bind_channel(self, server: PortmapServer) -> None:
        path = self._config.local_socket
        if path is None:
            return
        with _explained(path, "--local-socket"):
            listening = self._handed_in.channel.pop(path, None)
            if listening is None:
                make_directory(path)
                check_directory(path, self._uid)
            self._bind_path("channel", path, server.channelFactory(), listening)

    def _bind_abstractly(self, path: str, factory: PipelinedFactory[Any]) -> None:
        """Serve the abstract socket that is named after *path*.

        The kernel's NFS asks there, since it does not see the path from every mount namespace.
        Any user may have taken the name.
        """
        try:
            name = f"\0{path}"
            self._bind_path("rpc", name, factory, self._handed_in.rpc.pop(name, None))
        except (OSError, CannotListenError) as error:
            self._log.warn(
                "the abstract socket @{path} is not served: {error}", path=path, error=error
            )

    def _bind_path(
        self,
        kind: str,
        path: str,
        factory: PipelinedFactory[Any],
        listening: socket.socket | None,
    ) -> None:
        port = self._engine.listen_unix(path, factory, listening)
        # The streams of an abstract socket are those of the path.
        own = None if path.startswith("\0") else factory
        self._add(kind, path, port, own, is_handed_in=listening is not None)

    def _add(
        self,
        kind: str,
        place: str,
        port: IListeningPort,
        factory: PipelinedFactory[Any] | None,
        *,
        is_handed_in: bool,
    ) -> None:
        is_made = not is_handed_in or (kind, place) in self._handed_in.made
        self._listening.append(Listening(kind, place, port, factory, is_made))


def _port_of(listening: IListeningPort) -> int:
    host = listening.getHost()
    assert isinstance(host, IPv4Address | IPv6Address)
    return host.port


@contextmanager
def _explained(path: str, option: str) -> Iterator[None]:
    """In the block, say what to do if the UNIX socket *path* cannot be bound.

    :param option: the option that chooses the path.
    """
    try:
        yield
    except (OSError, CannotListenError) as error:
        raise unusable_socket(path, error, option) from error


def _is_wildcard(host: str) -> bool:
    return ip_address(host.partition("%")[0]).is_unspecified
