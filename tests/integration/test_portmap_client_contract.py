"""What holds for every client of a port mapper: for Twisted, asyncio and plain sockets."""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from portmapd.client import PortmapClient, aio, blocking
from portmapd.errors import (
    CallTimedOut,
    DaemonUnreachable,
    PeerFault,
    ProgramMismatch,
    SystemFailure,
    Unanswerable,
)
from portmapd.oncrpc.message import decode_call, sys_credential
from portmapd.oncrpc.program import CallResult, Pmap, Rpcb
from portmapd.registry.mapping import mapping
from tests.support.daemon import portmapd
from tests.support.embedded import asynchronous, needs_ipv6, serving
from tests.support.exchange import free_port
from tests.support.namespace import Namespace, eventually
from tests.support.peers import Send, echo, peering, silent

UDP, TCP = socket.IPPROTO_UDP, socket.IPPROTO_TCP

Operate = Callable[[Any], Any]
#: Makes a client of these options, does each operation, closes it, and gives their results.
Shell = Callable[..., Any]


async def ask_twisted(*operations: Operate, **options: Any) -> list[Any]:
    """Ask by the client for Twisted."""
    client = PortmapClient(reactor, **options)
    try:
        return [await operate(client) for operate in operations]
    finally:
        await client.close()


async def ask_blocking(*operations: Operate, **options: Any) -> list[Any]:
    """Ask by the client that blocks, in a thread: the server is in this one."""

    def ask() -> list[Any]:
        with blocking.PortmapClient(**options) as client:
            return [operate(client) for operate in operations]

    found: list[Any] = await deferToThread(ask)
    return found


async def ask_asyncio(*operations: Operate, **options: Any) -> list[Any]:
    """Ask by the client for asyncio, in a thread with an event loop."""

    async def ask() -> list[Any]:
        async with aio.PortmapClient(**options) as client:
            return [await operate(client) for operate in operations]

    found: list[Any] = await deferToThread(lambda: asyncio.run(ask()))
    return found


SHELLS: dict[str, Shell] = {
    "twisted": ask_twisted,
    "blocking": ask_blocking,
    "asyncio": ask_asyncio,
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Shell:
    """Give each kind of client."""
    return SHELLS[request.param]


each_netid = pytest.mark.parametrize(
    ("host", "transport"),
    [
        ("127.0.0.1", "udp"),
        ("127.0.0.1", "tcp"),
        pytest.param("::1", "udp", marks=needs_ipv6),
        pytest.param("::1", "tcp", marks=needs_ipv6),
        ("localhost", "udp"),
        ("localhost", "tcp"),
    ],
)


@each_netid
@asynchronous
async def test_every_method(shell: Shell, host: str, transport: str) -> None:
    """Each method does what it says, over each transport."""
    async with serving() as service:
        port = service.port
        found = await shell(
            lambda c: c.null(),
            lambda c: c.null(4),
            lambda c: c.set(200100, 1, UDP, 4000),
            lambda c: c.set(200100, 1, UDP, 70000),
            lambda c: c.getport(200100, 1, UDP),
            lambda c: c.getport(200100, 1, TCP),
            lambda c: c.set_address(200100, 2, "tcp6", "::.15.160"),
            lambda c: c.getaddr(100000, 4),
            lambda c: c.getaddr(200200, 1),
            lambda c: c.dump(),
            lambda c: c.dump_addresses(),
            lambda c: c.unset_address(200100, 2, "tcp6"),
            lambda c: c.unset(200100, 1),
            lambda c: c.getport(200100, 1, UDP),
            lambda c: c.getaddrlist(100000, 4),
            lambda c: c.getstat(),
            host=host,
            port=port,
            transport=transport,
        )
        assert found[:7] == [None, None, True, False, 4000, 0, True]
        assert found[7].endswith(f".{port >> 8}.{port & 255}")
        assert found[8] == ""
        assert Pmap(200100, 1, 17, 4000) in found[9]
        assert ("tcp6", "::.15.160") in [(row.netid, row.address) for row in found[10]]
        assert found[11:14] == [True, True, 0]
        assert found[7] in [entry.address for entry in found[14]]
        assert (found[15][2].sets, found[15][4].sets) == (1, 1)


@asynchronous
async def test_rpc_socket(shell: Shell, tmp_path: Path) -> None:
    """The rpcbind socket is a transport like the others."""
    path = str(tmp_path / "rpc.sock")
    async with serving(rpc_socket=path):
        found = await shell(
            lambda c: c.getaddr(100000, 4),
            lambda c: c.null(3),
            host=path,
            transport="local",
        )
        assert found == [path, None]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@asynchronous
async def test_callit(shell: Shell, transport: str) -> None:
    """A forwarded call brings the port of the service and its results."""
    async with serving() as service, peering("udp", echo) as peer:
        address = f"0.0.0.0.{peer.port >> 8}.{peer.port & 255}"
        service.registry.map(mapping(200100, 1, "udp", address))
        (found,) = await shell(
            lambda c: c.callit(200100, 1, 9, b"arguments..."),
            port=service.port,
            transport=transport,
        )
        assert found == CallResult(peer.port, b"arguments...")


@asynchronous
async def test_long_list(shell: Shell) -> None:
    """A long DUMP comes whole over TCP; over UDP it is refused."""
    async with serving() as service:
        service.registry.map(
            *(mapping(300000, version, "udp", "0.0.0.0.8.1") for version in range(5_000))
        )
        (rows,) = await shell(lambda c: c.dump_addresses(), port=service.port, transport="tcp")
        assert Rpcb(300000, 4_999, "udp", "0.0.0.0.8.1", "superuser") in rows
        with pytest.raises(SystemFailure):
            await shell(lambda c: c.dump(), port=service.port)


@asynchronous
async def test_refused(shell: Shell) -> None:
    """What the port mapper refuses is raised with its status."""
    async with serving() as service:
        with pytest.raises(ProgramMismatch, match="versions 2 to 4"):
            await shell(lambda c: c.null(9), port=service.port)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@asynchronous
async def test_unreachable(shell: Shell, transport: str) -> None:
    """Where nobody serves, it is told at once, with a sentence."""
    port, began = free_port(), time.monotonic()
    where = f"{transport.upper()} port {port} of 127.0.0.1 cannot be reached"
    with pytest.raises(DaemonUnreachable, match=where):
        await shell(lambda c: c.null(), port=port, transport=transport, timeout=30)
    assert time.monotonic() - began < 20


@asynchronous
async def test_no_socket(shell: Shell, tmp_path: Path) -> None:
    """A path without a socket is unreachable, too."""
    path = str(tmp_path / "none.sock")
    with pytest.raises(DaemonUnreachable, match=f"{path} cannot be reached"):
        await shell(lambda c: c.null(), host=path, transport="local")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@asynchronous
async def test_silence(shell: Shell, transport: str) -> None:
    """A server that says nothing is given up in time; over UDP it is asked again."""
    async with peering(transport, silent) as peer:
        with pytest.raises(CallTimedOut, match=r"did not answer within 0\.8 s"):
            await shell(lambda c: c.null(), port=peer.port, transport=transport, timeout=0.8)
        assert len(peer.calls) == (2 if transport == "udp" else 1)


@asynchronous
async def test_other_xid(shell: Shell) -> None:
    """Replies to other calls are not taken for this one's."""

    def answer(call: bytes, send: Send) -> None:
        send(bytes(4) + b"\0\0\0\1" + bytes(16))
        echo(call, send)

    for transport in ("udp", "tcp"):
        async with peering(transport, answer) as peer:
            assert await shell(lambda c: c.null(), port=peer.port, transport=transport) == [None]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@asynchronous
async def test_endless(shell: Shell, transport: str) -> None:
    """A server that sends replies to other calls without end is given up in time."""
    over: list[bool] = []

    def answer(call: bytes, send: Send) -> None:
        if not over:
            for _ in range(50):
                send(bytes(24))
            anything.callLater(0, answer, call, send)

    anything: Any = reactor
    async with peering(transport, answer) as peer:
        try:
            with pytest.raises(CallTimedOut, match=r"did not answer within 0\.6 s"):
                await shell(lambda c: c.null(), port=peer.port, transport=transport, timeout=0.6)
        finally:
            over.append(True)
            await deferLater(reactor, 0.05)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@asynchronous
async def test_malformed(shell: Shell, transport: str) -> None:
    """A reply that is none is its server's fault, and names what is wrong."""
    async with peering(transport, lambda call, send: send(call[:12])) as peer:
        with pytest.raises(Unanswerable, match="not a reply"):
            await shell(lambda c: c.null(), port=peer.port, transport=transport)


@asynchronous
async def test_too_long(shell: Shell) -> None:
    """A reply that announces more than is taken ends the call at once."""
    async with peering("tcp", lambda call, send: send(b"\xff\xff\xff\xff"), framed=False) as peer:
        with pytest.raises(PeerFault, match="a record of more than 16777216 bytes"):
            await shell(lambda c: c.null(), port=peer.port, transport="tcp")


@asynchronous
async def test_closed_after_each_reply(shell: Shell) -> None:
    """A server may close the connection after each reply."""
    async with peering("tcp", echo, closes=True) as peer:
        operations = [lambda c: c.null()] * 5
        assert await shell(*operations, port=peer.port, transport="tcp") == [None] * 5


@asynchronous
async def test_credential(shell: Shell) -> None:
    """Calls carry the credential that the client was given."""
    async with peering("udp", echo) as peer:
        credential = sys_credential(7, 8, machine="example")
        await shell(lambda c: c.null(), port=peer.port, credential=credential)
        assert decode_call(peer.calls[0]).credential == credential


#: Options that are refused when the client is made, and arguments when it is asked.
WRONG: list[tuple[dict[str, Any], Operate]] = [
    ({"host": "a b"}, lambda c: c.null()),
    ({"host": ""}, lambda c: c.null()),
    ({"port": 0}, lambda c: c.null()),
    ({"port": 65536}, lambda c: c.null()),
    ({"transport": "tpc"}, lambda c: c.null()),
    ({"timeout": 0}, lambda c: c.null()),
    ({}, lambda c: c.getport(1 << 32, 1, 17)),
    ({}, lambda c: c.getport(-1, 1, 17)),
    ({}, lambda c: c.set_address(1, 1, "tpc", "0.0.0.0.0.1")),
    ({}, lambda c: c.set_address(1, 1, "tcp", "nonsense")),
    ({}, lambda c: c.callit(1, 1, 1, bytes(70_000))),
    ({}, lambda c: c.broadcast(1, 1, 1, limit=0)),
    ({}, lambda c: c.broadcast(1, 1, 1, timeout=0)),
    ({}, lambda c: c.broadcast(1 << 32, 1, 1)),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
@asynchronous
async def test_wrong_arguments(shell: Shell, number: int) -> None:
    """What no call can carry is a ValueError, and nothing is sent."""
    options, operate = WRONG[number]
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        await shell(operate, **options)


@asynchronous
async def test_unknown_name(shell: Shell) -> None:
    """A name without an address is unreachable, in time."""
    for transport in ("udp", "tcp"):
        with pytest.raises((DaemonUnreachable, CallTimedOut), match=r"no\.such\.invalid"):
            await shell(lambda c: c.null(), host="no.such.invalid", transport=transport, timeout=5)


@asynchronous
async def test_used_again() -> None:
    """After ``close``, a later call opens a connection again."""
    async with serving() as service:

        def ask() -> None:
            client = blocking.PortmapClient(port=service.port, transport="tcp")
            for _ in range(2):
                client.null()
                client.close()

        await deferToThread(ask)


@asynchronous
async def test_threads() -> None:
    """Threads may share a client that blocks."""
    ports, found = count(1), []
    async with serving() as service:
        service.registry.map(
            *(mapping(200000 + n, 1, "udp", f"0.0.0.0.0.{n}") for n in range(1, 33))
        )
        client = blocking.PortmapClient(port=service.port, transport="tcp")

        def ask() -> None:
            for _ in range(4):
                port = next(ports)
                found.append(client.getport(200000 + port, 1, UDP) == port)

        def run() -> None:
            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            client.close()

        await deferToThread(run)
    assert found == [True] * 32


@asynchronous
async def test_asyncio_at_once() -> None:
    """Many operations of the client for asyncio may be under way at once, and be cancelled."""
    async with serving() as service, peering("tcp", silent) as peer:
        service.registry.map(
            *(mapping(200000 + n, 1, "udp", f"0.0.0.0.0.{n}") for n in range(1, 101))
        )

        async def ask() -> list[int]:
            async with aio.PortmapClient(port=peer.port, transport="tcp") as client:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await client.null()
            async with aio.PortmapClient(port=service.port) as client:
                wanted = (client.getport(200000 + n, 1, UDP) for n in range(1, 101))
                return list(await asyncio.gather(*wanted))

        assert await deferToThread(lambda: asyncio.run(ask())) == list(range(1, 101))


#: A program that is found by the broadcast, and the broadcast.
_PROGRAM = "from portmapd import rpc; rpc.run(rpc.Program('found', 200100, 1))"
_BROADCAST = """
import asyncio, sys
from portmapd.client import aio, blocking

words = dict(each=lambda reply: print(reply.host), timeout=1.0)
if sys.argv[1] == "blocking":
    replies = blocking.PortmapClient().broadcast(200100, 1, 0, **words)
else:
    replies = asyncio.run(aio.PortmapClient().broadcast(200100, 1, 0, **words))
print(len(replies), "twisted" in sys.modules)
"""


@pytest.mark.broadcast
@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_broadcast(namespace: Namespace, tmp_path: Path, kind: str) -> None:
    """A broadcast brings the replies of the networks of this host, without Twisted."""
    log = tmp_path / "program.log"
    with portmapd(namespace, tmp_path, "--interface", "0.0.0.0", "--callit", "null"):
        program = namespace.start(sys.executable, "-c", _PROGRAM, log=log)
        eventually(lambda: "registered" in log.read_text(), "the program is registered")
        said = namespace.run(sys.executable, "-c", _BROADCAST, kind)
        program.stop()
    assert said == "10.99.0.1\n1 False\n"
