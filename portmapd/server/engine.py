"""How listening sockets are made: by the reactor, or by the fast engine on top of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from twisted.internet.interfaces import (
    IListeningPort,
    IReactorFDSet,
    IReactorSocket,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.internet.protocol import ServerFactory

from portmapd.errors import ConfigurationError
from portmapd.server.datagram import PortmapDatagramProtocol
from portmapd.server.fast.engine import FastEngine, is_fast_available
from portmapd.server.unix_port import UnixPort

#: The largest request over UDP, in bytes: any datagram.
MAX_REQUEST = 65_535
#: The most connections that the kernel keeps while the process is busy.
BACKLOG = 1_024
#: How many ports are tried, if any free one is to be served over UDP and TCP.
_TRIES = 8


class Engine(Protocol):
    """Makes listening sockets; each method raises ``CannotListenError`` if one cannot be bound."""

    @property
    def descriptors(self) -> IReactorFDSet | None:
        """Where other descriptors are watched; None: the reactor watches none."""

    def serve(self) -> bool:
        """Serve what has arrived, without the reactor; was there anything?"""

    def listen_udp(
        self,
        port: int,
        protocol: PortmapDatagramProtocol,
        host: str,
        bound: Sequence[socket.socket] = (),
    ) -> IListeningPort:
        """Serve UDP at that address.

        :param bound: sockets that are bound to it already, one or two; empty: they are made.
        """

    def listen_tcp(
        self,
        port: int,
        factory: ServerFactory,
        host: str,
        listening: socket.socket | None = None,
    ) -> IListeningPort:
        """Serve TCP at that address.

        :param listening: a socket that listens there already; None: it is made.
        """

    def listen_unix(
        self, path: str, factory: ServerFactory, listening: socket.socket | None = None
    ) -> IListeningPort:
        """Serve a UNIX socket that everyone may connect to. A stale one at *path* is replaced.

        :param path: its path; for an abstract socket, its name behind a null character.
        :param listening: a socket that listens there already, whose file is left to its owner;
            None: it is made.
        """


class PlainEngine:
    """Twisted's own sockets, on any reactor that has them.

    :param reactor: makes them.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.descriptors = IReactorFDSet(reactor, None)

    def serve(self) -> bool:
        return False

    def listen_udp(
        self,
        port: int,
        protocol: PortmapDatagramProtocol,
        host: str,
        bound: Sequence[socket.socket] = (),
    ) -> IListeningPort:
        if not bound:
            return IReactorUDP(self._reactor).listenUDP(port, protocol, host, MAX_REQUEST)
        # A plain UDP port serves an address that has one socket alone, or refuses to.
        with ExitStack() as closed:
            for skt in bound:
                closed.enter_context(skt)
            return IReactorSocket(self._reactor).adoptDatagramPort(
                bound[0].fileno(), bound[0].family, protocol, MAX_REQUEST
            )

    def listen_tcp(
        self,
        port: int,
        factory: ServerFactory,
        host: str,
        listening: socket.socket | None = None,
    ) -> IListeningPort:
        if listening is None:
            return IReactorTCP(self._reactor).listenTCP(port, factory, BACKLOG, host)
        with listening:
            return IReactorSocket(self._reactor).adoptStreamPort(
                listening.fileno(), listening.family, factory
            )

    def listen_unix(
        self, path: str, factory: ServerFactory, listening: socket.socket | None = None
    ) -> IListeningPort:
        made = UnixPort(path, factory, BACKLOG, self._reactor, listening)
        made.startListening()
        return made


def make_engine(reactor: IReactorTime) -> Engine:
    """The fast engine where the reactor and the system can run it, else the plain one."""
    return FastEngine(reactor) if is_fast_available(reactor) else PlainEngine(reactor)


def listen_at_one_port(
    port: int, listen: Callable[[], object], close: Callable[[], object]
) -> None:
    """Make sockets that all have one port, or none of them.

    A port that is free over UDP may be taken over TCP. If any will do, another one is tried then.

    :param port: 0: any will do.
    :param listen: makes them.
    :param close: closes those that were made.
    :raises ConfigurationError: *listen* raised it at last.
    """
    for others in reversed(range(1 if port else _TRIES)):
        try:
            listen()
            return
        except ConfigurationError:
            close()
            if not others:
                raise
