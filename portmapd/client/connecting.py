"""Connections to named services."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint

from portmapd.client.values import Service
from portmapd.errors import NotAccepted, NotListed

#: How long one attempt may take, in seconds: the service is on this machine.
TIMEOUT = 10.0


def endpoints(reactor: Any, port: int | str) -> list[IStreamClientEndpoint]:
    """Where a service on *port*, a number or a path, may be reached."""
    if isinstance(port, str):
        return [UNIXClientEndpoint(reactor, port, TIMEOUT)] if port.startswith("/") else []
    return [
        TCP4ClientEndpoint(reactor, "127.0.0.1", port, TIMEOUT),
        TCP6ClientEndpoint(reactor, "::1", port, TIMEOUT),
    ]


async def connect_to_any(
    reactor: Any, name: str, services: Sequence[Service], factory: IProtocolFactory
) -> IProtocol:
    """Connect to one of *services*, which are tried in random order.

    :raises NotListed: there are none.
    :raises NotAccepted: none accepts; the message says why the last one did not.
    """
    if not services:
        raise NotListed(f"no service {name} is registered")
    reason: Exception | str = "it has no address"
    for service in random.sample(services, len(services)):
        for endpoint in endpoints(reactor, service.port):
            try:
                return await endpoint.connect(factory)
            except (ConnectError, OSError) as error:
                reason = error
    raise NotAccepted(
        f"of the services {name}, {len(services)} in number, none accepts a connection; "
        f"the last one: {reason}"
    )
