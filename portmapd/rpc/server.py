"""A server of RPC programs: its sockets, and its registration with the port mapper of its host."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import react

from portmapd.config import MAX_STREAMS, Config
from portmapd.errors import ConfigurationError, PortmapdError
from portmapd.oncrpc.netid import TCP, TCP6, UDP, UDP6, Netid, format_address
from portmapd.oncrpc.record import MAX_RECORD
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Mapping, mapping
from portmapd.rpc.call_server import MAX_WAITING, TIMEOUT, ProgramServer
from portmapd.rpc.program import Program
from portmapd.server.bind_errors import NO_IPV6, unusable
from portmapd.server.datagram import PortmapDatagramProtocol
from portmapd.server.engine import Engine, listen_at_one_port, make_engine
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.stream import PortmapStreamFactory
from portmapd.server.turns import TurnQueue
from portmapd.service import PortmapperService

#: Every address of this host.
INTERFACES = "0.0.0.0", "::"
#: Seconds after which a stream without a call is closed: clients keep theirs for hours.
IDLE = 3_600.0


class Server(MultiService):
    """Serves RPC programs over UDP and TCP, on one port, as a Twisted service.

    ``startService`` binds the sockets and serves; :meth:`register` makes clients find it, if
    *registers* does not. ``stopService`` undoes both.

    :param reactor: the application's reactor.
    :param programs: what is served.
    :param port: the port; 0: any free one.
    :param interfaces: the IPv4 and IPv6 addresses that are served.
    :param idle: seconds after which a stream that sends no whole call is closed.
    :param timeout: seconds after which a call whose results are waited for is cancelled, and its
        caller gets SYSTEM_ERR; None: never.
    :param max_streams: the most streams of each address.
    :param max_record: the longest call over TCP, in bytes.
    :param registers: whether it registers when it starts. What keeps it from that is logged.
    :ivar port: the port that is served, once it is bound.
    :ivar portmapper: the port mapper that it is registered with; None before :meth:`register`.
    :raises ValueError: there are no programs, or a version is there twice.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *programs: Program,
        port: int = 0,
        interfaces: Sequence[str] = INTERFACES,
        idle: float = IDLE,
        timeout: float | None = TIMEOUT,
        max_streams: int = MAX_STREAMS,
        max_record: int = MAX_RECORD,
        registers: bool = False,
    ) -> None:
        super().__init__()
        self._registers = registers
        self.programs = programs
        self.port = port
        self.portmapper: PortmapperService | None = None
        self._reactor = reactor
        self._wanted_port = port
        self._interfaces = tuple(interfaces)
        self._engine: Engine = make_engine(reactor)
        self._log = RateLimitedLog(reactor)
        self._call_server = ProgramServer(programs, reactor, self._log, timeout)
        self._factory = PortmapStreamFactory(
            self._call_server,
            reactor,
            TurnQueue(reactor),
            idle,
            max_streams,
            max_record,
            MAX_WAITING,
        )
        self._ports: list[IListeningPort] = []
        self._addresses: dict[Netid, str] = {}
        self._holder: Holder | None = None

    def privilegedStartService(self) -> None:
        """Bind every socket, or none.

        :raises ConfigurationError: one cannot be bound; the message says what to do.
        """
        if not self._ports:
            listen_at_one_port(self._wanted_port, self._listen, self._close_ports)
            if self._registers:
                self._carry(self._default_config())
        super().privilegedStartService()

    def startService(self) -> None:
        """Serve; see :meth:`privilegedStartService`."""
        self.privilegedStartService()
        super().startService()

    def mappings(self, holder: Holder | None = None) -> tuple[Mapping, ...]:
        """What is served, for a registry: each version on each netid.

        :param holder: what they live with; None: they live until they are unset.
        """
        return tuple(
            mapping(program.number, program.version, netid.name, address, holder=holder)
            for program in self.programs
            for netid, address in self._addresses.items()
        )

    def _listen(self) -> None:
        self.port = self._wanted_port
        for host in self._interfaces:
            self._listen_on(host)

    def _listen_on(self, host: str) -> None:
        """Serve UDP and TCP at *host*, unless that means every address of an IPv6 that is not."""
        udp, tcp = (UDP6, TCP6) if ":" in host else (UDP, TCP)
        try:
            protocol = PortmapDatagramProtocol(self._call_server, host)
            self._bound(udp, self._engine.listen_udp(self.port, protocol, host))
            self._bound(tcp, self._engine.listen_tcp(self.port, self._factory, host))
        except CannotListenError as error:
            if host == UDP6.wildcard and error.socketError.errno in NO_IPV6:
                return
            raise unusable(error, udp.protocol) from error

    def _bound(self, netid: Netid, listening: IListeningPort) -> None:
        """Keep a port that serves *netid*."""
        self._ports.append(listening)
        at = listening.getHost()
        assert isinstance(at, IPv4Address | IPv6Address)
        self.port = at.port
        # A version has one address on each netid: of several, it is any one.
        host = netid.wildcard if netid in self._addresses else at.host.partition("%")[0]
        self._addresses[netid] = format_address(host, at.port)

    def register(self, config: Config | None = None) -> Deferred[str]:
        """Register every program on every netid, for as long as the service runs.

        That is with the port mapper that there is: portmapd over its local channel; else any over
        the rpcbind socket, or over loopback. Where there is none, the server carries one itself.
        When the port mapper is restarted, everything is registered again.

        :param config: of the port mapper, if the server has to carry one; None: it serves program
            100000 at the same addresses, on port 111 if that may be bound, else on 10111.
        :return: fires with a few words on the port mapper. It fails with
            :exc:`~portmapd.errors.Refusal` if that has the programs of another server, and with
            :exc:`~portmapd.errors.DaemonUnreachable` if what has its port does not answer; both are
            tried again and again.
        :raises ConfigurationError: the port mapper that it has to carry cannot be served.
        """
        if self.portmapper is None:
            self._carry(config or self._default_config())
        assert self.portmapper is not None
        return self.portmapper.whenRegistered()

    def _default_config(self) -> Config:
        return Config(
            interfaces=self._interfaces, loopback=True, rpc_socket=None, local_socket=None
        )

    def _carry(self, config: Config) -> None:
        """Become or join the port mapper, and register with it."""
        self.portmapper = portmapper = PortmapperService(config, self._reactor, mode="auto")
        try:
            portmapper.privilegedStartService()
        except ConfigurationError:
            self.portmapper = None
            self._close_ports()
            raise
        self._holder = portmapper.registry.open(Holder(os.geteuid(), os.getpid()))
        portmapper.registry.map(*self.mappings(self._holder))
        portmapper.setServiceParent(self)

    def stopService(self) -> Deferred[Any]:
        """Unregister, close every socket and stream; the Deferred fires when that is done."""
        portmapper, self.portmapper = self.portmapper, None
        stopped: list[Deferred[Any]] = []
        if portmapper is not None and self._holder is not None:
            portmapper.registry.close(self._holder)
            self._holder = None
            stopped.append(maybeDeferred(portmapper.disownServiceParent))
        self._call_server.cancel()
        self._log.close()
        stopped += [maybeDeferred(super().stopService), self._close_ports(), self._factory.end()]
        return gatherResults(stopped)

    def _close_ports(self) -> Deferred[Any]:
        ports, self._ports = self._ports, []
        self._addresses = {}
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])


class Options(TypedDict, total=False):
    """The options of a :class:`Server`."""

    port: int
    interfaces: Sequence[str]
    idle: float
    timeout: float | None
    max_streams: int
    max_record: int
    registers: bool


def run(*programs: Program, **options: Unpack[Options]) -> None:
    """Serve *programs*, registered, until the process is ended by SIGINT or SIGTERM.

    What goes wrong before is a sentence on the terminal, and an exit status of 1.

    :param options: those of :class:`Server`.
    """
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, programs, options)))


async def _run(reactor: Any, programs: tuple[Program, ...], options: Options) -> None:
    server = Server(reactor, *programs, **options)
    try:
        server.startService()
        reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
        where = await server.register()
    except PortmapdError as error:
        raise SystemExit(f"{sys.argv[0]}: {error}") from error
    names = ", ".join(program.name for program in programs)
    print(f"{names}: serving port {server.port}, registered with {where}", flush=True)
    await Deferred()
