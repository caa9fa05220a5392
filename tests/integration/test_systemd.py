"""The units: checked by systemd, measured by it, and run by it."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.real_programs.table import ALL_NETIDS, Table, every
from tests.support.namespace import TOP, Namespace, eventually
from tests.support.systemd import UNITS, booted

MOUNTD = 100_005
DEBIAN = Path("/lib/systemd/system")
LOG = "/run/portmapd.log"

#: The service logs where a test can read it.
LOGGED = f"""
[Service]
StandardOutput=append:{LOG}
StandardError=append:{LOG}
"""
#: It starts late: mountd is there before.
_LATE = f"{LOGGED}ExecStartPre=/bin/sleep 0.5\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Namespace]:
    """Give a host that systemd has booted, with rpc.mountd ordered as Debian orders it."""
    mountd = (DEBIAN / "nfs-mountd.service").read_text()
    # The kernel's own NFS is none of the test's.
    mountd = re.sub(r"(?m)^(Requires|After|BindsTo)=(proc-fs-nfsd|nfs-server).*\n", "", mountd)
    assert "After=rpcbind.socket\n" in mountd
    units = {
        "nfs-mountd.service": mountd,
        "portmapd.service.d/late.conf": _LATE,
        "test.target.d/wants.conf": "[Unit]\nWants=nfs-mountd.service portmapd.service\n",
    }
    with booted(tmp_path, units) as made:
        yield made


def table(host: Namespace) -> Table:
    """What the port mapper lists."""
    return Table.parse(host.run("rpcinfo"))


def show(host: Namespace, name: str) -> str:
    """A property of the service."""
    return host.run("systemctl", "show", "--value", "-p", name, "portmapd.service").strip()


@pytest.mark.programs("systemctl", "rpc.mountd", "rpcinfo")
def test_boot(host: Namespace) -> None:
    """mountd is started before the port mapper, waits for it, and is registered."""
    eventually(lambda: show(host, "ActiveState") == "active", "the service is ready")
    eventually(lambda: table(host).of(MOUNTD) == every("1 2 3", ALL_NETIDS), "mountd is registered")
    assert show(host, "StatusText").startswith("serving port 111 on 0.0.0.0, :: and /run/rpcb")
    status = host.run("cat", f"/proc/{show(host, 'MainPID')}/status")
    assert set(re.findall(r"(?m)^Cap\w+:\s+(\w+)$", status)) == {"0" * 16}
    uid = host.run("id", "-u", "portmapd").strip()
    assert re.search(rf"(?m)^Uid:(\s+{uid}){{4}}$", status)
    assert re.search(r"(?m)^NoNewPrivs:\s+1$", status)
    assert re.search(r"(?m)^Seccomp:\s+2$", status)

    # A service that is killed is there again; its sockets were there all the time.
    pid = show(host, "MainPID")
    host.run("systemctl", "kill", "-s", "KILL", "portmapd.service")
    assert "ready and waiting" in host.run("rpcinfo", "-T", "tcp", "127.0.0.1", "100000", "2")
    eventually(lambda: show(host, "MainPID") not in {pid, "0"}, "it is started again")
    host.run("systemctl", "stop", "portmapd.service")
    assert show(host, "Result") == "success"
    assert host.run("ls", "/run/portmapd", "/run/rpcbind.sock").split()[-1] == "portmapd.sock"


@pytest.mark.programs("systemctl", "rpcinfo")
def test_reload(tmp_path: Path) -> None:
    """A reload has another process take the service's place, with all its rights, or fails."""
    units = {
        "portmapd.service.d/executables.conf": (UNITS / "executables.conf").read_text(),
        "portmapd.service.d/log.conf": f"{LOGGED}WatchdogSec=2\n",
    }
    with booted(tmp_path, units) as host:
        eventually(lambda: show(host, "ActiveState") == "active", "the service is ready")
        pid = show(host, "MainPID")
        host.run("systemctl", "reload", "portmapd.service")
        eventually(lambda: show(host, "MainPID") not in {pid, "0"}, "another process serves")
        eventually(lambda: show(host, "ActiveState") == "active", "it is ready")
        pid = show(host, "MainPID")
        status = host.run("cat", f"/proc/{pid}/status")
        assert re.search(rf"(?m)^CapEff:\s+{1 << 19:016x}$", status)
        assert "ready and waiting" in host.run("rpcinfo", "-T", "udp", "127.0.0.1", "100000", "2")

        # A version that does not start costs nothing but the reload.
        host.run("sh", "-c", "echo 'raise SystemExit(\"no\")' > /opt/portmapd/lib/portmapd/tap.py")
        host.run("systemctl", "reload", "portmapd.service", status=1)
        assert (show(host, "MainPID"), show(host, "ActiveState")) == (pid, "active")
        assert "no other process takes the place" in host.run("cat", LOG)
        assert "ready and waiting" in host.run("rpcinfo", "-T", "tcp", "127.0.0.1", "100000", "2")
        # Its watchdog goes on, too.
        time.sleep(3)
        assert (show(host, "MainPID"), show(host, "NRestarts")) == (pid, "0")


@pytest.mark.programs("systemctl", "rpcinfo")
def test_watchdog(tmp_path: Path) -> None:
    """A service whose event loop stands still is ended, and started again."""
    units = {"portmapd.service.d/watchdog.conf": "[Service]\nWatchdogSec=1\n"}
    with booted(tmp_path, units) as host:
        eventually(lambda: show(host, "ActiveState") == "active", "the service is ready")
        pid = show(host, "MainPID")
        host.run("kill", "-STOP", pid)
        eventually(lambda: show(host, "MainPID") not in {pid, "0"}, "it is started again")
        eventually(lambda: show(host, "ActiveState") == "active", "it is ready again")
        assert "ready and waiting" in host.run("rpcinfo", "-T", "udp", "127.0.0.1", "100000", "2")


@pytest.mark.programs("systemctl", "rpcinfo")
def test_additions(tmp_path: Path) -> None:
    """With the page's additions, this host alone is served, and executables are read."""
    units = {
        "portmapd.service.d/executables.conf": (UNITS / "executables.conf").read_text(),
        "portmapd.socket.d/this-host.conf": (UNITS / "this-host.conf").read_text(),
        "portmapd.service.d/log.conf": LOGGED,
    }
    with booted(tmp_path, units) as host:
        eventually(lambda: show(host, "ActiveState") == "active", "the service is ready")
        assert show(host, "StatusText").startswith("serving port 111 on 127.0.0.1, ::1 and /run/")
        status = host.run("cat", f"/proc/{show(host, 'MainPID')}/status")
        assert re.search(rf"(?m)^CapEff:\s+{1 << 19:016x}$", status)
        assert "cannot be read" not in host.run("cat", LOG)
        for transport in ("udp", "tcp"):
            asked = ("rpcinfo", "-T", transport, "127.0.0.1", "100000", "2")
            assert "ready and waiting" in host.run(*asked)


@pytest.mark.programs("systemd-analyze")
def test_verified(namespace: Namespace, tmp_path: Path) -> None:
    """systemd takes the units without a complaint, and measures a low exposure."""
    namespace.run("mount", "-t", "tmpfs", "tmpfs", "/opt")
    namespace.run("mkdir", "-p", "/opt/portmapd/bin")
    for program in ("twistd", "portmapctl"):
        namespace.run("ln", "-s", "/bin/true", f"/opt/portmapd/bin/{program}")
    units = [str(UNITS / f"portmapd.{kind}") for kind in ("service", "socket")]
    assert namespace.run("systemd-analyze", "verify", *units) == ""
    ours = exposure(namespace, units[0])
    assert ours <= 2.0
    theirs = exposure(namespace, str(DEBIAN / "rpcbind.service"))
    page = (TOP / "docs" / "replace-rpcbind.rst").read_text()
    assert f"rates the exposure of the unit at {ours} of 10" in " ".join(page.split())
    assert f"``rpcbind.service`` at {theirs}:" in page


def exposure(namespace: Namespace, unit: str) -> float:
    """The exposure of a unit, from 0 to 10."""
    said = namespace.run("systemd-analyze", "security", "--offline=true", unit)
    return float(re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)[0])
