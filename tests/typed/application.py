"""An application of portmapd, with mistakes.

Each mistake has comments that ignore the error. A checker reports a comment without an error, so
that every mistake must be found.
"""

import socket
from typing import assert_type

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

import portmapd
from portmapd import (
    Config,
    Flags,
    Policy,
    PortmapClient,
    Portmapper,
    PortmapperService,
    PortmapServer,
    Registry,
    Service,
    mapping,
)
from portmapd.client.aio import Portmapper as AsyncioPortmapper
from portmapd.client.blocking import Portmapper as BlockingPortmapper


def register(blocking: BlockingPortmapper, twisted: Portmapper) -> None:
    """Register names in every form."""
    blocking.reg("a.example.com", 80)
    blocking.reg("a.example.com", "/run/a.sock", Flags.EXCLUSIVE | Flags.PUBLIC)
    blocking.reg("a.example.com", socket.socket(), rpc=(200100, 1))
    blocking.reg("a.example.com", [80, 81], rpc=(200100, 1, "udp"))
    blocking.reg([("a.example.com", 80), ("b.example.com", "/run/b.sock", Flags.PUBLIC)])
    assert_type(twisted.reg("a.example.com", 80), Deferred[None])
    blocking.reg(80, "a")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    blocking.reg("a", 1.5)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    twisted.reg("a", 80, "exclusive")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    twisted.reg("a", 80, rpc=200100)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]


def look_up(blocking: BlockingPortmapper) -> None:
    """Look names up, and watch them."""
    for service in blocking.list("a.example.com", user="root", pid=[1, 2]):
        assert_type(service, Service)
        assert_type(service.port, int | str)
    blocking.list(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(blocking.connect("a.example.com", 0), socket.socket)
    for change in blocking.watch("a.example.com"):
        print(change.kind == "registered")
        print(change.kind == "regsitered")  # type: ignore[comparison-overlap] # pyright: ignore[reportUnnecessaryComparison]


async def look_up_later(portmapper: AsyncioPortmapper) -> None:
    """Look names up in an event loop."""
    for service in await portmapper.list():
        assert_type(service, Service)
    assert_type(await portmapper.pid2exe(1), str)
    await portmapper.pid2exe("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def ask(reactor: IReactorTime) -> None:
    """Ask a port mapper."""
    assert_type(PortmapClient(reactor).getport(100003, 3, 17), Deferred[int])
    PortmapClient(reactor, transport="tpc")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    PortmapClient(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def serve(reactor: IReactorTime) -> None:
    """Serve a registry."""
    registry = Registry()
    registry.map(mapping(200100, 1, "udp", "127.0.0.1.39.127"))
    PortmapServer(registry, Policy(), reactor, max_streams=10)
    PortmapperService(Config(port=0), reactor, registry)
    PortmapServer(registry, reactor)  # type: ignore[call-arg,arg-type] # pyright: ignore[reportCallIssue]
    portmapd.Nothing  # type: ignore[attr-defined] # noqa: B018 # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
