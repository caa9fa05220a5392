"""rpcinfo in its modes: the table as administrators see it, and calls through it."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from portmapd.oncrpc.program import Pmap, encode_pmap
from tests.integration.real_programs.table import ALL_NETIDS, PORTMAPPER, Table, every
from tests.support.exchange import connect, exchange, question
from tests.support.namespace import Namespace, eventually

pytestmark = pytest.mark.programs("rpcinfo")

#: A program and version that nobody has.
PROGRAM, VERSION = "200100", "1"

_OWN = [
    [str(PORTMAPPER), str(v), p, "111", "portmapper"] for p in ("tcp", "udp") for v in (4, 3, 2)
]


def test_own_table(table: Callable[[], Table]) -> None:
    """The port mapper lists itself on every transport, as the superuser's."""
    seen = table()
    assert seen.of(PORTMAPPER) == every("2 3 4", f"{ALL_NETIDS} local")
    assert seen.owners(PORTMAPPER) == {"superuser"}
    assert {row.port for row in seen.rows if row.netid != "local"} == {111}
    assert {row.address for row in seen.rows if row.netid == "local"} == {"/run/rpcbind.sock"}


@pytest.mark.parametrize("host", [(), ("127.0.0.1",), ("::1",)])
def test_short_table(portmapper: Namespace, host: tuple[str, ...]) -> None:
    """``rpcinfo -s`` sums the same table up, asked here or over the network."""
    program, versions, netids, service, owner = (
        portmapper.run("rpcinfo", "-s", *host).splitlines()[1].split()
    )
    assert (program, service, owner) == ("100000", "portmapper", "superuser")
    assert sorted(versions.split(",")) == ["2", "3", "4"]
    assert sorted(netids.split(",")) == ["local", "tcp", "tcp6", "udp", "udp6"]


@pytest.mark.parametrize("host", [(), ("127.0.0.1",), ("::1",)])
def test_version_2_table(portmapper: Namespace, host: tuple[str, ...]) -> None:
    """``rpcinfo -p`` shows the table of version 2, asked here or over the network."""
    lines = portmapper.run("rpcinfo", "-p", *host).splitlines()
    assert sorted(line.split() for line in lines[1:]) == sorted(_OWN)


@pytest.mark.options("--max-user-mappings", "10000")
@pytest.mark.parametrize("option", ["-p", "-s", ""])
def test_long_table(portmapper: Namespace, option: str) -> None:
    """A table that comes in many fragments is whole."""
    programs = range(200_000, 205_000)
    with connect(socket.SOCK_STREAM, "127.0.0.1", 111, make=portmapper.make_socket) as skt:
        for each in programs:
            exchange(skt, question(2, 1, encode_pmap(Pmap(each, 1, 17, 4_000))))
    said = portmapper.run("rpcinfo", *option.split(), "127.0.0.1")
    found = [int(line.split()[0]) for line in said.splitlines()[1:]]
    assert sorted(set(found) - {PORTMAPPER}) == list(programs)


def test_statistics(portmapper: Namespace) -> None:
    """``rpcinfo -m`` shows what was asked before it."""
    portmapper.run("rpcinfo", "-p")
    portmapper.run("rpcinfo")
    said = portmapper.run("rpcinfo", "-m")
    counts = dict(re.findall(r"\(version (\d)\) statistics\n.*\n(.*)", said))
    assert counts["2"].split() == ["0", "0/0", "0/0", "0/0", "1", "0/0"]
    assert counts["3"].split() == ["0", "0/0", "0/0", "0/0", "1", "0/0", "0", "0", "0"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", ["-u", "-t"])
@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_ready(portmapper: Namespace, host: str, transport: str, version: str) -> None:
    """``rpcinfo -u`` and ``-t`` find a version and call it."""
    said = portmapper.run("rpcinfo", transport, host, "100000", version)
    assert said == f"program 100000 version {version} ready and waiting\n"


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
def test_every_version_ready(portmapper: Namespace, netid: str, host: str) -> None:
    """``rpcinfo -T`` without a version finds all of them, from PROG_MISMATCH on."""
    said = portmapper.run("rpcinfo", "-T", netid, host, "100000")
    assert re.findall(r"version (\d) ready and waiting", said) == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("address", "netid"),
    [
        ("127.0.0.1.0.111", "udp"),
        ("127.0.0.1.0.111", "tcp"),
        ("::1.0.111", "udp6"),
        ("::1.0.111", "tcp6"),
    ],
)
def test_universal_address(portmapper: Namespace, address: str, netid: str) -> None:
    """``rpcinfo -a`` calls a universal address."""
    said = portmapper.run("rpcinfo", "-a", address, "-T", netid, "100000", "4")
    assert said == "program 100000 version 4 ready and waiting\n"


def test_port(portmapper: Namespace) -> None:
    """``rpcinfo -n`` calls a port."""
    said = portmapper.run("rpcinfo", "-n", "111", "-u", "127.0.0.1", "100000", "2")
    assert said == "program 100000 version 2 ready and waiting\n"


def test_not_registered(portmapper: Namespace) -> None:
    """A program that nobody has is told apart from silence."""
    said = portmapper.run("rpcinfo", "-u", "127.0.0.1", PROGRAM, status=1)
    assert "RPC: Program not registered" in said


def test_services(portmapper: Namespace, tirpc: str, tmp_path: Path) -> None:
    """``rpcinfo -l`` lists a version's addresses as its caller reaches them, ``-d`` deletes it."""
    portmapper.start(tirpc, "server", PROGRAM, VERSION, "visible", log=tmp_path / "server.log")
    ready = f"program {PROGRAM} version {VERSION} ready and waiting\n"
    ask = ("rpcinfo", "-u", "127.0.0.1", PROGRAM)
    eventually(lambda: portmapper.run(*ask, status=None) == ready, "the server registered")
    listed = portmapper.run("rpcinfo", "-l", "127.0.0.1", PROGRAM, VERSION)
    assert re.findall(r"inet/(udp|tcp)/\S+ +127\.0\.0\.1\.\d+\.\d+", listed) == ["udp", "tcp"]
    portmapper.run("rpcinfo", "-d", PROGRAM, VERSION)
    assert Table.parse(portmapper.run("rpcinfo")).others() == set()


@pytest.mark.programs("stdbuf")
@pytest.mark.broadcast
@pytest.mark.options("--interface", "0.0.0.0", "--interface", "::", "--callit", "null")
class TestBroadcast:
    """``rpcinfo -b`` asks the network with CALLIT, procedure 0."""

    @pytest.mark.parametrize("version", ["1", "2"])
    def test_service_answers(
        self, portmapper: Namespace, tirpc: str, tmp_path: Path, version: str
    ) -> None:
        """A service is found by broadcast, at its own address."""
        portmapper.start(tirpc, "server", PROGRAM, version, "udp", log=tmp_path / "server.log")
        asked = tmp_path / "broadcast.log"
        # It collects answers for half a minute: the first one is enough.
        broadcast = portmapper.start("stdbuf", "-oL", "rpcinfo", "-b", PROGRAM, version, log=asked)
        answer = re.compile(r"^10\.99\.0\.1\.\d+\.\d+\t", re.MULTILINE)
        eventually(lambda: answer.search(asked.read_text()), "an answer")
        broadcast.stop()
