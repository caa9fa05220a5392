"""Servers of portmapd.rpc on real sockets, and their registration with this host's port mapper."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent

from portmapd.config import Config
from portmapd.errors import AlreadyRegistered, ConfigurationError, DaemonUnreachable, SystemFailure
from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.xdr import uint
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.rpc import OPAQUE, UINT, VOID, Procedure, Program, Request, Server
from portmapd.service import PortmapperService
from tests.support.embedded import asking, asynchronous, configured, serving
from tests.support.exchange import connect, exchange, free_port, has_ipv6, question

PROGRAM, VERSION = 0x2000_0001, 1
KINDS = socket.SOCK_DGRAM, socket.SOCK_STREAM
LOOPBACK = ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",)
NETIDS = {(netid + "6" * (":" in host)) for netid in ("udp", "tcp") for host in LOOPBACK}


async def later(value: int, request: Request) -> int:
    """Give the argument back, later."""
    return await deferLater(IReactorTime(reactor), 0.01, lambda: value)


SAMPLE = Program(
    "sample",
    PROGRAM,
    VERSION,
    Procedure("DOUBLE", 1, UINT, UINT, lambda value, request: 2 * value),
    Procedure("LATER", 2, UINT, UINT, later),
    Procedure("FILL", 3, UINT, OPAQUE, lambda size, request: bytes(size)),
    Procedure("FAIL", 4, VOID, VOID, lambda arguments, request: {}[arguments]),
    Procedure("NEVER", 5, VOID, VOID, lambda arguments, request: Deferred()),
)


@asynccontextmanager
async def running(*programs: Program, **options: object) -> AsyncIterator[Server]:
    """Give a server on loopback for the block."""
    fields = {"interfaces": LOOPBACK} | options
    server = Server(reactor, *(programs or (SAMPLE,)), **fields)  # type: ignore[arg-type] # of any option
    server.startService()
    try:
        yield server
    finally:
        await server.stopService()


def asked(
    kind: socket.SocketKind, host: str, port: int, procedure: int, arguments: bytes = b""
) -> bytes:
    """The results of one call."""
    with connect(kind, host, port) as skt:
        message = question(VERSION, procedure, arguments, PROGRAM)
        return decode_reply(exchange(skt, message))


@asynchronous
async def test_served() -> None:
    """A program is served on one port over UDP and TCP, over IPv4 and IPv6."""
    async with running() as server:
        for kind, host in product(KINDS, LOOPBACK):
            for procedure, results in ((1, 42), (2, 21)):
                call = deferToThread(asked, kind, host, server.port, procedure, uint(21))
                assert await call == uint(results)
        assert {each.netid for each in server.mappings()} == NETIDS


@asynchronous
async def test_wildcards() -> None:
    """So it is on all addresses, which replies leave from."""
    async with running(interfaces=("0.0.0.0", "::")) as server:
        for kind, host in product(KINDS, (*LOOPBACK, "127.0.0.9")):
            assert await deferToThread(asked, kind, host, server.port, 1, uint(1)) == uint(2)


@asynchronous
async def test_large_reply() -> None:
    """A reply that no datagram carries is an error over UDP; over TCP it is whole."""
    async with running() as server:
        size = uint(65_536)
        with pytest.raises(SystemFailure):
            await deferToThread(asked, socket.SOCK_DGRAM, "127.0.0.1", server.port, 3, size)
        call = deferToThread(asked, socket.SOCK_STREAM, "127.0.0.1", server.port, 3, size)
        assert len(await call) == 65_540


@asynchronous
async def test_failure(logged_errors: list[LogEvent]) -> None:
    """A procedure that raises is SYSTEM_ERR, and one traceback in the log."""
    async with running() as server:
        with pytest.raises(SystemFailure):
            await deferToThread(asked, socket.SOCK_STREAM, "127.0.0.1", server.port, 4)
        (event,) = logged_errors
        assert event["procedure"] == "FAIL"
        assert event["log_failure"].check(KeyError)
        logged_errors.clear()


@asynchronous
async def test_stop() -> None:
    """A server that stops leaves nothing: no call, no stream, no socket. It can start again."""
    async with running() as server:
        port = server.port
        with connect(socket.SOCK_STREAM, "127.0.0.1", port) as skt:
            skt.sendall(b"\x80\0\0\x28" + question(VERSION, 5, b"", PROGRAM))
            await deferToThread(asked, socket.SOCK_STREAM, "127.0.0.1", port, 0)
            await server.stopService()
            with pytest.raises(ConnectionResetError):
                await deferToThread(skt.recv, 1)
        with pytest.raises(ConnectionRefusedError):
            connect(socket.SOCK_STREAM, "127.0.0.1", port)
        server.startService()
        assert await deferToThread(
            asked, socket.SOCK_STREAM, "127.0.0.1", server.port, 1, uint(1)
        ) == uint(2)


@asynchronous
async def test_taken_port() -> None:
    """A port that is taken is an error with a sentence, and nothing stays bound."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(reactor, SAMPLE, port=port, interfaces=LOOPBACK)
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is taken by"):
            server.startService()
        assert server.mappings() == ()
        await server.stopService()


def made_holder() -> Holder:
    """A holder of this process."""
    return Holder(os.geteuid(), os.getpid())


async def found(port: int) -> set[str]:
    """The netids on which the sample is registered with a port mapper."""
    async with asking(port, transport="tcp") as client:
        rows = await client.dump_addresses()
        return {row.netid for row in rows if row.program == PROGRAM}


async def eventually_found(port: int, netids: set[str]) -> None:
    """Wait until the sample is registered on these netids."""
    for _ in range(400):
        try:
            if await found(port) == netids:
                return
        except DaemonUnreachable:
            pass
        await deferLater(IReactorTime(reactor), 0.05)
    raise AssertionError(f"not registered on {netids}")


@asynchronous
async def test_register_alone() -> None:
    """Where there is no port mapper, a server carries one itself, for as long as it runs."""
    config = Config(port=free_port(), rpc_socket=None, local_socket=None)
    async with running() as server:
        assert await server.register(config) == f"a port mapper of its own at port {config.port}"
        assert await found(config.port) == NETIDS
        assert await server.register() == f"a port mapper of its own at port {config.port}"
    with pytest.raises(DaemonUnreachable):
        await found(config.port)


@asynchronous
async def test_register_with_another() -> None:
    """Where there is one, it is used, and used again when it was restarted."""
    port = free_port()
    config = configured(port=port)
    async with serving(port=port) as mapper, running() as server:
        where = await server.register(config)
        assert where.startswith(f"the port mapper at port {port} of ")
        assert await found(port) == NETIDS
        await mapper.stopService()
        # What crashed and came back has forgotten everything.
        mapper.registry.unmap(*(m for m in mapper.registry.mappings if m.program == PROGRAM))
        mapper.startService()
        await eventually_found(port, NETIDS)
        await server.stopService()
        await eventually_found(port, set())
        await mapper.stopService()


@asynchronous
async def test_register_twice() -> None:
    """What another server has registered is left to it, and told of, until it is gone."""
    port = free_port()
    async with serving(port=port) as mapper, running() as server:
        holder = mapper.registry.open(made_holder())
        address = f"127.0.0.1.{server.port >> 8}.{server.port & 255 ^ 1}"
        mapper.registry.map(mapping(PROGRAM, VERSION, "tcp", address, holder=holder))
        with pytest.raises(AlreadyRegistered, match=f"program {PROGRAM} version 1 on tcp"):
            await server.register(configured(port=port))
        mapper.registry.close(holder)
        await eventually_found(port, NETIDS)
        await server.stopService()
        await mapper.stopService()


@asynchronous
async def test_replaced() -> None:
    """What a server that has crashed left behind is replaced; what is served is not."""
    port = free_port()
    options = {"port": port, "liveness": None}
    async with serving(**options) as mapper, running() as first, running() as second:
        dead = mapping(PROGRAM, VERSION, "tcp", "127.0.0.1.0.1", "unknown")
        mapper.registry.map(dead)
        await first.register(configured(port=port))
        assert await found(port) == NETIDS
        with pytest.raises(AlreadyRegistered, match="where somebody serves it"):
            await second.register(configured(port=port))
        assert {m.address for m in first.mappings()} == {
            m.address for m in mapper.registry.mappings if m.program == PROGRAM
        }


@asynchronous
async def test_not_a_port_mapper() -> None:
    """What has the port and is no port mapper is waited for; the error says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
            skt.bind(("127.0.0.1", port))
            async with running() as server:
                with pytest.raises(DaemonUnreachable, match=f"no port mapper .* port {port}"):
                    await server.register(configured(port=port))


@asynchronous
async def test_joined_service() -> None:
    """In mode auto, the service of an application joins the port mapper that has its port."""
    port = free_port()
    async with serving(port=port) as mapper:
        joined = PortmapperService(configured(port=port), reactor, mode="auto")
        joined.registry.map(mapping(PROGRAM, VERSION, "tcp", "127.0.0.1.3.232"))
        joined.startService()
        assert joined.port == port
        await joined.whenRegistered()
        assert await found(port) == {"tcp"}
        holder = joined.registry.open(made_holder())
        joined.registry.map(mapping(PROGRAM, VERSION, "udp", "127.0.0.1.3.232", holder=holder))
        await joined.whenRegistered()
        assert await found(port) == {"tcp", "udp"}
        joined.registry.close(holder)
        await joined.whenRegistered()
        assert await found(port) == {"tcp"}
        await joined.stopService()
        assert await found(port) == set()
        await mapper.stopService()
        joined.startService()
        assert (await joined.whenRegistered()).startswith("a port mapper of its own")
        assert await found(port) == {"tcp"}
        await joined.stopService()


def test_mode() -> None:
    """Another mode is refused."""
    with pytest.raises(ConfigurationError, match="mode 'maybe' is neither serve nor auto"):
        PortmapperService(configured(), reactor, mode="maybe")  # type: ignore[arg-type] # that is it
