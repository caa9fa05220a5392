"""The port mapper as Twisted protocols and factories, for any reactor."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReactorUDP

from portmapd.config import FORGET, IDLE, LIVENESS, MAX_MAPPINGS, MAX_SERVICES, MAX_STREAMS
from portmapd.errors import ConfigurationError
from portmapd.portmapper.access import Policy
from portmapd.portmapper.advertisement import Advertisement
from portmapd.portmapper.context import Context
from portmapd.portmapper.dispatch import Dispatcher
from portmapd.portmapper.reply_cache import ReplyCache
from portmapd.portmapper.statistics import Statistics
from portmapd.portmapper.v2 import getport_replies
from portmapd.registry.registry import Registry
from portmapd.server.bound_sockets import is_bound
from portmapd.server.call_forwarder import CallForwarder
from portmapd.server.call_server import CallServer
from portmapd.server.channel import ChannelFactory
from portmapd.server.cluster import Cluster
from portmapd.server.datagram import PortmapDatagramProtocol
from portmapd.server.liveness import Liveness
from portmapd.server.peer_lookups import PeerLookups
from portmapd.server.peer_process import Processes
from portmapd.server.pipelining import PipelinedFactory
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.registration_log import RegistrationLog
from portmapd.server.session import keeps_nothing
from portmapd.server.stream import PortmapStreamFactory
from portmapd.server.turns import TurnQueue

#: The most descriptors for connections of the local channel, and for their processes.
MAX_DESCRIPTORS = 15_000

#: How long peers have to take the answers that they are sent when the server closes, in seconds.
CLOSING = 0.3

F = TypeVar("F", bound=PipelinedFactory[Any])


class PortmapServer:
    """A port mapper up to its sockets, which the application makes.

    ::

        server = PortmapServer(registry, policy, reactor)
        reactor.listenUDP(10111, server.datagramProtocol("127.0.0.1"), maxPacketSize=65535)
        TCP4ServerEndpoint(reactor, 10111).listen(server.streamFactory())
        UNIXServerEndpoint(reactor, path).listen(server.channelFactory())
        UNIXServerEndpoint(reactor, rpc_path).listen(server.streamFactory())

    Program 100000 itself is not registered; that is left to the application, too.

    :param registry: what is served.
    :param policy: who may do what.
    :param reactor: measures time, and makes the UDP sockets on which calls are forwarded; it must
        provide ``IReactorTime`` and ``IReactorUDP``.
    :param idle: seconds after which a stream that sends no whole call is closed.
    :param max_streams: the most streams of each stream factory.
    :param max_services: the most services that one process may hold on the local channel.
    :param max_mappings: the most RPC mappings that one process may hold there.
    :param liveness: seconds between two looks for dead services, or a
        :class:`~portmapd.server.liveness.Liveness` that the application runs; None: mappings stay
        when their services die.
    :param behind: gives the seconds for which the newest changes have not been written to the file
        of mappings that the application keeps, or None; clients of the local channel are told.
    :param advertisements: addresses that callers are told in place of those that they reached.
    :param forget: seconds for which the mapping of a service that is gone is remembered; see
        :class:`~portmapd.server.liveness.Liveness`.
    :param descriptors: where the ends of processes are watched; None: in the reactor.
    :param restart: has another process take the place of this one; None: the local channel cannot
        be asked for that.
    :param cluster: what the machines of a cluster share, for the local channel; None: there is
        no cluster.
    """

    def __init__(
        self,
        registry: Registry,
        policy: Policy,
        reactor: IReactorTime,
        *,
        idle: float = IDLE,
        max_streams: int = MAX_STREAMS,
        max_services: int = MAX_SERVICES,
        max_mappings: int = MAX_MAPPINGS,
        liveness: float | Liveness | None = LIVENESS,
        forget: float = FORGET,
        descriptors: IReactorFDSet | None = None,
        advertisements: Sequence[Advertisement] = (),
        behind: Callable[[], float | None] = keeps_nothing,
        restart: Callable[[], object] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._restart = restart
        self._cluster = cluster
        self._registry = registry
        self._reactor = reactor
        self._idle = idle
        self._max_streams = max_streams
        self._log = RateLimitedLog(reactor)
        self._turns = TurnQueue(reactor)
        self._forwarder = CallForwarder(IReactorUDP(reactor), reactor)
        self._registrations = RegistrationLog(registry, self._log)
        self._context = context = Context(
            registry, policy, is_bound, reactor.seconds, self._registrations.report
        )
        self._cache = ReplyCache(registry, getport_replies(registry, context.statistics))
        #: None if the application runs it, or there is none.
        self._liveness: Liveness | None = None
        if isinstance(liveness, int | float):
            self._liveness = liveness = Liveness(registry, reactor, liveness, forget)
            liveness.startService()
        self._call_server = CallServer(
            policy,
            Dispatcher(context),
            self._cache,
            self._forwarder,
            self._log,
            before_reply=None if liveness is None else liveness.look_at_new,
            advertisements=advertisements,
            traffics=context.statistics.traffics,
        )
        self._descriptors = IReactorFDSet(reactor, None) if descriptors is None else descriptors
        self._max_services = max_services
        self._max_mappings = max_mappings
        self._behind = behind
        self._processes: Processes | None = None
        self._protocols: list[PortmapDatagramProtocol] = []
        self._factories: list[PipelinedFactory[Any]] = []

    def datagramProtocol(self, address: str | None = None) -> PortmapDatagramProtocol:
        """Program 100000 over UDP, for one port.

        The port must be bound to one address: a plain UDP port does not tell which one a caller
        reached. ``listenUDP`` raises :exc:`~portmapd.errors.ConfigurationError` for others. A port
        for a loopback address may be bound to the wildcard address, too: it hears that address
        alone. Its ``maxPacketSize`` should be 65535.

        :param address: the address that callers reach; None: the one that the port is bound to.
        :raises ConfigurationError: *address* is no IPv4 or IPv6 address.
        """
        protocol = PortmapDatagramProtocol(self._call_server, address)
        self._protocols.append(protocol)
        return protocol

    def streamFactory(self) -> PortmapStreamFactory:
        """Program 100000 over streams, for TCP and UNIX endpoints."""
        return self._add(
            PortmapStreamFactory(
                self._call_server, self._reactor, self._turns, self._idle, self._max_streams
            )
        )

    def channelFactory(self) -> ChannelFactory:
        """The local channel, for UNIX endpoints; connections of any others are refused.

        :raises ConfigurationError: the reactor cannot tell when a process ends.
        """
        return self._add(
            ChannelFactory(
                self._registry,
                self._shared_processes(),
                PeerLookups(self._reactor),
                self._log,
                self._turns,
                _max_descriptors(),
                self._context.statistics.refusals,
                self._behind,
                self._restart,
                self._cluster,
            )
        )

    @property
    def descriptors(self) -> IReactorFDSet | None:
        """Where descriptors are watched; None: the reactor watches none."""
        return self._descriptors

    @property
    def statistics(self) -> Statistics:
        """What was asked."""
        return self._context.statistics

    @property
    def faults(self) -> Counter[str]:
        """How often peers were at fault, by the name of the event in the log."""
        return self._log.counts

    @property
    def connections(self) -> dict[str, int]:
        """How many streams of program 100000 are open, and connections of the local channel."""
        open_now = dict.fromkeys(("rpc", "channel"), 0)
        for factory in self._factories:
            kind = "channel" if isinstance(factory, ChannelFactory) else "rpc"
            open_now[kind] += len(factory.streams)
        return open_now

    def close(self) -> Deferred[None]:
        """Close every connection, and let go of the registry; the server cannot be used again.

        The application stops its listening ports itself, before or afterwards.

        :return: fires when the connections are closed.
        """
        if self._liveness is not None:
            self._liveness.stopService()
            self._liveness.close()
        self._log.close()
        self._registrations.close()
        self._cache.close()
        for protocol in self._protocols:
            protocol.close()
        ended = gatherResults([factory.close() for factory in self._factories])
        if not ended.called:
            late = self._reactor.callLater(CLOSING, self._end)
            ended.addCallback(lambda _: _cancel(late))
        return gatherResults([self._forwarder.stop(), ended]).addCallback(_nothing)

    def _end(self) -> None:
        """Close the connections at once whose peers have not taken their answers."""
        for factory in self._factories:
            factory.end()

    def give_turns(self) -> bool:
        """Serve streams that wait for their turns; were there any?"""
        return self._turns.run()

    def _add(self, factory: F) -> F:
        self._factories.append(factory)
        return factory

    def _shared_processes(self) -> Processes:
        """The processes of all channels, which share the limit of each process."""
        if self._descriptors is None:
            raise ConfigurationError(
                "the local channel needs a reactor that provides IReactorFDSet, to learn when "
                "processes end: use an epoll, poll, select or asyncio reactor"
            )
        if self._processes is None:
            self._processes = Processes(
                self._descriptors, self._reactor, self._max_services, self._max_mappings
            )
        return self._processes


def _nothing(results: object) -> None:
    """Each result is None."""


def _cancel(call: IDelayedCall) -> None:
    if call.active():
        call.cancel()


def _max_descriptors() -> int:
    """Three quarters of the descriptors that the process may have: the rest is for all else.

    At most :data:`MAX_DESCRIPTORS`: every connection takes memory, too.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        MAX_DESCRIPTORS if limit == resource.RLIM_INFINITY else min(limit * 3 // 4, MAX_DESCRIPTORS)
    )
