"""The fast engine: sockets that serve more requests than Twisted's own."""

from __future__ import annotations

import ctypes
import select
import socket
from collections.abc import Sequence
from typing import cast

from twisted.internet.interfaces import (
    IListeningPort,
    IReactorFDSet,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory

from portmapd.server.datagram import PortmapDatagramProtocol
from portmapd.server.fast.epoll_group import EpollGroup, IGroupReactor
from portmapd.server.fast.transports import FastUnixPort, TcpPort
from portmapd.server.fast.udp import DividedPort, listen


def is_fast_available(reactor: object) -> bool:
    """Can the reactor and the system run the engine? It takes Linux's epoll and recvmmsg."""
    system = hasattr(select, "epoll") and hasattr(ctypes.CDLL(None), "recvmmsg")
    return system and IReactorFDSet.providedBy(reactor)


class FastEngine:
    """Sockets of the engine, on a reactor that watches descriptors.

    UDP sockets are the reactor's own. The sockets of streams share an
    :class:`~portmapd.server.fast.epoll_group.EpollGroup`.

    :param reactor: provides ``IReactorFDSet``.
    :ivar descriptors: the group.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = cast("IGroupReactor", reactor)
        self.descriptors = EpollGroup(self._reactor)
        self._datagrams: list[DividedPort] = []

    def serve(self) -> bool:
        served = [port.serve() for port in self._datagrams]
        return self.descriptors.serve_all() or any(served)

    def listen_udp(
        self,
        port: int,
        protocol: PortmapDatagramProtocol,
        host: str,
        bound: Sequence[socket.socket] = (),
    ) -> IListeningPort:
        made = listen(port, protocol, host, self._reactor, bound)
        # Those of an earlier start are closed.
        self._datagrams = [*(each for each in self._datagrams if each.is_open), made]
        return made

    def listen_tcp(
        self,
        port: int,
        factory: ServerFactory,
        host: str,
        listening: socket.socket | None = None,
    ) -> IListeningPort:
        made = TcpPort(port, factory, host, self.descriptors, listening)
        made.startListening()
        return made

    def listen_unix(
        self, path: str, factory: ServerFactory, listening: socket.socket | None = None
    ) -> IListeningPort:
        made = FastUnixPort(path, factory, self.descriptors, listening)
        made.startListening()
        return made
