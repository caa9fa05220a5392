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
    rpc,
)
from portmapd.client.aio import PortmapClient as AsyncioPortmapClient
from portmapd.client.aio import Portmapper as AsyncioPortmapper
from portmapd.client.blocking import PortmapClient as BlockingPortmapClient
from portmapd.client.blocking import Portmapper as BlockingPortmapper
from portmapd.pytest_plugin import RunningPortMapper
from portmapd.rpc import STRING, UINT, Request


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
    blocking.list(1)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
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


def ask_and_wait() -> None:
    """Ask a port mapper, without an event loop."""
    with BlockingPortmapClient("192.0.2.1", transport="tcp") as client:
        assert_type(client.getport(100003, 3, 17), int)
        for row in client.dump_addresses():
            assert_type(row.address, str)
        client.getport("nfs", 3, 17)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        client.getaddr(100003)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    BlockingPortmapClient(transport="tpc")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def ask_later() -> None:
    """Ask a port mapper, in an event loop."""
    async with AsyncioPortmapClient() as client:
        assert_type(await client.getport(100003, 3, 17), int)
        assert_type(await client.set(200100, 1, 17, 4000), bool)
        client.getport(100003, 3, 17) + 1  # type: ignore[operator] # pyright: ignore[reportOperatorIssue, reportUnusedExpression]


def double(value: int, request: Request) -> int:
    """Serve a procedure."""
    assert_type(request.caller.host, str)
    return 2 * value


async def later(value: int, request: Request) -> int:
    """Serve a procedure later."""
    return value


def serve_programs(reactor: IReactorTime) -> None:
    """Serve RPC programs."""
    right = (
        rpc.Procedure("DOUBLE", 1, UINT, UINT, double),
        rpc.Procedure("LATER", 2, UINT, UINT, later),
        rpc.Procedure("JOIN", 3, rpc.array(STRING), STRING, lambda texts, _: "".join(texts)),
    )
    server = rpc.Server(reactor, rpc.Program("sample", 200100, 1, *right), port=2049)
    assert_type(server.register(), Deferred[str])
    rpc.Procedure("DOUBLE", 1, STRING, UINT, double)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    rpc.Procedure("DOUBLE", 1, UINT, STRING, double)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    rpc.Procedure("DOUBLE", "1", UINT, UINT, double)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    rpc.Program("sample", "200100", 1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    rpc.run(rpc.Program("sample", 200100, 1), port="2049")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    rpc.run(rpc.Program("sample", 200100, 1), prot=2049)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def test_own(portmapd: RunningPortMapper) -> None:
    """Use the fixture of pytest."""
    assert_type(portmapd.client().getport(100000, 2, 17), int)
    portmapd.start(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def serve(reactor: IReactorTime) -> None:
    """Serve a registry."""
    registry = Registry()
    registry.map(mapping(200100, 1, "udp", "127.0.0.1.39.127"))
    PortmapServer(registry, Policy(), reactor, max_streams=10)
    PortmapperService(Config(port=0), reactor, registry)
    service = PortmapperService(Config(), reactor, mode="auto")
    assert_type(service.whenRegistered(), Deferred[str])
    PortmapperService(Config(), reactor, mode="atuo")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    PortmapServer(registry, reactor)  # type: ignore[call-arg,arg-type] # pyright: ignore[reportCallIssue]
    portmapd.Nothing  # type: ignore[attr-defined] # noqa: B018 # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def elsewhere() -> None:
    """The services of another machine."""
    BlockingPortmapper(host="www.example.com")
    AsyncioPortmapper(host="www.example.com:8080")
    Portmapper(host="[2001:db8::1]:8080")
    BlockingPortmapper(host=8080)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    AsyncioPortmapper(host=8080)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Portmapper(host=8080)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
