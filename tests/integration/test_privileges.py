"""What the daemon may do once its sockets are bound."""

import re
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portmapd.oncrpc.program import Pmap, encode_pmap
from tests.integration.conftest import OURS
from tests.support.daemon import ERRORS, TWISTD
from tests.support.exchange import connect, exchange, question
from tests.support.namespace import TOP, Namespace, Started, eventually

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
CHANNEL = "/run/portmapd/portmapd.sock"
PORTMAPCTL = str(Path(TWISTD).with_name("portmapctl"))
#: Root's own are kept out of the way of other users in some checkouts.
READ = "dac_read_search"
SYS_PTRACE = 1 << 19


@contextmanager
def started(namespace: Namespace, log: Path, *command: str) -> Iterator[Started]:
    """Run a daemon in the block, ended by SIGTERM after it."""
    daemon = namespace.start(*command, log=log)
    eventually(lambda: " serving " in log.read_text() or not daemon.running(), "it serves")
    assert daemon.running(), log.read_text()
    yield daemon
    assert daemon.stop() == 0
    assert not any(error in log.read_text() for error in ERRORS), log.read_text()


def status(namespace: Namespace, daemon: Started) -> dict[str, str]:
    """The lines of ``/proc/PID/status``."""
    text = namespace.run("cat", f"/proc/{daemon.pid}/status")
    return dict(re.findall(r"(?m)^(\w+):\s+(.*)$", text))


def capabilities(namespace: Namespace, daemon: Started) -> set[int]:
    """The sets of capabilities that it holds, other than none, as bits; the bounding set aside."""
    found = status(namespace, daemon)
    return {int(found[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Amb")} - {0}


def public(namespace: Namespace) -> str:
    """What is listed when root registers a public service; its executable is where all may look."""
    namespace.run("mount", "-t", "tmpfs", "tmpfs", "/opt")
    namespace.run("mkdir", "/opt/python")
    namespace.run("mount", "--bind", sys.base_prefix, "/opt/python")
    python = f"/opt/python/bin/{Path(sys.executable).resolve().name}"
    ctl = (python, PORTMAPCTL, "--socket", CHANNEL)
    run = (*ctl, "run", "--public", "x.example.com", "5000", "--", *ctl, "services")
    packages = f"{TOP}:{sysconfig.get_path('purelib')}"
    return namespace.run(*run, status=None, env={"PYTHONPATH": packages})


def test_drop(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """Nothing is held by the user who serves, who needs nothing for all that is served."""
    served = ("portmapd", "--interface=0.0.0.0", "--interface=::", "--callit=all")
    command = (TWISTD, "-n", "--pidfile=", "--uid=65534", *served)
    with started(namespace, tmp_path / "log", *command) as daemon:
        assert capabilities(namespace, daemon) == set()
        found = status(namespace, daemon)
        assert (found["NoNewPrivs"], int(found["CapBnd"], 16)) == ("1", 0)
        assert found["Uid"].split() == ["65534"] * 4
        assert "0" not in found["Groups"].split()
        # Both sockets of an address, and a SET, for which the sockets of the host are looked at.
        for where, host in ((namespace, "127.0.0.1"), (namespace, OURS), (elsewhere, OURS)):
            for kind in (UDP, TCP):
                with connect(kind, host, 111, make=where.make_socket) as skt:
                    exchange(skt, question(2, 0))
        namespace.run("rpcinfo", "-T", "udp", "127.0.0.1", "100000", "2")
        with connect(TCP, "127.0.0.1", 111, make=namespace.make_socket) as skt:
            exchange(skt, question(2, 1, encode_pmap(Pmap(200_100, 1, 17, 4000))))
        # A new interface is joined for broadcasts.
        namespace.run("ip", "link", "add", "n0", "type", "veth", "peer", "name", "n1")
        namespace.run("ip", "link", "set", "n0", "up")
        namespace.run("ip", "link", "set", "n1", "up")
        groups = ("cat", "/proc/net/igmp6")
        eventually(
            lambda: re.search(r"n0\s+ff020000000000000000000000000202", namespace.run(*groups)),
            "the group is joined on the new interface",
        )
        assert "the path of the executable of pid" in public(namespace)


def test_read_executables(namespace: Namespace, tmp_path: Path) -> None:
    """The right to read executables is kept if it is asked for, and no other."""
    command = (TWISTD, "-n", "--pidfile=", "--uid=65534", "portmapd", "--read-executables")
    with started(namespace, tmp_path / "log", *command) as daemon:
        assert capabilities(namespace, daemon) == {SYS_PTRACE}
        assert int(status(namespace, daemon)["CapBnd"], 16) == SYS_PTRACE
        said = public(namespace)
        assert re.search(r"(?m)^x\.example\.com\s.*\s/opt/python/bin/python", said), said


@pytest.mark.programs("setpriv")
def test_user(namespace: Namespace, tmp_path: Path) -> None:
    """A user who may bind port 111, but not read executables, keeps neither, and is told so."""
    rights = f"+net_bind_service,+{READ}"
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    caps = (f"--inh-caps={rights}", f"--ambient-caps={rights}")
    options = ("--read-executables", "--local-socket=none", "--port=111")
    command = (*user, *caps, TWISTD, "-n", "--pidfile=", "portmapd", *options)
    with started(namespace, tmp_path / "log", *command) as daemon:
        assert capabilities(namespace, daemon) == set()
        assert status(namespace, daemon)["NoNewPrivs"] == "1"
        assert "executables of other users cannot be read" in (tmp_path / "log").read_text()


def test_root(namespace: Namespace, tmp_path: Path) -> None:
    """Root without ``--uid`` stays root: its files may be anywhere."""
    before = namespace.run("grep", "CapEff", "/proc/self/status").split()[1]
    with started(namespace, tmp_path / "log", TWISTD, "-n", "--pidfile=", "portmapd") as daemon:
        assert status(namespace, daemon)["CapEff"] == before


def test_effective_user(namespace: Namespace) -> None:
    """``--euid`` would keep root's rights, and is refused."""
    said = namespace.run(TWISTD, "-n", "--pidfile=", "--euid", "--uid=65534", "portmapd", status=1)
    assert said.startswith("portmapd: --euid keeps root's rights")
