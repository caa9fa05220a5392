"""``portmapctl rpc`` with rpcbind and with portmapd, and with servers that lie."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portmapd import __version__
from portmapd.channel import commands as c
from portmapd.channel.box import BoxReader
from portmapd.errors import ProgramMismatch
from portmapd.oncrpc.message import decode_call, refusal, success
from portmapd.oncrpc.netid import format_address
from portmapd.oncrpc.program import Rpcb, encode_rpcb
from portmapd.oncrpc.record import RecordReader, mark
from portmapd.oncrpc.xdr import sequence, string, uint
from tests.support.daemon import portmapd, rpcbind
from tests.support.impostor import impostor
from tests.support.namespace import TOP, Namespace, eventually

COMMAND = (sys.executable, "-m", "portmapd.cli")
#: A program and a version that nobody has.
PROGRAM, VERSION = "200100", "3"
SERVED = ("--interface", "0.0.0.0", "--interface", "::", "--callit", "null")
#: How many rows portmapctl takes, and what it may need for them, in bytes.
MANY, MEMORY = 250_000, 400 << 20


class Host:
    """A host on which a port mapper runs."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def ctl(self, words: str, status: int = 0) -> str:
        """What ``portmapctl rpc`` says."""
        return self.namespace.run(*COMMAND, "rpc", *words.split(), status=status)

    def rows(self, words: str) -> list[dict[str, object]]:
        """What it says in JSON."""
        rows: list[dict[str, object]] = json.loads(self.ctl(f"{words} --json"))
        return rows


@pytest.fixture(params=["rpcbind", "portmapd"])
def host(request: pytest.FixtureRequest, namespace: Namespace, tmp_path: Path) -> Iterator[Host]:
    """Give a host with rpcbind, and one with portmapd."""
    running = {
        "rpcbind": lambda: rpcbind(namespace, tmp_path),
        "portmapd": lambda: portmapd(namespace, tmp_path, *SERVED),
    }[request.param]
    with running():
        yield Host(namespace)


@pytest.mark.programs("rpcbind", "rpcinfo")
@pytest.mark.broadcast
class TestPortMappers:
    """Each command, with port mappers of two makes."""

    def test_list(self, host: Host) -> None:
        """All mappings, with names and owners; in short; and as version 2 has them."""
        for where in ("", "127.0.0.1", "[::1]:111 --tcp", "localhost", "/run/rpcbind.sock"):
            rows = host.rows(f"list {where}")
            assert {(row["program"], row["name"], row["owner"]) for row in rows} == {
                (100000, "portmapper", "superuser")
            }
            # rpcbind itself is on fewer netids in version 2.
            assert {(row["version"], row["netid"]) for row in rows if row["version"] != 2} == {
                (version, netid)
                for version in (3, 4)
                for netid in ("udp", "tcp", "udp6", "tcp6", "local")
            }
        head, short = host.ctl("list --short").splitlines()
        assert head.split() == ["PROGRAM", "VERSIONS", "NETIDS", "NAME", "OWNER"]
        assert short.split() == [
            "100000", "2,3,4", "local,tcp,tcp6,udp,udp6", "portmapper", "superuser",
        ]  # fmt: skip
        ports = [line.split() for line in host.ctl("list --ports --udp").splitlines()[1:]]
        assert ports == [
            ["100000", str(version), protocol, "111", "portmapper"]
            for version in (2, 3, 4)
            for protocol in ("tcp", "udp")
        ]

    def test_ping(self, host: Host) -> None:
        """Every version that is served, or one, over each transport, by name or number."""
        for words, netid in (
            ("portmapper", "tcp"),
            ("100000 localhost", "tcp"),
            ("sunrpc ::1 --udp", "udp6"),
            ("portmapper --netid local", "local"),
            ("portmapper --address 127.0.0.1.0.111 --udp", "udp"),
            ("portmapper --address ::1.0.111 --netid tcp6", "tcp6"),
            ("portmapper --port 111", "tcp"),
        ):
            rows = host.rows(f"ping {words}")
            assert [(row["version"], row["netid"], row["error"]) for row in rows] == [
                (version, netid, "") for version in (2, 3, 4)
            ]
        said = host.ctl("ping portmapper 3 127.0.0.1 --udp")
        assert re.search(r"^100000 +3 +udp +127\.0\.0\.1\.0\.111 +[0-9.]+ ms$", said, re.MULTILINE)
        refused = host.ctl("ping portmapper 9", status=1)
        assert "versions 2 to 4" in refused
        assert "version 9 did not answer" in refused
        assert "is not registered over tcp or udp" in host.ctl("ping nfs", status=1)

    def test_set(self, host: Host) -> None:
        """A mapping is set, found, refused to another, and unset."""
        host.ctl(f"set {PROGRAM} {VERSION} udp 4000")
        host.ctl(f"set {PROGRAM} {VERSION} tcp6 ::1.15.160")
        host.ctl(f"set {PROGRAM} {VERSION} local /run/service.sock")
        found = {row["netid"]: row["address"] for row in host.rows("list") if not row["name"]}
        assert found == {
            "udp": "0.0.0.0.15.160", "tcp6": "::1.15.160", "local": "/run/service.sock",
        }  # fmt: skip
        (entry,) = host.rows(f"addresses {PROGRAM} {VERSION} 127.0.0.1")
        assert (entry["netid"], entry["address"]) == ("udp", "127.0.0.1.15.160")
        silent = host.ctl(f"ping {PROGRAM} {VERSION} --udp --timeout 5", status=3)
        assert "refused" in silent
        host.ctl(f"unset {PROGRAM} {VERSION} --netid tcp6")
        assert "tcp6" not in [row["netid"] for row in host.rows("list") if not row["name"]]
        assert json.loads(host.ctl(f"unset {PROGRAM} {VERSION} --json"))["unset"] is True
        missing = host.ctl(f"addresses {PROGRAM} {VERSION}", status=1)
        assert "is not registered there" in missing

    def test_another_users(self, host: Host) -> None:
        """What is another user's is not set, nor unset."""
        host.ctl(f"set {PROGRAM} {VERSION} tcp 111")
        nobody = ("setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+dac_read_search",
                  "--ambient-caps=+dac_read_search")  # fmt: skip
        for words in (f"set {PROGRAM} {VERSION} tcp 4001", f"unset {PROGRAM} {VERSION}"):
            said = host.namespace.run(*nobody, *COMMAND, "rpc", *words.split(), status=1)
            assert f"portmapctl: program {PROGRAM} version {VERSION} was not " in said

    def test_stats(self, host: Host) -> None:
        """The calls of each procedure, by version; what was looked up."""
        host.ctl("ping nfs", status=1)
        said = host.ctl("stats")
        assert re.search(r"^PROCEDURE +VERSION 2 +VERSION 3 +VERSION 4$", said, re.MULTILINE)
        assert re.search(r"^GETPORT, GETADDR +0 +0 +[2-9]$", said, re.MULTILINE)
        assert re.search(r"^4 +100003 +0 +tcp +0 +1$", said, re.MULTILINE)
        stats = json.loads(host.ctl("stats --json 127.0.0.1"))
        assert stats["4"]["calls"][3] >= 2

    def test_status(self, host: Host) -> None:
        """Everything that the port mapper serves itself is called."""
        said = host.namespace.run(*COMMAND, "status", "localhost", "--json")
        health = json.loads(said)
        assert health["healthy"]
        assert {served["netid"] for served in health["served"]} == {"udp", "tcp", "udp6", "tcp6"}
        assert health["mappings"] == len(host.rows("list"))

    def test_broadcast(self, host: Host, tmp_path: Path) -> None:
        """Hosts are told as they answer; nobody's answer is not found."""
        log = tmp_path / "service.log"
        words = ("127.0.0.1", "4000", "00000007")
        host.namespace.start(sys.executable, "-m", "tests.support.reply", *words, log=log)
        eventually(lambda: "ready" in log.read_text(), "the service listens")
        host.ctl(f"set {PROGRAM} {VERSION} udp 4000")
        said = host.ctl(f"broadcast {PROGRAM} {VERSION} --limit 1")
        assert said.splitlines() == ["HOST             PORT", "10.99.0.1        4000"]
        said = host.ctl(f"broadcast {PROGRAM} {VERSION} --limit 1 --json")
        assert json.loads(said) == {"host": "10.99.0.1", "port": 4000}
        assert "nobody answered for" in host.ctl("broadcast nfs 3 --timeout 0.2", status=1)


@pytest.mark.programs("rpcinfo")
def test_every_option_of_rpcinfo(namespace: Namespace) -> None:
    """The page on portmapctl says what is like each option that rpcinfo has."""
    usage = namespace.run("rpcinfo", "-h", status=None)
    _, _, synopsis = usage.partition("Usage:")
    options = set(re.findall(r"(?<![\w-])-\w\b", synopsis))
    assert {"-p", "-T", "-b"} <= options
    page = (TOP / "docs" / "portmapctl.rst").read_text()
    _, _, section = page.partition("The options of rpcinfo\n")
    shown = set(re.findall(r"^   \* - ``rpcinfo (?:\[-n \w+\] )?(-\w)", section, re.MULTILINE))
    shown |= set(re.findall(r"^   \* - ``(-\w)", section, re.MULTILINE))
    assert options - shown == set()


def run(*words: str) -> tuple[int, str, str, int]:
    """Run ``portmapctl``: its status, what it said, its errors, and its most memory, in bytes."""
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        said, why = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, said, why, usage.ru_maxrss * 1024


def test_status_of_the_daemon(namespace: Namespace, tmp_path: Path) -> None:
    """Over the local channel: its version, services, mappings and state; then nothing answers."""
    with portmapd(namespace, tmp_path):
        health = json.loads(namespace.run(*COMMAND, "status", "--json"))
        assert health["healthy"]
        assert (health["release"], health["services"], health["mappings"]) == (__version__, 1, 15)
        assert health["behind"] <= 1
        said = namespace.run(*COMMAND, "status")
        assert "1 service; 15 mappings; answers on local, tcp, tcp6, udp, udp6; state " in said
    assert "no daemon answers at" in namespace.run(*COMMAND, "status", status=3)


def test_sick(tmp_path: Path) -> None:
    """A port mapper that does not answer where it says it serves: status 1, and which it is."""
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        address = format_address("127.0.0.1", skt.getsockname()[1])
        row = encode_rpcb(Rpcb(100000, 4, "tcp", address, "superuser"))
        with impostor(tmp_path / "s", answering(results(sequence([row])))) as path:
            status, said, error, _ = run("status", path)
    assert (status, said) == (1, "")
    assert re.match("portmapctl: version 4 does not answer on tcp: .* refused", error)


def test_unreachable(tmp_path: Path) -> None:
    """Nobody there: status 3, and one line that says what to do."""
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{skt.getsockname()[1]}"
        for words in (
            f"list {closed}",
            f"stats {closed}",
            f"ping nfs 3 {closed}",
            f"list {tmp_path}/no",
        ):
            status, said, error, _ = run("rpc", *words.split())
            assert (status, said) == (3, ""), error
            assert re.fullmatch(r"portmapctl: .* cannot be reached: .*; check the host.*\n", error)


Reply = Callable[[socket.socket, int], object]


def answering(reply: Reply) -> Callable[[socket.socket], None]:
    """A server over a UNIX socket; *reply* is given the connection, and the xid of each call."""

    def behave(skt: socket.socket) -> None:
        reader = RecordReader()
        while data := skt.recv(65_536):
            for record in reader.feed(data):
                reply(skt, decode_call(record).xid)

    return behave


def results(data: bytes) -> Reply:
    """A server whose results are these."""
    return lambda skt, xid: skt.sendall(mark(success(xid, data)))


def trickle(skt: socket.socket, xid: int) -> None:
    """Send a reply that never ends, byte by byte."""
    skt.sendall(b"\0\xff\xff\xff")
    while True:
        skt.sendall(b"\0")
        time.sleep(0.01)


def flood(skt: socket.socket, xid: int) -> None:
    """Send replies to other calls without end."""
    while True:
        skt.sendall(mark(bytes(24)) * 1000)


#: Terminals are steered by these.
HOSTILE = "\x1b[31m\r\n\u202e\x9b"
_ROW = encode_rpcb(Rpcb(1, 1, HOSTILE, f"0.0.0.0{HOSTILE}", HOSTILE))


def test_escaped(tmp_path: Path) -> None:
    """CVE-2026-16277, CVE-2026-16461: what a server sends is escaped on its way to the terminal, in
    tables, in JSON and in errors.
    """
    with impostor(tmp_path / "s", answering(results(sequence([_ROW])))) as path:
        for words in ("list", "list --short", "list --json"):
            status, said, error, _ = run("rpc", *words.split(), path)
            assert (status, error) == (0, "")
            assert said.replace("\n", "").isprintable()
            assert r"\x1b[31m" in said or r"\u001b[31m" in said
    with impostor(tmp_path / "t", answering(results(string(HOSTILE)))) as path:
        status, said, error, _ = run("rpc", "ping", "nfs", path)
        assert (status, said) == (1, "")
        assert error.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("reply", "words", "why"),
    [
        (results(uint(1).join([b"", *[bytes(20)] * (MANY + 1)]) + uint(0)), "list", "more than 2"),
        (results(bytes(15 * 4 * 2) + uint(1)), "stats", "ends within"),
        (results(sequence([bytes(8)])), "list", "ends within"),
        (results(uint(7)), "list", "7 is not a boolean"),
        (lambda skt, xid: skt.sendall(b"\xff\xff\xff\xff"), "list", "a record of more than"),
        (lambda skt, xid: skt.sendall(mark(uint(xid))), "list", "truncated"),
        (lambda skt, xid: skt.close(), "list", "closed the connection"),
        (trickle, "list --timeout 0.5", r"did not answer within 0\.5 s"),
        (flood, "list --timeout 0.5", r"did not answer within 0\.5 s"),
        (lambda skt, xid: None, "list --timeout 0.5", r"did not answer within 0\.5 s"),
    ],
    ids=["entries", "stats", "short", "boolean", "length", "reply", "close", "trickle", "flood",
         "silence"],
)  # fmt: skip
def test_hostile(tmp_path: Path, reply: Reply, words: str, why: str) -> None:
    """CVE-2026-16277, CVE-2026-16461: a server that lies is given up: status 3, one line, in
    bounded time and memory.
    """
    with impostor(tmp_path / "s", answering(reply)) as path:
        status, said, error, memory = run("rpc", *words.split(), path)
    assert (status, said, error.count("\n")) == (3, "", 1), error
    assert re.search(why, error), error
    assert memory < MEMORY


def test_endless_channel(tmp_path: Path) -> None:
    """A daemon of the local channel whose listing has no end: status 3, in bounded memory."""
    rows = [("printer.example.com", 0, 1, "9100", "")] * 900

    def behave(skt: socket.socket) -> None:
        reader = BoxReader()
        while data := skt.recv(65_536):
            for box in reader.feed(data):
                hello = {"version": 1, "instance": "a", "limit": 10, "uid": 0, "pid": 1}
                page = {"services": rows, "more": "1.1"}
                is_hello = box[b"_command"] == c.HELLO.key
                command, values = (c.HELLO, hello) if is_hello else (c.LIST, page)
                skt.sendall(command.reply(box[b"_ask"], values))

    with impostor(tmp_path / "s", behave) as path:
        status, said, error, memory = run("--socket", path, "services")
    assert (status, said) == (3, "")
    assert "the daemon's listing has no end" in error
    assert memory < MEMORY


def test_endless_versions(tmp_path: Path) -> None:
    """A program that says that it serves every version is not asked for all of them."""

    def lie(skt: socket.socket, xid: int) -> None:
        skt.sendall(mark(refusal(xid, ProgramMismatch(0, 2**32 - 1))))

    with impostor(tmp_path / "s", answering(lie)) as path:
        status, said, error, _ = run("rpc", "ping", "nfs", "--netid", "local", "--address", path)
    assert status == 1
    assert said.count("\n") == 33
    assert "versions 0 to 4294967295" in error
