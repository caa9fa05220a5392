"""PortmapClient and hosts: names, several addresses of one host, and every host of a network."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portmapd.oncrpc import xdr
from portmapd.oncrpc.program import CallResult, Pmap, encode_call_result, encode_pmap
from tests.support.daemon import portmapd, rpcbind
from tests.support.exchange import exchange, question
from tests.support.namespace import Namespace, Started, eventually

pytestmark = pytest.mark.broadcast

both = pytest.mark.parametrize("transport", ["udp", "tcp"])

#: The other host on the wire, and an address that nobody replies from.
FAR, FAR_TOO, SILENT = "10.99.0.2", "10.99.0.9", "10.99.0.77"
HOSTS = f"""127.0.0.1 localhost here.test
::1 localhost ip6-localhost here.test
127.0.0.2 two.test
127.0.0.3 two.test
{SILENT} slow.test dead.test
127.0.0.1 slow.test
"""
PROGRAM = 200_100
SERVED = ("--interface", "0.0.0.0", "--interface", "::", "--callit", "null")


@pytest.fixture
def host(namespace: Namespace, tmp_path: Path) -> Iterator[Namespace]:
    """Give a host with names, and with another host on the wire: the network namespace far."""
    hosts = tmp_path / "hosts"
    hosts.write_text(HOSTS)
    namespace.run("mount", "--bind", str(hosts), "/etc/hosts")
    namespace.run("ip", "netns", "add", "far")
    namespace.run("ip", "link", "set", "v1", "netns", "far")
    for words in (
        f"addr add {FAR}/24 brd 10.99.0.255 dev v1",
        f"addr add {FAR_TOO}/24 dev v1",
        "link set lo up",
        "link set v1 up",
    ):
        namespace.run("ip", "-n", "far", *words.split())
    silent = f"neigh replace {SILENT} lladdr 02:00:00:00:00:77 dev v0 nud permanent"
    namespace.run("ip", *silent.split())
    yield namespace
    namespace.run("umount", "/etc/hosts")


def ask(namespace: Namespace, *words: str) -> str:
    """What the client says, asking from within the namespace."""
    return namespace.run(sys.executable, "-m", "tests.support.ask", *words).strip()


def replying(namespace: Namespace, log: Path, *words: str) -> Started:
    """Run a server on the other host that replies to every call; see :mod:`tests.support.reply`."""
    program = (sys.executable, "-m", "tests.support.reply", *words)
    started = namespace.start("ip", "netns", "exec", "far", *program, log=log)
    eventually(lambda: "ready" in log.read_text(), "the server listens")
    return started


def register(namespace: Namespace, port: int) -> None:
    """Register the program over UDP with this host's port mapper."""
    with namespace.make_socket(2, 2) as skt:
        skt.settimeout(5)
        skt.connect(("127.0.0.1", 111))
        exchange(skt, question(2, 1, encode_pmap(Pmap(PROGRAM, 1, 17, port))))


@both
@pytest.mark.parametrize("address", ["127.0.0.2", "127.0.0.3"])
def test_name(host: Namespace, tmp_path: Path, transport: str, address: str) -> None:
    """Of the addresses of a name, that which is served is found."""
    with portmapd(host, tmp_path, "--interface", address):
        assert ask(host, transport, "two.test", "111") == f"{address}.0.111"


@both
def test_localhost(host: Namespace, tmp_path: Path, transport: str) -> None:
    """This host is found by its name, whichever of its addresses replies first."""
    with portmapd(host, tmp_path, "--interface", "127.0.0.1"):
        assert ask(host, transport, "localhost", "111") in ("127.0.0.1.0.111", "::1.0.111")


@both
def test_silent_address(host: Namespace, tmp_path: Path, transport: str) -> None:
    """An address that does not reply leaves the others their share of the time."""
    with portmapd(host, tmp_path, "--interface", "127.0.0.1"):
        assert ask(host, transport, "slow.test", "111", "3") == "127.0.0.1.0.111"


@both
def test_no_address_replies(host: Namespace, transport: str) -> None:
    """Where none replies, the error names the host, and comes when the time is up."""
    upper = transport.upper()
    said = ask(host, transport, "dead.test", "111", "1")
    assert said == f"CallTimedOut: {upper} port 111 of dead.test did not answer within 1 s"
    assert "Connection refused" in ask(host, transport, "here.test", "111")


@both
@pytest.mark.parametrize("name", ["nosuch.test", "a" * 63 + ".test", "xn--", "10.99.0.300"])
def test_unknown_name(host: Namespace, transport: str, name: str) -> None:
    """A name without an address is an error that names it, at once."""
    said = ask(host, transport, name, "111")
    assert said.startswith(f"DaemonUnreachable: {transport.upper()} port 111 of {name} cannot")


@pytest.mark.programs("rpcinfo")
def test_reply_from_another_address(host: Namespace, tmp_path: Path) -> None:
    """A reply from another address of the server counts, as for libtirpc, unless told otherwise."""
    results = xdr.string(f"{FAR}.0.111").hex()
    replying(host, tmp_path / "far.log", FAR, "111", results, FAR_TOO)
    assert ask(host, "udp", FAR, "111") == f"{FAR}.0.111"
    said = ask(host, "udp", FAR, "111", "1", "strict")
    assert said == f"CallTimedOut: UDP port 111 of {FAR} did not answer within 1 s"
    said = host.run("rpcinfo", "-T", "udp", FAR, "100000", "4")
    assert said == "program 100000 version 4 ready and waiting\n"


def test_strict(host: Namespace, tmp_path: Path) -> None:
    """A client that was told so takes replies from the address that it called."""
    results = xdr.string(f"{FAR}.0.111").hex()
    replying(host, tmp_path / "far.log", FAR, "111", results)
    assert ask(host, "udp", FAR, "111", "5", "strict") == f"{FAR}.0.111"


@pytest.mark.programs("rpcbind")
@pytest.mark.parametrize(
    ("transport", "server"),
    [
        ("udp", "127.0.0.1"),
        ("udp", "::1"),
        ("tcp", "127.0.0.1"),
        ("tcp", "::1"),
        ("tcp", "localhost"),
        ("local", "/run/rpcbind.sock"),
    ],
)
def test_rpcbind(host: Namespace, tmp_path: Path, transport: str, server: str) -> None:
    """Every method has the same outcome with rpcbind and with portmapd."""
    with portmapd(host, tmp_path, *SERVED):
        ours = ask(host, "every", transport, server)
    with rpcbind(host, tmp_path):
        assert ask(host, "every", transport, server) == ours
    assert "set udp6: True\nset tcp6: True\nset local: True" in ours


@pytest.mark.programs("rpcbind")
def test_broadcast_to_rpcbind(host: Namespace, tmp_path: Path) -> None:
    """rpcbind replies to a broadcast from another port than 111; it counts all the same."""
    log = tmp_path / "service.log"
    words = ("127.0.0.1", "4000", "00000007")
    host.start(sys.executable, "-m", "tests.support.reply", *words, log=log)
    with rpcbind(host, tmp_path):
        eventually(lambda: "ready" in log.read_text(), "the service listens")
        register(host, 4000)
        said = ask(host, "broadcast", str(PROGRAM), "3", "10").splitlines()
        assert said == ["10.99.0.1 4000 00000007", "1 replies"]


def test_broadcast(host: Namespace, tmp_path: Path) -> None:
    """Each host's port mapper replies once for each of its addresses that the broadcast reaches."""
    old = encode_call_result(CallResult(2049, b"old!")).hex()
    replying(host, tmp_path / "far.log", "", "111", old)
    service = (sys.executable, "-m", "tests.support.reply", "127.0.0.1", "4000", "00000007")
    log = tmp_path / "service.log"
    host.start(*service, log=log)
    with portmapd(host, tmp_path, *SERVED):
        eventually(lambda: "ready" in log.read_text(), "the service listens")
        register(host, 4000)
        *replies, end = ask(host, "broadcast", str(PROGRAM), "2.5", "10").splitlines()
        assert sorted(replies) == ["10.99.0.1 4000 00000007", f"{FAR} 2049 6f6c6421"]
        assert end == "2 replies"
        *replies, end = ask(host, "broadcast", str(PROGRAM), "30", "1").splitlines()
        assert (len(replies), end) == (1, "1 replies")


def test_broadcast_without_replies(host: Namespace, tmp_path: Path) -> None:
    """A program that nobody serves has no reply; neither have replies that are none."""
    replying(host, tmp_path / "far.log", "", "111", "00010000")
    with portmapd(host, tmp_path, *SERVED):
        assert ask(host, "broadcast", str(PROGRAM), "1", "10") == "0 replies"


def test_broadcast_without_a_network(host: Namespace) -> None:
    """Without an interface to send on, a broadcast is an error that says so."""
    host.run("ip", "link", "del", "v0")
    said = ask(host, "broadcast", str(PROGRAM), "1", "10")
    assert said.startswith("DaemonUnreachable: no broadcast can be sent: no interface has")
