"""The listening sockets of a service, and how another process gets them with their streams."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

from attrs import asdict, frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort, IProtocol

from portmapd.registry.holder import Holder
from portmapd.server.channel import ChannelFactory, ResumedChannel
from portmapd.server.handover.passed import Descriptors, PassedSocket, PassedStream, Received
from portmapd.server.pipelining import PipelinedFactory, PipelinedProtocol
from portmapd.server.stream import PortmapStreamFactory


class PassablePort(Protocol):
    """A port of the fast engine, which another process can take over."""

    @property
    def descriptors(self) -> list[int]:
        """Its sockets, the one first that was bound first."""

    def adopt(self, skt: socket.socket, protocol: IProtocol | None = None) -> IProtocol | None:
        """Serve a connection that another process has accepted, once the reactor runs."""

    def take_file(self) -> None:
        """Remove its file in the end."""


@frozen
class Listening:
    """A listening socket, or the UDP sockets of one address.

    :param kind: ``udp``, ``tcp``, ``rpc`` or ``channel``.
    :param place: the address or the path that it is bound to.
    :param port: it as a port of Twisted.
    :param factory: makes its streams; None: it has none, or those of another socket.
    :param is_made: whether it is the daemon's own, rather than a service manager's.
    """

    kind: str
    place: str
    port: IListeningPort
    factory: PipelinedFactory[Any] | None
    is_made: bool

    @property
    def host(self) -> IPv4Address | IPv6Address | None:
        """The address and the port; None if it is not an internet socket."""
        host = self.port.getHost()
        return host if isinstance(host, IPv4Address | IPv6Address) else None

    @property
    def _passable(self) -> PassablePort:
        return cast("PassablePort", self.port)

    def pass_on(self, descriptors: Descriptors, *, is_whole: bool) -> dict[str, Any]:
        """What another process needs to go on with it, as a value of JSON.

        :param is_whole: whether it gets the socket itself, and not its connections alone.
        """
        host = self.host
        own = self._passable.descriptors if is_whole else ()
        places = [descriptors.add(number) for number in own]
        return asdict(
            PassedSocket(
                self.kind,
                self.place,
                None if host is None else host.port,
                places,
                self.is_made,
                self._streams(descriptors),
            )
        )

    def pass_on_streams(self, streams: Any) -> dict[str, Any]:
        """Some of its connections, without the socket itself, as a value of JSON."""
        return asdict(PassedSocket(self.kind, self.place, None, (), self.is_made, streams))

    def _streams(self, descriptors: Descriptors) -> Any:
        if isinstance(self.factory, ChannelFactory):
            return self.factory.pass_on(descriptors)
        if isinstance(self.factory, PortmapStreamFactory):
            return [stream.encode() for stream in self.factory.pass_on(descriptors)]
        return None

    def take_file(self) -> None:
        """Have the file of a UNIX socket removed in the end, if the daemon has made it."""
        if self.is_made and self.host is None:
            self._passable.take_file()

    def take_over(
        self, passed: PassedSocket, received: Received, holders: Mapping[int, Holder]
    ) -> list[TakenStream]:
        """The streams that another process has had here; none is served yet.

        :param holders: the holders of the local channel, which are open, by their serials.
        :raises InvalidState: they cannot be read.
        """
        if isinstance(self.factory, ChannelFactory):
            taken = self.factory.take_over(passed.streams, received, holders)
            return [
                TakenStream(self._passable, skt, channel.stream, channel) for skt, channel in taken
            ]
        if isinstance(self.factory, PortmapStreamFactory):
            rows = [PassedStream.decode(row) for row in passed.streams]
            return [
                TakenStream(self._passable, received.socket(row.descriptor), row) for row in rows
            ]
        return []


@frozen
class TakenStream:
    """A stream of another process.

    :param port: where it is served.
    :param skt: its socket.
    :param passed: what it was there.
    :param protocol: serves it; None: one that is made of *passed*.
    """

    port: PassablePort
    skt: socket.socket
    passed: PassedStream
    protocol: PipelinedProtocol[Any] | None = None

    @property
    def serial(self) -> int | None:
        """The serial of its holder; None: it has none."""
        return self.protocol.serial if isinstance(self.protocol, ResumedChannel) else None

    def resume(self) -> Iterator[PipelinedProtocol[Any]]:
        """Make it anew; nothing is read or sent before the reactor runs.

        :return: what serves it; nothing if its peer is gone, or nobody serves it.
        """
        with suppress(OSError):
            protocol: object = self.port.adopt(self.skt, cast("IProtocol | None", self.protocol))
            if isinstance(protocol, PipelinedProtocol):
                protocol.take_over(self.passed)
                yield protocol
