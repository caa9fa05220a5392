"""Sockets that are handed in: by systemd's own program, and by none of systemd."""

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portmapd.oncrpc.program import Pmap, encode_pmap
from tests.integration.conftest import OURS, OURS6
from tests.integration.real_programs.table import ALL_NETIDS, Table, every
from tests.support.daemon import ERRORS, TWISTD
from tests.support.exchange import connect, exchange, question, results
from tests.support.namespace import Namespace, Started, eventually

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
NULL = question(2, 0)
MOUNTD = 100_005
RPC, CHANNEL = "/run/rpcbind.sock", "/run/portmapd/portmapd.sock"

START = (TWISTD, "-n", "--pidfile=", "portmapd")
#: It gives a command a new environment: no daemon may keep its mappings outside the namespace.
ACTIVATE = ("systemd-socket-activate", "--setenv=STATE_DIRECTORY")
HAND_IN = (sys.executable, "-m", "tests.support.hand_in")
#: As the units hand them in: each address with callers from elsewhere has two UDP sockets.
ALL = (
    *("udp:0.0.0.0@111", "udp:0.0.0.0@111", "udp:::@111", "udp:::@111"),
    *("tcp:0.0.0.0@111", "tcp:::@111", f"unix:{RPC}", f"unix:@{RPC}", f"unix:{CHANNEL}"),
)
#: A user without any right, but that to read the tests' files, which may be root's alone.
USER = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


@contextmanager
def handed_in(
    namespace: Namespace, log: Path, sockets: tuple[str, ...], *command: str
) -> Iterator[Started]:
    """Run a daemon in the block that is handed *sockets*, ended by SIGTERM after it."""
    namespace.run("mkdir", "-p", "/run/portmapd")
    started = namespace.start(*HAND_IN, *sockets, "--", *command, log=log)
    eventually(lambda: " serving " in log.read_text() or not started.running(), "it serves")
    assert started.running(), log.read_text()
    yield started
    assert started.stop() == 0
    assert not any(error in log.read_text() for error in ERRORS), log.read_text()


def answers(namespace: Namespace, host: str, kind: socket.SocketKind) -> bool:
    """Does a port mapper answer there, twice and from more than one port?"""
    for _ in range(4):
        with connect(kind, host, 111, make=namespace.make_socket) as skt:
            exchange(skt, NULL)
            exchange(skt, NULL)
    return True


def sets(namespace: Namespace, host: str, number: int) -> bool:
    """May a caller set a mapping over UDP there? Callers from elsewhere may not."""
    arguments = encode_pmap(Pmap(200_000 + number, 1, 17, 4000))
    with connect(UDP, host, 111, make=namespace.make_socket) as skt:
        return bool(results(skt, 2, 1, arguments).uint())


@pytest.mark.programs("setpriv", "rpcinfo")
@pytest.mark.parametrize("user", [(), USER], ids=["root", "user"])
def test_all(
    namespace: Namespace, elsewhere: Namespace, tmp_path: Path, user: tuple[str, ...]
) -> None:
    """All sockets are served, also by a user without any right, and callers are told apart."""
    log = tmp_path / "log"
    with handed_in(namespace, log, ALL, *user, *START) as started:
        assert f"serving port 111 on 0.0.0.0, :: and {RPC}; local channel at {CHANNEL}" in (
            log.read_text()
        )
        for kind in (UDP, TCP):
            for host in ("127.0.0.1", "::1", OURS, OURS6):
                assert answers(namespace, host, kind)
            for host in (OURS, OURS6):
                assert answers(elsewhere, host, kind)
        for number, host in enumerate(("127.0.0.1", "::1", OURS, OURS6)):
            assert sets(namespace, host, number)
        with pytest.raises(Exception, match="refused"):
            sets(elsewhere, OURS, 9)
        table = Table.parse(namespace.run("rpcinfo"))
        assert table.of(100_000) == every("2 3 4", f"{ALL_NETIDS} local")
        environment = namespace.run("sh", "-c", f"tr '\\0' '\\n' </proc/{started.pid}/fdinfo/3")
        assert int(re.findall(r"^flags:\s+(\d+)", environment, re.MULTILINE)[0], 8) & 0o2000000
    # They are not the daemon's to remove.
    assert namespace.run("ls", RPC, CHANNEL).split() == sorted((RPC, CHANNEL))


@pytest.mark.programs("setpriv")
def test_one_udp_socket(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """One UDP socket is enough for the user who made it; another user is told what is missing."""
    log = tmp_path / "log"
    one = ("udp:0.0.0.0@111", "tcp:0.0.0.0@111")
    rest = ("--rpc-socket=none", "--local-socket=none")
    with handed_in(namespace, log, one, *START, *rest):
        assert answers(namespace, "127.0.0.1", UDP)
        assert answers(namespace, OURS, UDP)
        assert answers(elsewhere, OURS, UDP)
        assert sets(namespace, OURS, 1)
    said = namespace.run(*HAND_IN, *one, "--", *USER, *START, *rest, status=1)
    assert "list the address twice, with ReusePort=yes" in said.splitlines()[-1]


def test_variables_are_gone(namespace: Namespace, tmp_path: Path) -> None:
    """They are served, too, if Twisted's endpoints were imported before: they hide the variables.

    twistd imports them with its own plugins when no cache of plugins was written.
    """
    twistd = "import twisted.internet.endpoints; from twisted.scripts.twistd import run; run()"
    log = tmp_path / "log"
    with handed_in(namespace, log, ALL, sys.executable, "-c", twistd, *START[1:]):
        assert f"serving port 111 on 0.0.0.0, :: and {RPC};" in log.read_text()
        assert answers(namespace, "127.0.0.1", UDP)


def test_restarted(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """The same sockets serve one process after the other; calls in between are answered late."""
    log = tmp_path / "log"
    go = tmp_path / "go"
    # The variables name the process that is to have them.
    script = (
        'for turn in 1 2; do (export LISTEN_PID=$BASHPID; exec "$@") & echo $! >'
        f"{tmp_path}/pid; wait $!; until [ -e {go} ]; do sleep .05; done; done"
    )
    namespace.run("mkdir", "-p", "/run/portmapd")
    started = namespace.start(
        *HAND_IN, *ALL, "--", "bash", "-c", script, "service", *START, log=log
    )
    eventually(lambda: " serving " in log.read_text() or not started.running(), "it serves")
    namespace.run("sh", "-c", f"kill $(cat {tmp_path}/pid)")
    eventually(lambda: log.read_text().count("Server Shut Down") == 1, "it has ended")
    calls = [
        connect(UDP, host, 111, make=where.make_socket)
        for where, host in ((namespace, "127.0.0.1"), (namespace, OURS), (elsewhere, OURS))
    ]
    for skt in calls:
        skt.send(NULL)
    go.touch()
    for skt in calls:
        with skt:
            assert skt.recv(1000)
    namespace.run("sh", "-c", f"kill $(cat {tmp_path}/pid)")
    assert started.wait() == 0


@pytest.mark.parametrize(
    ("socket_", "said"),
    [
        ("unix:/run/else.sock", "is a UNIX socket at /run/else.sock, which is neither"),
        ("dgram:/run/rpcbind.sock", "is neither a UDP, nor a TCP, nor a UNIX stream socket"),
        ("local-socket=tcp:127.0.0.1@111", "is a tcp socket at port 111 of 127.0.0.1, and no loc"),
    ],
)
def test_refused(namespace: Namespace, socket_: str, said: str) -> None:
    """What does not fit ends the start with one line."""
    done = namespace.run(*HAND_IN, socket_, "--", *START, status=1)
    assert done.startswith("portmapd: descriptor 3")
    assert said in done
    assert done.count("\n") == 1


def test_option_in_the_way(namespace: Namespace) -> None:
    """An option that says otherwise ends the start with one line."""
    hand_in = (*HAND_IN, "tcp:0.0.0.0@111", "--", *START)
    for option, said in (
        ("--interface=192.0.2.1", "0.0.0.0 is not among the addresses of --interface"),
        ("--port=112", "which --port 112 is not"),
    ):
        assert said in namespace.run(*hand_in, option, status=1)


@pytest.mark.programs("systemd-socket-activate", "rpc.mountd", "rpcinfo")
def test_mountd_first(namespace: Namespace, tmp_path: Path) -> None:
    """rpc.mountd starts before the port mapper, waits on its socket, and is registered."""
    namespace.run("mkdir", "-p", "/run/portmapd")
    listen = (f"--listen={RPC}", "--listen=0.0.0.0:111", "--fdname=rpc-socket:tcp")
    log = tmp_path / "log"
    started = namespace.start(*ACTIVATE, *listen, *START, log=log)
    eventually(lambda: "Listening on 0.0.0.0:111" in log.read_text(), "the sockets are there")
    assert " serving " not in log.read_text()
    mountd = namespace.start("rpc.mountd", "-F", log=tmp_path / "mountd.log")

    def registered() -> bool:
        found = Table.parse(namespace.run("rpcinfo")).of(MOUNTD)
        return found == every("1 2 3", ALL_NETIDS)

    eventually(lambda: " serving " in log.read_text(), "the daemon is started")
    eventually(registered, "rpc.mountd is registered")
    mountd.stop()
    assert started.stop() == 0


@pytest.mark.programs("systemd-socket-activate")
def test_udp_activation(namespace: Namespace, tmp_path: Path) -> None:
    """A call over UDP that starts the daemon is answered when it is sent again.

    Nothing tells where it came from, for the socket has heard everyone until then.
    """
    log = tmp_path / "log"
    activate = (*ACTIVATE, "--datagram", "--listen=0.0.0.0:111")
    started = namespace.start(*activate, *START, "--local-socket=none", log=log)
    eventually(lambda: "Listening on 0.0.0.0:111" in log.read_text(), "the socket is there")
    with connect(UDP, "127.0.0.1", 111, make=namespace.make_socket) as skt:
        skt.send(NULL)
        eventually(lambda: " serving " in log.read_text(), "it serves")
        exchange(skt, NULL)
    assert started.stop() == 0


def test_notification(namespace: Namespace, tmp_path: Path) -> None:
    """A manager is told of the start, of the state, by the watchdog's time, and of the end."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, UDP) as manager:
        manager.bind(str(path))
        manager.settimeout(60)
        started = namespace.start(
            *START,
            log=tmp_path / "log",
            env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "300000"},
        )
        ready = manager.recv(1000).decode().splitlines()
        assert ready[:2] == ["READY=1", f"MAINPID={started.pid}"]
        assert ready[2].startswith(
            "STATUS=serving port 111 on 127.0.0.1, ::1 and /run/rpcbind.sock"
        )
        assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        with started.paused():
            manager.settimeout(0.5)
            while True:
                try:
                    manager.recv(1000)
                except TimeoutError:
                    break
        manager.settimeout(60)
        assert manager.recv(1000) == b"WATCHDOG=1"
        assert started.stop() == 0
        said = [b"WATCHDOG=1"]
        while said[-1] == b"WATCHDOG=1":
            said.append(manager.recv(1000))
        assert said[-1] == b"STOPPING=1"
