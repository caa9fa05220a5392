"""The port mapper over HTTP, as a whole."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from portmapd import __version__
from portmapd.config import Config
from portmapd.errors import ConfigurationError
from portmapd.registry.registry import Registry
from portmapd.rpc_names import read_programs
from portmapd.server.cluster import Cluster
from portmapd.server.persistence import Persistence
from portmapd.server.portmap_server import PortmapServer
from portmapd.web.counters import Counters
from portmapd.web.events import RETRY, Events, event
from portmapd.web.files import file_handlers
from portmapd.web.history import History, Sample
from portmapd.web.inventory import Inventory
from portmapd.web.latency import Probe
from portmapd.web.portmap import PortmapPage
from portmapd.web.query import Answer, Handler, Query, RequestRefused, Route, text_answer
from portmapd.web.site import Site

#: How often the endpoint is tried while another process may have it, and after how many seconds.
TRIES, RETRY_BIND = 100, 0.1


class WebServer:
    """Serves the status page, listings and metrics.

    :param endpoint: where, as Twisted's ``serverFromString`` takes it.
    :param registry: what is shown.
    :param server: whose counters are shown.
    :param config: says who is answered, and which names this host has.
    :param reactor: the application's reactor.
    :param persistence: the state file; None: there is none.
    :param cluster: what machines share; None: there is no cluster.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: str,
        registry: Registry,
        server: PortmapServer,
        config: Config,
        reactor: IReactorTime,
        persistence: Persistence | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._server = server
        self._reactor = reactor
        self._probe = Probe(registry, config.policy, reactor, server.descriptors, perf_counter)
        counters = Counters(
            registry,
            server.statistics,
            server.faults,
            self._probe.histogram,
            persistence,
            cluster,
        )
        self._cluster = cluster
        self._history = History(
            counters, self._probe.recent, self._connections, reactor, self._sampled
        )
        self._events = Events(self._snapshot, reactor)
        self._inventory = Inventory(
            registry, reactor.seconds, read_programs().names, self._events.changed
        )
        routes = {
            **{path: Route(handle) for path, handle in file_handlers().items()},
            "/events": Route(self._events.answer, ("GET",)),
            "/health": Route(_health),
            "/portmap": Route(PortmapPage(registry).answer, ("GET", "HEAD", "POST")),
            "/metrics": Route(_metrics(counters, self._connections)),
        }
        names = (socket.gethostname(), *config.http_names)
        self._site = Site(routes, names, config.policy, reactor)
        self._ports: list[IListeningPort] = []
        self._retry: IDelayedCall | None = None

    def listen(self, *, patiently: bool = False) -> None:
        """Bind the endpoint.

        :param patiently: whether it is tried again for a while: another process is about to let go
            of it.
        :raises ConfigurationError: it cannot be bound; the message says what to do.
        """
        self._probe.start()
        self._history.start()
        if patiently:
            self._bind_patiently(TRIES)
        else:
            self._bind()

    def _bind_patiently(self, tries: int) -> None:
        """Bind the endpoint, now or later; in the end, what is served besides is worth more."""
        try:
            self._bind()
        except ConfigurationError as error:
            if tries > 1:
                self._retry = self._reactor.callLater(RETRY_BIND, self._bind_patiently, tries - 1)
            else:
                self._log.error("{error}", error=error)

    def _bind(self) -> None:
        failures: list[Failure] = []
        try:
            listening = serverFromString(self._reactor, self._endpoint).listen(self._site)
            listening.addCallbacks(self._ports.append, failures.append)
            if failures:
                failures[0].raiseException()
        except Exception as error:
            why = getattr(error, "socketError", error)
            raise ConfigurationError(
                f"the endpoint {self._endpoint!r} cannot be served: "
                f"{getattr(why, 'strerror', None) or why}; choose another one with --http"
            ) from None

    def _connections(self) -> dict[str, int]:
        """How many connections there are, by their kind."""
        http = {"http": len(self._site.connections), "events": len(self._events)}
        return {**self._server.connections, **http}

    def _snapshot(self, is_local: bool) -> Iterator[bytes]:
        """Everything that a new listener is told, as events."""
        yield f"retry: {RETRY}\n".encode() + event(
            "begin", {"host": socket.gethostname(), "version": __version__}
        )
        yield event("history", list(self._history.samples))
        for rows in self._inventory.pages(is_local):
            yield event("rows", rows)
        yield from self._cluster_event()
        yield event("ready", None)

    def _cluster_event(self) -> Iterator[bytes]:
        """How this machine stands in its cluster, if it belongs to one."""
        if self._cluster is not None:
            status, copy = self._cluster.status(), self._cluster.copy
            counts = {"hosts": len(copy.hosts), "services": copy.counts.total()}
            age = None if status.age is None else round(status.age)
            yield event(
                "cluster", {"host": status.host, "state": status.state, "age": age, **counts}
            )

    def _sampled(self, sample: Sample) -> None:
        self._events.tell(b"".join([event("sample", sample), *self._cluster_event()]))

    @property
    def addresses(self) -> list[IAddress]:
        """Where it is served."""
        return [port.getHost() for port in self._ports]

    def close(self) -> Deferred[Any]:
        """Close the endpoint and every connection.

        :return: fires when they are closed.
        """
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._probe.stop()
        self._history.stop()
        self._inventory.close()
        self._events.close()
        ports, self._ports = self._ports, []
        ended = [maybeDeferred(port.stopListening) for port in ports]
        return gatherResults([*ended, self._site.close()])


def _metrics(counters: Counters, connections: Callable[[], Mapping[str, int]]) -> Handler:
    """What answers for ``/metrics``: prometheus_client, where it is installed."""
    try:
        from portmapd.web.metrics import MetricsPage
    except ImportError:
        return _no_metrics
    return MetricsPage(counters, connections).answer


def _no_metrics(query: Query) -> Answer:
    raise RequestRefused(501, "metrics need prometheus_client: pip install 'portmapd[metrics]'")


def _health(query: Query) -> Answer:
    """The reactor serves: otherwise there were no answer."""
    return text_answer("serving")
