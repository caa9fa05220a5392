"""Another process takes the daemon's place, and nobody notices."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portmapd.channel import commands as c
from portmapd.errors import NotAllowed, RestartFailed
from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.netid import format_address
from portmapd.oncrpc.program import (
    RPCBVERS4,
    Pmap,
    PmapProcedure,
    Rpcb,
    RpcbProcedure,
    encode_pmap,
    encode_rpcb,
    read_rpcb,
)
from portmapd.oncrpc.record import mark
from tests.support.exchange import (
    PATIENCE,
    connect,
    connect_local,
    exchange,
    question,
    receive_record,
    results,
    run_as,
)
from tests.support.handovers import Dynasty, dynasty, run_handovers, watched
from tests.support.host import twistd
from tests.support.installation import install
from tests.support.namespace import Namespace, eventually
from tests.support.registrant import Registrant
from tests.support.talk import Talk

NAME, OTHER = "printer.example.com", "other.example.com"
#: A program that a caller has set, and one that a connection holds.
SET, HELD = 200_000, 200_001
NOBODY = 65534
PORTMAPCTL = (sys.executable, "-m", "portmapd.cli")
#: A command like twistd, of which a test installs other versions.
PROGRAM = "from twisted.scripts.twistd import run\nrun()\n"


@pytest.fixture
def host() -> Iterator[Dynasty]:
    """Give a daemon."""
    with dynasty() as running:
        yield running


@pytest.fixture
def service() -> Iterator[str]:
    """Give the address of a service over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as skt:
        skt.bind(("127.0.0.1", 0))
        yield format_address(*skt.getsockname())


def owners(skt: socket.socket) -> dict[tuple[int, str], str]:
    """The owner of every mapping."""
    rows = results(skt, RPCBVERS4, RpcbProcedure.RPCBPROC_DUMP).sequence(read_rpcb)
    return {(row.program, row.netid): row.owner for row in rows}


def getports(skt: socket.socket) -> int:
    """How many GETPORTs were counted."""
    # RFC 1833, 2.1: of version 2, a count for each procedure.
    reader = results(skt, RPCBVERS4, RpcbProcedure.RPCBPROC_GETSTAT)
    return [reader.uint() for _ in range(13)][PmapProcedure.PMAPPROC_GETPORT]


def test_all_passes_over(host: Dynasty, service: str) -> None:
    """Mappings with their owners, streams, services, watches, counters: all go on as they were."""
    with (
        connect(socket.SOCK_STREAM, "127.0.0.1", host.port) as tcp,
        connect_local(host.rpc) as rpc,
        Talk(host.channel) as talk,
        Talk(host.channel) as watcher,
    ):
        rpcb = encode_rpcb(Rpcb(SET, 1, "udp", service))
        assert results(rpc, RPCBVERS4, RpcbProcedure.RPCBPROC_SET, rpcb).boolean()
        exchange(tcp, question(2, 3, encode_pmap(Pmap(SET, 1, 17, 0))))
        talk.register((NAME, "1", 0), (NAME, "2", 0))
        talk.set((HELD, 1, "udp", "127.0.0.1.0.9"))
        watcher.ask(c.WATCH)
        before = owners(rpc), talk.services(names=[NAME]), getports(rpc), talk.hello()
        # Parts of requests have come, and the rest comes afterwards.
        hello, null = c.HELLO.ask(b"t", {"version": 1}), mark(question(2, 0))
        talk.send(hello[:9])
        tcp.sendall(null[:9])
        pid = host.hand_over()
        talk.send(hello[9:])
        tcp.sendall(null[9:])
        assert talk.answer()[b"_answer"] == b"t"
        decode_reply(receive_record(tcp))
        assert (owners(rpc), talk.services(names=[NAME]), getports(rpc), talk.hello()) == before
        (itself,) = talk.services(names=[c.ITSELF])
        assert itself[2] == pid
        talk.deregister((NAME, "1"))
        told = [watcher.event() for _ in range(3)]
        assert [event[:2] for event in told] == [
            ("deregistered", c.ITSELF),
            ("registered", c.ITSELF),
            ("deregistered", NAME),
        ]
        # New callers are served by the same sockets.
        with connect(socket.SOCK_DGRAM, "127.0.0.1", host.port) as udp, Talk(host.channel) as new:
            exchange(udp, question(2, 0))
            assert new.names() == [NAME]
        host.stop()
        assert talk.is_closed()
        assert not Path(host.channel).exists()
        assert not Path(host.rpc).exists()


def test_process_ends(host: Dynasty) -> None:
    """A process is known as it was: its end ends its registration, whoever holds its socket."""
    with Registrant(host.channel) as registrant:
        skt = registrant.connect()
        with Talk(skt) as talk, Talk(host.channel) as other:
            talk.register((NAME, "1", 0))
            host.hand_over()
            assert other.names() == [NAME]
            os.kill(registrant.pid, signal.SIGKILL)
            eventually(lambda: other.names() == [], "the registration is gone")


def test_watcher_that_does_not_read(host: Dynasty) -> None:
    """Events that a watcher has not read are not lost."""
    with Talk(host.channel) as talk, Talk(host.channel) as watcher:
        watcher.ask(c.WATCH, names=[NAME])
        for _ in range(500):
            talk.register((NAME, "1", 0))
            talk.deregister((NAME, "1"))
        host.hand_over()
        talk.register((OTHER, "1", 0))
        told = [watcher.event()[0] for _ in range(1_000)]
        assert told == ["registered", "deregistered"] * 500


def test_under_load() -> None:
    """Hand-overs under load: every call is answered, and a watcher misses nothing."""
    report = run_handovers(3)
    assert report.faults == []
    assert report.calls > 0
    assert report.records > 0
    assert report.changes > 0


def restart(host: Dynasty) -> subprocess.CompletedProcess[str]:
    """Run ``portmapctl restart``."""
    return subprocess.run(
        [*PORTMAPCTL, "--socket", host.channel, "restart"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_command(host: Dynasty) -> None:
    """``portmapctl restart`` says which process serves; only root and the daemon's user may."""
    said = []
    pid = host.hand_over(lambda _: said.append(restart(host)))
    assert (said[0].returncode, said[0].stderr) == (0, "")
    assert said[0].stdout == f"portmapd is restarted: process {pid} serves now\n"
    os.chmod(Path(host.channel).parent, 0o755)
    skt = run_as(NOBODY, lambda: connect_local(host.channel))
    with Talk(skt) as talk, pytest.raises(NotAllowed, match="only root and uid 0 may restart"):
        talk.ask(c.RESTART)
    assert host.pid == pid


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import portmapd.nothing\n", "No module named 'portmapd.nothing'"),
        ("raise SystemExit(3)\n", "the other process has ended"),
        (PROGRAM.replace("run()", "import os; os.environ['PORTMAPD_PORT'] = 'x'; run()"), "port"),
    ],
)
def test_new_process_fails(tmp_path: Path, service: str, text: str, why: str) -> None:
    """The old process goes on serving, and says why in its log, and to who asked."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with dynasty(twistd=(sys.executable, str(program))) as host:
        pid = host.pid
        program.write_text(text)
        with connect_local(host.rpc) as rpc, Talk(host.channel) as talk:
            talk.register((NAME, "1", 0))
            with pytest.raises(RestartFailed, match=why):
                talk.ask(c.RESTART)
            said = restart(host)
            assert said.returncode == 1
            assert said.stderr.endswith("; the daemon goes on as it was\n")
            assert re.search(f"no other process takes the place of this one: .*{why}", host.log)
            assert talk.names() == [NAME]
            rpcb = encode_rpcb(Rpcb(SET, 1, "udp", service))
            assert results(rpc, RPCBVERS4, RpcbProcedure.RPCBPROC_SET, rpcb).boolean()
            assert host.pid == pid
            # It can be tried again.
            program.write_text(PROGRAM)
            host.hand_over()
            assert talk.names() == [NAME]
            assert (SET, "udp") in owners(rpc)


def test_options(tmp_path: Path) -> None:
    """The new process reads the file of options anew; what cannot be used stops nothing."""
    file = tmp_path / "portmapd.toml"
    file.write_text("max-services = 3\n")
    with dynasty(f"--config={file}") as host, Talk(host.channel) as talk:
        assert talk.hello()["limit"] == 3
        file.write_text("max-services = 'many'\n")
        with pytest.raises(RestartFailed, match="max-services"):
            talk.ask(c.RESTART)
        file.write_text("max-services = 5\n")
        host.hand_over()
        assert talk.hello()["limit"] == 5


def test_addresses(tmp_path: Path) -> None:
    """An address that is served no longer is closed with its streams; a new one is bound."""
    file = tmp_path / "portmapd.toml"
    file.write_text('interface = ["127.0.0.2"]\n')

    def stream(host: str, port: int) -> socket.socket:
        return connect(socket.SOCK_STREAM, host, port)

    with dynasty(f"--config={file}") as daemon:
        with stream("127.0.0.1", daemon.port) as kept, stream("127.0.0.2", daemon.port) as closed:
            for skt in (kept, closed):
                exchange(skt, question(2, 0))
            file.write_text('interface = ["127.0.0.3"]\n')
            daemon.hand_over()
            exchange(kept, question(2, 0))
            with pytest.raises(EOFError):
                exchange(closed, question(2, 0))
        with stream("127.0.0.3", daemon.port) as new:
            exchange(new, question(2, 0))
        with pytest.raises(ConnectionRefusedError):
            stream("127.0.0.2", daemon.port)


@pytest.mark.parametrize("options", [(), ("--read-executables",)])
def test_without_rights(namespace: Namespace, tmp_path: Path, options: tuple[str, ...]) -> None:
    """What took root's rights at the start is passed on: port 111, and a kept capability."""
    log, pid_file = tmp_path / "log", "/run/portmapd/twistd.pid"
    install(namespace, tmp_path)
    command = ("/opt/portmapd/bin/twistd", "-n", f"--uid={NOBODY}", "portmapd")
    first = namespace.start(*command, *options, log=log)

    def pid() -> str:
        return namespace.run("cat", pid_file).strip()

    def rights() -> list[str]:
        lines = "^(Uid|Cap(Prm|Eff|Amb)|NoNew)"
        return namespace.run("grep", "-E", lines, f"/proc/{pid()}/status").splitlines()

    eventually(lambda: " serving port 111" in log.read_text(), "it serves")
    before = pid(), rights()
    namespace.run("kill", "-USR2", before[0])
    eventually(lambda: "serves in place" in log.read_text(), "another process serves")
    eventually(lambda: not first.running(), "the first process ends")
    assert pid() != before[0]
    assert rights() == before[1]
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with connect(kind, "127.0.0.1", 111, make=namespace.make_socket) as skt:
            exchange(skt, question(2, 0))
    assert "cannot be read" not in log.read_text()
    namespace.run("kill", pid())
    eventually(lambda: namespace.run("ls", "/run/portmapd") == "", "it ends, and removes its files")


def test_background(tmp_path: Path) -> None:
    """In the background, the pid file names who serves, and both processes write to one log."""
    pid_file, log, channel = (tmp_path / name for name in ("pid", "log", "portmapd.sock"))
    twistd(
        f"--pidfile={pid_file}",
        f"--logfile={log}",
        "portmapd",
        "--port=0",
        "--rpc-socket=none",
        f"--local-socket={channel}",
    )
    first = int(pid_file.read_text())
    with watched(first) as ended, Talk(str(channel)) as talk:
        talk.ask(c.RESTART)
        assert ended()
        second = int(pid_file.read_text())
        assert {first, second} == {first, *(row[2] for row in talk.services(names=[c.ITSELF]))}
    with watched(second) as ended:
        os.kill(second, signal.SIGTERM)
        assert ended()
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in lines), lines
    assert sum(" serving port " in line for line in lines) == 2
    assert sum(f"pid {second} serves in place" in line for line in lines) == 1
    assert not pid_file.exists()


def test_terminated_meanwhile(host: Dynasty) -> None:
    """A daemon that is told to end while another process starts, ends with that."""
    with watched(host.pid) as ended, Talk(host.channel) as talk:
        os.kill(host.pid, signal.SIGUSR2)
        os.kill(host.pid, signal.SIGTERM)
        assert ended()
        assert talk.is_closed()
    assert "about to end" in host.log
