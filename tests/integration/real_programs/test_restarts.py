"""Restarts of the port mapper beside running servers: all of them stay registered."""

import signal
import time
from pathlib import Path

import pytest

from tests.integration.real_programs.table import ALL_NETIDS, Table, every
from tests.integration.real_programs.test_nfs import _ETAB, _GANESHA
from tests.integration.real_programs.test_nis import _MAP
from tests.support.daemon import portmapd, start_portmapd
from tests.support.namespace import Namespace, Started, eventually

pytestmark = pytest.mark.programs(
    "rpcinfo", "rpcbind", "ypserv", "makedbm", "rpc.statd", "rpc.mountd", "ganesha.nfsd"
)

#: The programs that each server registers last.
NFS, YPSERV, MOUNTD, STATUS = 100_003, 100_004, 100_005, 100_024
#: The file is not further behind, in seconds.
BEHIND = 1.0


class Servers:
    """ypserv, rpc.statd, and rpc.mountd or ganesha.nfsd, whose mount programs are the same."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        self._folder = folder

    def start(self, nfs: str) -> Table:
        """Start them, and give what is registered then.

        :param nfs: rpc.mountd or ganesha.nfsd.
        """
        self._namespace.run("sh", "-c", _MAP)
        self._namespace.run("sh", "-c", _ETAB)
        config = self._folder / "ganesha.conf"
        config.write_text(_GANESHA)
        ganesha = ("-L", str(self._folder / "g.log"), "-f", str(config), "-p", "/run/ganesha/pid")
        last = {"rpc.mountd": (MOUNTD, "1 2 3"), "ganesha.nfsd": (NFS, "3 4")}[nfs]
        commands = {
            "ypserv": ("-f",),
            "rpc.statd": ("-F",),
            nfs: ("-F", *(ganesha if nfs == "ganesha.nfsd" else ())),
        }
        for name, options in commands.items():
            self._namespace.start(name, *options, log=self._folder / f"{name}.out")
        for program, versions in ((YPSERV, "2"), (STATUS, "1"), last):
            self._await(program, every(versions, ALL_NETIDS))
        # ganesha registers several programs, one after the other.
        eventually(lambda: self.table() == self._later(), "all are registered")
        return self.table()

    def _await(self, program: int, wanted: set[tuple[int, str]]) -> None:
        eventually(lambda: wanted <= self.table().of(program), f"program {program} is registered")

    def _later(self) -> Table:
        before = self.table()
        time.sleep(0.3)
        return self.table() if self.table() == before else before

    def table(self) -> Table:
        """What rpcinfo shows, in a fixed order, but for the port mapper itself."""
        rows = Table.parse(self._namespace.run("rpcinfo")).rows
        others = [row for row in rows if row.program != 100_000]
        return Table(tuple(sorted(others, key=str)))


@pytest.fixture
def servers(namespace: Namespace, tmp_path: Path) -> Servers:
    """Give servers that are not started yet."""
    return Servers(namespace, tmp_path)


def remove_socket(namespace: Namespace) -> None:
    """Remove what an earlier port mapper left: the next one serves once its own is there."""
    namespace.run("rm", "-f", "/run/rpcbind.sock")


def start(namespace: Namespace, log: Path, *options: str) -> Started:
    """Start portmapd."""
    remove_socket(namespace)
    return start_portmapd(namespace, log, *options)


@pytest.mark.parametrize("nfs", ["rpc.mountd", "ganesha.nfsd"])
def test_restart_and_kill(namespace: Namespace, servers: Servers, tmp_path: Path, nfs: str) -> None:
    """A SIGKILL and a restart leave every server registered, with its owner."""
    daemon = start(namespace, tmp_path / "first.log")
    before = servers.start(nfs)
    assert {row.owner for row in before.rows if row.program == STATUS} != {"superuser"}
    time.sleep(BEHIND)
    daemon.stop(signal.SIGKILL)
    daemon = start(namespace, tmp_path / "second.log")
    assert servers.table() == before
    daemon.stop()
    with portmapd(namespace, tmp_path):
        assert servers.table() == before
        said = namespace.run("rpcinfo", "-u", "127.0.0.1", "status", "1")
        assert said == f"program {STATUS} version 1 ready and waiting\n"


def start_rpcbind(namespace: Namespace, log: Path) -> Started:
    """Start ``rpcbind -w``."""
    remove_socket(namespace)
    namespace.run("chown", "_rpc:", "/run/rpcbind")
    started = namespace.start("rpcbind", "-w", "-f", log=log)
    eventually(lambda: "superuser" in namespace.run("rpcinfo", status=None), "rpcbind serves")
    return started


def test_from_rpcbind(namespace: Namespace, servers: Servers, tmp_path: Path) -> None:
    """What rpcbind -w leaves at its end is taken over, owners included, and kept from then on."""
    rpcbind = start_rpcbind(namespace, tmp_path / "rpcbind.log")
    before = servers.start("rpc.mountd")
    rpcbind.stop()
    daemon = start(namespace, tmp_path / "first.log", "--import-rpcbind")
    assert servers.table() == before
    time.sleep(BEHIND)
    daemon.stop(signal.SIGKILL)
    remove_socket(namespace)
    with portmapd(namespace, tmp_path):
        assert servers.table() == before


def test_rpcbind_is_killed(namespace: Namespace, servers: Servers, tmp_path: Path) -> None:
    """The peer: rpcbind -w has lost every server after a SIGKILL."""
    rpcbind = start_rpcbind(namespace, tmp_path / "rpcbind.log")
    assert servers.start("rpc.mountd").rows
    rpcbind.stop(signal.SIGKILL)
    start_rpcbind(namespace, tmp_path / "rpcbind.log")
    assert servers.table().rows == ()
