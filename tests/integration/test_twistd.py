"""The daemon as administrators start it: refusals of one line, privileges, odd hosts."""

import os
import re
import socket
from pathlib import Path

import pytest

from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import Pmap, encode_pmap
from portmapd.oncrpc.xdr import Reader
from tests.support.daemon import TWISTD, portmapd
from tests.support.exchange import connect, connect_local, exchange, free_port, question
from tests.support.host import daemon, twistd
from tests.support.libraries import OLDEST_TWISTED, TWISTED
from tests.support.namespace import Namespace, eventually

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
NULL = question(2, 0)

#: In the foreground, without a file for its process id.
START = ("-n", "--pidfile=", "portmapd")
NO_SOCKETS = ("--rpc-socket", "none", "--local-socket", "none")

CORRUPT = {
    "--port=seven": "--port 'seven' is not a whole number",
    "--port=65536": "port 65536 is not in the range 0 to 65535",
    "--interface=eth0": "interface 'eth0' is no IPv4 or IPv6 address; give the address of",
    "--rpc-socket=here": "rpc-socket 'here' is not an absolute path",
    "--trust=10.0.0.0/33": "'10.0.0.0/33' is not a network",
    "--allow=everyone": "'everyone' is not a network",
    "--callit=some": "callit 'some' is none of off, local, null, all",
    "--liveness=0": "liveness 0.0: give seconds from",
    "--liveness=nan": "liveness nan: give seconds from",
}


@pytest.mark.parametrize("option", CORRUPT)
def test_corrupt_option(option: str) -> None:
    """An option that cannot be used ends the start with one line and a status."""
    done = twistd(*START, option)
    assert done.returncode == 1
    assert done.stdout.count("\n") <= 1
    assert done.stdout.startswith(f"portmapd: {CORRUPT[option]}")


def test_unknown_option() -> None:
    """An option that does not exist is named in the last line."""
    done = twistd(*START, "--nonsense")
    # Twisted 22.4 has the status 0 here, for every plug-in.
    assert done.returncode == int(TWISTED > OLDEST_TWISTED)
    assert done.stdout.splitlines()[-1].endswith("option --nonsense not recognized")


@pytest.mark.parametrize("kind", [UDP, TCP], ids=["udp", "tcp"])
def test_taken_port(kind: socket.SocketKind) -> None:
    """A port that is taken ends the start with a line that says by whom, and what to do."""
    with socket.socket(type=kind) as skt:
        port = free_port()
        skt.bind(("127.0.0.1", port))
        if kind is TCP:
            skt.listen()
        done = twistd(*START, "--port", str(port), *NO_SOCKETS)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert re.search(
        rf"portmapd: port {port} of 127\.0\.0\.1 is taken by \S+ \(pid {os.getpid()}\): "
        r"stop that, or choose another port with --port$",
        done.stdout,
    )


def test_taken_port_in_the_background(tmp_path: Path) -> None:
    """The command that would go into the background fails instead, and leaves no daemon."""
    files = (f"--pidfile={tmp_path}/pid", f"--logfile={tmp_path}/log")
    with socket.socket() as skt:
        port = free_port()
        skt.bind(("127.0.0.1", port))
        skt.listen()
        done = twistd(*files, "portmapd", "--port", str(port), *NO_SOCKETS)
    assert done.returncode == 1
    assert f"portmapd: port {port} of 127.0.0.1 is taken by" in done.stdout
    log = tmp_path / "log"
    # The command need not wait for the last words of the process that it started.
    advice = "choose another port with --port"
    eventually(lambda: log.read_text().rstrip().endswith(advice), advice)
    assert "Traceback" not in log.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_live_socket(tmp_path: Path) -> None:
    """A second daemon on the same rpcbind socket is refused; the first one goes on."""
    with daemon(tmp_path) as running:
        done = twistd(*START, "--port", "0", "--rpc-socket", running.path, "--local-socket", "none")
        assert done.returncode == 1
        assert f"portmapd: the socket {running.path} cannot be used: " in done.stdout
        with connect_local(running.path) as skt:
            exchange(skt, NULL)


@pytest.mark.programs("setpriv")
def test_reserved_port(namespace: Namespace) -> None:
    """Port 111 without the right to it names root, the capability and ``--port``."""
    said = namespace.run(*unprivileged(), *START, "--port", "111", *NO_SOCKETS, status=1)
    last = said.splitlines()[-1]
    assert "port 111 of 127.0.0.1 may not be bound" in last
    for word in ("root", "CAP_NET_BIND_SERVICE", "--port"):
        assert word in last


@pytest.mark.programs("setpriv")
def test_default_port(namespace: Namespace, tmp_path: Path) -> None:
    """A user who is not root serves port 10111, and is told so."""
    log = tmp_path / "log"
    started = namespace.start(*unprivileged(), *START, log=log)
    said = "serving port 10111, because port 111 needs root"
    eventually(lambda: not started.running() or said in log.read_text(), said)
    assert started.running(), log.read_text()
    for kind in (UDP, TCP):
        with connect(kind, "127.0.0.1", 10111, make=namespace.make_socket) as skt:
            exchange(skt, NULL)
    started.stop()


def unprivileged() -> tuple[str, ...]:
    """twistd as a user who is not root; its files may be root's alone, so it reads them all."""
    read = "+dac_read_search"
    user = ("--reuid=65534", "--regid=65534", "--clear-groups")
    rights = (f"--inh-caps={read}", f"--ambient-caps={read}")
    return "env", "-u", "XDG_RUNTIME_DIR", "setpriv", *user, *rights, TWISTD


def test_privileges_drop(namespace: Namespace, tmp_path: Path) -> None:
    """With ``--uid`` and ``--gid`` the sockets are bound by root, and served by that user."""
    log = tmp_path / "log"
    user = ("-n", "--pidfile=", "--uid=65534", "--gid=65534")
    path = tmp_path / "rpc.sock"
    started = namespace.start(TWISTD, *user, "portmapd", "--rpc-socket", str(path), log=log)

    def has_dropped() -> bool:
        status = namespace.run("cat", f"/proc/{started.pid}/status")
        ids = [
            re.search(rf"^{name}:(\s+65534){{4}}$", status, re.MULTILINE) for name in ("Uid", "Gid")
        ]
        return all(ids)

    eventually(has_dropped, "it has given its privileges away")
    for host, kind in (("127.0.0.1", UDP), ("127.0.0.1", TCP), ("::1", UDP), ("::1", TCP)):
        with connect(kind, host, 111, make=namespace.make_socket) as skt:
            exchange(skt, NULL)
    with connect_local(str(path)) as skt:
        exchange(skt, question(2, 1, encode_pmap(Pmap(200100, 1, 17, 4000))))
    assert started.stop() == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.programs("sysctl")
def test_no_ipv6(namespace: Namespace, tmp_path: Path) -> None:
    """A host without IPv6 is not an error: IPv4 is served, and nothing of IPv6 listed."""
    namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    with portmapd(namespace, tmp_path):
        assert "::1 is not served: no IPv6 here" in (tmp_path / "portmapd.log").read_text()
        for kind in (UDP, TCP):
            with connect(kind, "127.0.0.1", 111, make=namespace.make_socket) as skt:
                assert b"udp6" not in exchange(skt, question(4, 4))


@pytest.mark.programs("sysctl")
def test_free_port(namespace: Namespace, tmp_path: Path) -> None:
    """With port 0, one is chosen that is free over UDP and over TCP."""
    namespace.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40003")
    taken = [namespace.make_socket(socket.AF_INET, TCP) for _ in range(3)]
    for number, skt in enumerate(taken):
        skt.bind(("127.0.0.1", 40000 + number))
        skt.listen()
    path = tmp_path / "rpc.sock"
    with portmapd(namespace, tmp_path, "--port=0", f"--rpc-socket={path}", socket=str(path)):
        own = question(2, 3, encode_pmap(Pmap(100000, 2, 6, 0)))
        with connect_local(str(path)) as skt:
            assert Reader(decode_reply(exchange(skt, own))).uint() == 40003
    for skt in taken:
        skt.close()
