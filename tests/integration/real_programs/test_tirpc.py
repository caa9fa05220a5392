"""Every port mapper entry point of libtirpc, by ``tirpc.c``."""

import sys
from pathlib import Path

import pytest

from tests.integration.real_programs.table import ALL_NETIDS, Row, Table, every
from tests.support.namespace import Namespace, Started, eventually

pytestmark = pytest.mark.programs("rpcinfo")

PROGRAM, VERSION = 200_100, 1
SERVICE = (str(PROGRAM), str(VERSION))

#: Procedure 1 gives the number it gets and one more.
INCREMENT = ("1", "41")

UDP, TCP = "17", "6"

_NETTYPES = [
    ("visible", ALL_NETIDS),
    ("netpath", ALL_NETIDS),
    ("datagram_v", "udp udp6"),
    ("datagram_n", "udp udp6"),
    ("udp", "udp udp6"),
    ("circuit_v", "tcp tcp6"),
    ("circuit_n", "tcp tcp6"),
    ("tcp", "tcp tcp6"),
]
_SERVERS = [
    *(("server", nettype, netids) for nettype, netids in _NETTYPES),
    *(("server1", netid, netid) for netid in ALL_NETIDS.split()),
    ("oldserver", "udp", "udp"),
    ("oldserver", "tcp", "tcp"),
    ("oldserver", "both", "udp tcp"),
]


class Tirpc:
    """The compiled program, beside a port mapper."""

    def __init__(self, portmapper: Namespace, program: str, folder: Path) -> None:
        self._portmapper = portmapper
        self._program = program
        self._log = folder / "server.log"

    def __call__(self, *args: str, status: int = 0) -> str:
        """Run a mode to its end and give what it printed."""
        return self._portmapper.run(self._program, *args, status=status).removesuffix("\n")

    def table(self) -> Table:
        """Give the port mapper's table."""
        return Table.parse(self._portmapper.run("rpcinfo"))

    def serve(self, mode: str, which: str, netids: str = ALL_NETIDS) -> Started:
        """Start a server mode and wait until it is registered for *netids*."""
        started = self._portmapper.start(self._program, mode, *SERVICE, which, log=self._log)
        wanted = every(str(VERSION), netids)
        eventually(lambda: self.table().of(PROGRAM) == wanted, f"{mode} {which} registered")
        return started

    def row(self, netid: str) -> Row:
        """Give the server's mapping for *netid*."""
        (row,) = (r for r in self.table().rows if (r.program, r.netid) == (PROGRAM, netid))
        return row


@pytest.fixture
def run(portmapper: Namespace, tirpc: str, tmp_path: Path) -> Tirpc:
    """Give the compiled program."""
    return Tirpc(portmapper, tirpc, tmp_path)


@pytest.fixture
def served(run: Tirpc) -> Tirpc:
    """Give the compiled program, one server of it running on every transport."""
    run.serve("server", "visible")
    return run


@pytest.mark.parametrize(("mode", "which", "netids"), _SERVERS)
def test_server(run: Tirpc, mode: str, which: str, netids: str) -> None:
    """A server registers as root, is found and called, and is gone after SIGTERM."""
    server = run.serve(mode, which, netids)
    assert run.table().owners(PROGRAM) == {"superuser"}
    for netid in netids.split():
        host = "::1" if netid.endswith("6") else "127.0.0.1"
        called = run("clnt_create", host, *SERVICE, netid.removesuffix("6"), *INCREMENT)
        assert called == "clnt_create -> RPC: Success, 42"
    assert server.stop() == 0
    assert run.table().others() == set()


def test_pmap_getport(served: Tirpc) -> None:
    """pmap_getport finds a service's port, and no port where there is none."""
    for protocol, netid in ((UDP, "udp"), (TCP, "tcp")):
        found = served("pmap_getport", *SERVICE, protocol)
        assert found == f"pmap_getport -> {served.row(netid).port}"
    refused = served("pmap_getport", "200101", "1", UDP, status=1)
    assert refused == "pmap_getport -> 0, RPC: Program not registered"


def test_pmap_getmaps(served: Tirpc) -> None:
    """pmap_getmaps shows what version 2 knows of."""
    own = {f"100000 {v} {protocol} 111" for v in (2, 3, 4) for protocol in (TCP, UDP)}
    service = {f"{PROGRAM} {VERSION} {UDP} {served.row('udp').port}"} | {
        f"{PROGRAM} {VERSION} {TCP} {served.row('tcp').port}"
    }
    assert set(served("pmap_getmaps").splitlines()) == own | service


def test_pmap_set_and_unset(run: Tirpc) -> None:
    """pmap_set registers once, pmap_unset removes every protocol of a version."""
    assert run("pmap_set", *SERVICE, UDP, "5555") == "pmap_set -> 1"
    assert run("pmap_set", *SERVICE, TCP, "5556") == "pmap_set -> 1"
    assert run("pmap_set", *SERVICE, UDP, "5555") == "pmap_set -> 1"
    assert run("pmap_getport", *SERVICE, UDP) == "pmap_getport -> 5555"
    assert run("pmap_set", *SERVICE, UDP, "0", status=1).startswith("pmap_set -> 0")
    assert run("pmap_unset", *SERVICE) == "pmap_unset -> 1"
    assert run.table().others() == set()


@pytest.mark.parametrize("mode", ["clntudp_create", "clnttcp_create"])
def test_old_clients(served: Tirpc, mode: str) -> None:
    """The old clients find the port with GETPORT and call it."""
    assert served(mode, *SERVICE, *INCREMENT) == f"{mode} -> RPC: Success, 42"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_callrpc(served: Tirpc, host: str) -> None:
    """The call in one line finds its service."""
    assert served("callrpc", host, *SERVICE, *INCREMENT) == "callrpc -> RPC: Success, 42"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("nettype", ["udp", "tcp", "visible"])
def test_clnt_create_vers(served: Tirpc, host: str, nettype: str) -> None:
    """A client that takes any version finds the one that is served."""
    called = served("clnt_create_vers", host, str(PROGRAM), nettype, *INCREMENT)
    assert called == "clnt_create_vers -> RPC: Success, 42"


def test_calls_through_the_port_mapper(served: Tirpc) -> None:
    """pmap_rmtcall and rpcb_rmtcall call by way of the port mapper, over IPv4 and IPv6."""
    assert served("pmap_rmtcall", *SERVICE, *INCREMENT) == "pmap_rmtcall -> RPC: Success, 42"
    for netid, host in (("udp", "127.0.0.1"), ("udp6", "::1")):
        called = served("rpcb_rmtcall", netid, host, *SERVICE, *INCREMENT)
        assert called == "rpcb_rmtcall -> RPC: Success, 42"


@pytest.mark.parametrize(
    ("netid", "host"),
    [("udp", "127.0.0.1"), ("tcp", "127.0.0.1"), ("udp6", "::1"), ("tcp6", "::1")],
)
def test_rpcb_getaddr(served: Tirpc, netid: str, host: str) -> None:
    """rpcb_getaddr gives the address as its caller reaches it."""
    port = served.row(netid).port
    found = served("rpcb_getaddr", *SERVICE, netid, host)
    assert found == f"rpcb_getaddr -> {host}.{port >> 8}.{port & 255}"
    refused = served("rpcb_getaddr", "200101", "1", netid, host, status=1)
    assert refused == "rpcb_getaddr -> 0, RPC: Program not registered"


@pytest.mark.parametrize(
    ("netid", "host"),
    [
        ("udp", "127.0.0.1"),
        ("tcp", "127.0.0.1"),
        ("udp6", "::1"),
        ("tcp6", "::1"),
        ("local", "127.0.0.1"),
    ],
)
def test_rpcb_getmaps(served: Tirpc, netid: str, host: str) -> None:
    """rpcb_getmaps shows the whole table over every transport."""
    rows = {
        f"{row.program} {row.version} {row.netid} {row.address} {row.owner}"
        for row in served.table().rows
    }
    assert set(served("rpcb_getmaps", netid, host).splitlines()) == rows


def test_rpcb_set_and_unset(run: Tirpc) -> None:
    """rpcb_set registers an address, rpcb_unset one netid or all."""
    assert run("rpcb_set", *SERVICE, "udp", "127.0.0.1.3.4") == "rpcb_set -> 1"
    assert run("rpcb_set", *SERVICE, "tcp6", "::1.3.5") == "rpcb_set -> 1"
    assert run.row("udp").address == "127.0.0.1.3.4"
    assert run("rpcb_unset", *SERVICE, "udp") == "rpcb_unset -> 1"
    assert run.table().of(PROGRAM) == {(VERSION, "tcp6")}
    assert run("rpcb_unset", *SERVICE, "") == "rpcb_unset -> 1"
    assert run.table().others() == set()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_rpcb_gettime(run: Tirpc, host: str) -> None:
    """rpcb_gettime gives this machine's time."""
    assert run("rpcb_gettime", host) in {f"rpcb_gettime -> 1, {off} seconds off" for off in (0, 1)}


def test_addresses_there_and_back(run: Tirpc) -> None:
    """rpcb_uaddr2taddr and rpcb_taddr2uaddr, asked on the local transport, translate paths."""
    path = "/run/service"
    family = (1).to_bytes(2, sys.byteorder)
    there = run("rpcb_uaddr2taddr", "local", path)
    assert there.startswith(f"rpcb_uaddr2taddr -> {(family + path.encode()).hex()}")
    assert run("rpcb_taddr2uaddr", "local", path) == f"rpcb_taddr2uaddr -> {path}"


@pytest.mark.broadcast
@pytest.mark.options("--interface", "0.0.0.0", "--interface", "::", "--callit", "all")
class TestBroadcast:
    """Calls to every port mapper of the network."""

    def test_clnt_broadcast(self, served: Tirpc) -> None:
        """clnt_broadcast reaches a service by version 2."""
        assert served("clnt_broadcast", *SERVICE, *INCREMENT).splitlines() == [
            "from 10.99.0.1: 42",
            "clnt_broadcast -> RPC: Success, 42",
        ]

    def test_rpc_broadcast(self, served: Tirpc) -> None:
        """rpc_broadcast reaches a service by version 3."""
        first, last = served("rpc_broadcast", *SERVICE, *INCREMENT, "datagram_v").splitlines()[-2:]
        port = served.row("udp").port
        assert first == f"from 10.99.0.1.{port >> 8}.{port & 255}: 42"
        assert last == "rpc_broadcast -> RPC: Success, 42"
