"""The examples of the documentation, run as they stand there."""

import shlex
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tests.support.console_session import play
from tests.support.daemon import TWISTD
from tests.support.namespace import PATH, TOP, Namespace, eventually

EXAMPLES = TOP / "docs" / "examples" / "rpcbind"


@pytest.fixture
def host(namespace: Namespace) -> Namespace:
    """Give a namespace like the host of the examples: addresses, a log directory, /opt/portmapd."""
    namespace.run("ip", "addr", "add", "192.0.2.1/24", "dev", "lo")
    namespace.run("ip", "addr", "add", "198.51.100.1/24", "dev", "lo")
    for folder in ("/var/log", "/opt"):
        namespace.run("mount", "-t", "tmpfs", "tmpfs", folder)
    namespace.run("ln", "-s", str(Path(TWISTD).parents[1]), "/opt/portmapd")
    return namespace


@pytest.mark.programs("rpcinfo", "rpc.statd", "ps")
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.console")), ids=lambda path: path.stem)
def test_session(host: Namespace, example: Path) -> None:
    """Each command of a session prints what the page shows."""
    play(host, example.read_text(), f"/opt/portmapd/bin:{PATH}")


@pytest.mark.programs("rpcinfo")
def test_systemd_unit(host: Namespace) -> None:
    """The unit's command serves when it returns, its pid file names the daemon, SIGTERM ends it."""
    unit = RawConfigParser(strict=False)
    unit.read_string((EXAMPLES / "service.conf").read_text().replace("\\\n", ""))
    host.run(*shlex.split(unit["Service"]["ExecStart"]))
    ask = ("rpcinfo", "-T", "udp", "192.0.2.1", "100000", "2")
    assert host.run(*ask) == "program 100000 version 2 ready and waiting\n"
    pid = host.run("cat", unit["Service"]["PIDFile"]).strip()
    host.run("kill", pid)
    eventually(lambda: "ended" in host.run("sh", "-c", f"kill -0 {pid} || echo ended"), "its end")


@pytest.mark.programs("systemd-analyze")
def test_systemd_accepts(tmp_path: Path, host: Namespace) -> None:
    """systemd takes both additions to rpcbind's units without a complaint."""
    for unit in ("service", "socket"):
        folder = tmp_path / f"rpcbind.{unit}.d"
        folder.mkdir()
        (folder / "portmapd.conf").write_bytes((EXAMPLES / f"{unit}.conf").read_bytes())
    path = {"SYSTEMD_UNIT_PATH": f"{tmp_path}:/lib/systemd/system:/usr/lib/systemd/system"}
    assert (
        host.run("systemd-analyze", "verify", "rpcbind.service", "rpcbind.socket", env=path) == ""
    )
