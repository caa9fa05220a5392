"""Connections to named services, and to UNIX sockets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError, NoProtocol
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.client.dial import QUEUE_WAIT
from portmapd.client.values import Service
from portmapd.errors import NotAccepted, NotListed

#: How long one attempt may take, in seconds: what serves is on this machine.
TIMEOUT = 10.0


class Single(Factory):
    """Gives one protocol its connection, and the log nothing.

    :param protocol: is connected at most once.
    """

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._made = protocol

    def buildProtocol(self, addr: Any) -> Protocol:
        return self._made


class _Entrance(Single):
    """Gives a connection that no application's protocol knows of yet.

    :param factory: the application's; it is started and stopped as for the connection itself.
    """

    def __init__(self, factory: IProtocolFactory) -> None:
        super().__init__(Protocol())
        self._factory = factory

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()


@implementer(IStreamClientEndpoint)
class QueueEndpoint:
    """A UNIX socket; while its queue is full, a place in it is waited for.

    :param path: where it is.
    """

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect to it.

        Fails with ``ConnectError`` if nobody listens there, or there is no place in time.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        end = self._reactor.seconds() + TIMEOUT
        while True:
            try:
                return await UNIXClientEndpoint(self._reactor, self._path, TIMEOUT).connect(factory)
            except ConnectError as error:
                if not _is_full(error):
                    raise
            if self._reactor.seconds() >= end:
                raise ConnectError(string="its queue of connections is full")
            await deferLater(self._reactor, QUEUE_WAIT)


def _is_full(error: ConnectError) -> bool:
    """Whether a UNIX socket's queue has no place.

    Twisted waits for the socket then, as it does with TCP, and is told at once that it is not
    connected: the one error that has a failure for its message.
    """
    return isinstance(error.args[0], Failure)


def sentence(error: Exception) -> str:
    """What *error* says, as a part of a sentence."""
    return str(error).rstrip(".")


def endpoints(reactor: Any, port: int | str) -> list[IStreamClientEndpoint]:
    """Where a service on *port*, a number or a path, may be reached."""
    if isinstance(port, str):
        return [QueueEndpoint(reactor, port)] if port.startswith("/") else []
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
    # Once for all attempts, for a factory may log whenever it starts and stops.
    factory.doStart()
    try:
        return await _connect_to_first(reactor, name, services, factory)
    finally:
        factory.doStop()


async def _connect_to_first(
    reactor: Any, name: str, services: Sequence[Service], factory: IProtocolFactory
) -> IProtocol:
    reason = "it has no address"
    for service in random.sample(services, len(services)):
        for endpoint in endpoints(reactor, service.port):
            try:
                transport = await _open(endpoint, factory)
            except (ConnectError, OSError) as error:
                reason = sentence(error)
            else:
                return _hand_over(transport, factory)
    raise NotAccepted(
        f"of the services {name}, {len(services)} in number, none accepts a connection; "
        f"the last one: {reason}"
    )


async def _open(endpoint: IStreamClientEndpoint, factory: IProtocolFactory) -> Any:
    """The transport of a new connection, which the application does not know of yet."""
    entrance: Any = await endpoint.connect(_Entrance(factory))
    transport = entrance.transport
    if transport.getHost() == transport.getPeer():
        # TCP connects a socket to itself where the kernel happens to choose the very port.
        transport.abortConnection()
        raise ConnectError(string="nothing listens there")
    return transport


def _hand_over(transport: Any, factory: IProtocolFactory) -> IProtocol:
    """Connect the application's protocol; what its code raises ends the connection."""
    try:
        protocol = factory.buildProtocol(transport.getPeer())
        if protocol is None:
            raise NoProtocol
        transport.protocol = protocol
        protocol.makeConnection(transport)
    except BaseException:
        transport.abortConnection()
        raise
    return protocol
