"""The port mapper over HTTP, as a whole."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime
from twisted.python.failure import Failure

from portmapd.config import Config
from portmapd.errors import ConfigurationError
from portmapd.registry.registry import Registry
from portmapd.server.portmap_server import PortmapServer
from portmapd.web.portmap import PortmapPage
from portmapd.web.query import Answer, Query, Route, text
from portmapd.web.site import Site


class WebServer:
    """Serves the status page, listings and metrics.

    :param endpoint: where, as Twisted's ``serverFromString`` takes it.
    :param registry: what is shown.
    :param server: whose counters are shown.
    :param config: says who is answered, and which names this host has.
    :param reactor: the application's reactor.
    """

    def __init__(
        self,
        endpoint: str,
        registry: Registry,
        server: PortmapServer,
        config: Config,
        reactor: IReactorTime,
    ) -> None:
        self._endpoint = endpoint
        self._reactor = reactor
        routes = {
            "/health": Route(_health),
            "/portmap": Route(PortmapPage(registry).answer, ("GET", "HEAD", "POST")),
        }
        names = (socket.gethostname(), *config.http_names)
        self._site = Site(routes, names, config.policy, reactor)
        self._ports: list[IListeningPort] = []

    def listen(self) -> None:
        """Bind the endpoint.

        :raises ConfigurationError: it cannot be bound; the message says what to do.
        """
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

    @property
    def addresses(self) -> list[IAddress]:
        """Where it is served."""
        return [port.getHost() for port in self._ports]

    def close(self) -> Deferred[Any]:
        """Close the endpoint and every connection.

        :return: fires when they are closed.
        """
        ports, self._ports = self._ports, []
        ended = [maybeDeferred(port.stopListening) for port in ports]
        return gatherResults([*ended, self._site.close()])


def _health(query: Query) -> Answer:
    """The reactor serves: otherwise there were no answer."""
    return text("serving")
