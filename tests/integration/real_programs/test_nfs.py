"""NFS: the daemons of nfs-utils and NFS-Ganesha register, and NFS clients find them."""

import pwd
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.real_programs.table import ALL_NETIDS, Table, every
from tests.support.namespace import Namespace, eventually

pytestmark = pytest.mark.programs("rpcinfo")

NFS, MOUNTD, RQUOTAD, NLOCKMGR, STATUS = 100_003, 100_005, 100_011, 100_021, 100_024

#: mountd reads what it exports from there: exportfs would also tell the kernel's server.
_ETAB = "printf '/srv\\t*(ro,sec=sys)\\n' >/var/lib/nfs/etab"

_GANESHA = """
NFS_CORE_PARAM {
    Protocols = 3,4; mount_path_pseudo = false;
    Enable_NLM = true; Enable_RQUOTA = true; Enable_UDP = true;
}
NFSV4 {
    Graceless = true; RecoveryBackend = fs; RecoveryRoot = /var/lib/nfs/ganesha;
    Lease_Lifetime = 5; Grace_Period = 5;
}
EXPORT {
    Export_Id = 77; Path = /mem; Pseudo = /mem; Access_Type = RW; Squash = None;
    SecType = sys,none; FSAL { Name = MEM; }
}
"""


@pytest.mark.programs("rpc.statd")
def test_statd(portmapper: Namespace, table: Callable[[], Table], tmp_path: Path) -> None:
    """rpc.statd registers as the user it runs as, answers, and is gone after SIGTERM."""
    statd = portmapper.start("rpc.statd", "-F", "-d", log=tmp_path / "statd.log")
    eventually(lambda: table().of(STATUS) == every("1", ALL_NETIDS), "rpc.statd registered")
    assert table().owners(STATUS) == {str(pwd.getpwnam("statd").pw_uid)}
    for transport in ("-u", "-t"):
        said = portmapper.run("rpcinfo", transport, "127.0.0.1", str(STATUS), "1")
        assert said == f"program {STATUS} version 1 ready and waiting\n"
    statd.stop()
    assert table().others() == set()


@pytest.mark.programs("rpc.mountd", "showmount")
def test_mountd(portmapper: Namespace, table: Callable[[], Table], tmp_path: Path) -> None:
    """rpc.mountd registers, shows its exports over IPv4 and IPv6, and is gone after SIGTERM."""
    portmapper.run("sh", "-c", _ETAB)
    mountd = portmapper.start("rpc.mountd", "-F", "-d", "all", log=tmp_path / "mountd.log")
    eventually(lambda: table().of(MOUNTD) == every("1 2 3", ALL_NETIDS), "rpc.mountd registered")
    for host in ("127.0.0.1", "::1"):
        assert portmapper.run("showmount", "-e", host) == f"Export list for {host}:\n/srv *\n"
    mountd.stop()
    assert table().others() == set()


@pytest.mark.programs("ganesha.nfsd", "nfs-ls", "nfs-cp", "nfs-cat")
def test_ganesha(portmapper: Namespace, table: Callable[[], Table], tmp_path: Path) -> None:
    """ganesha.nfsd registers all it serves, keeps a file, and is gone after SIGTERM."""
    config, log = tmp_path / "ganesha.conf", tmp_path / "ganesha.log"
    config.write_text(_GANESHA)
    ganesha = portmapper.start(
        *("ganesha.nfsd", "-F", "-L", str(log), "-f", str(config), "-p", "/run/ganesha/pid"),
        log=tmp_path / "ganesha.out",
    )
    served = {
        NFS: every("3 4", ALL_NETIDS),
        MOUNTD: every("1 3", ALL_NETIDS),
        NLOCKMGR: every("4", ALL_NETIDS),
        RQUOTAD: every("1 2", ALL_NETIDS),
    }
    eventually(
        lambda: {program: table().of(program) for program in served} == served,
        "ganesha.nfsd registered",
    )
    eventually(lambda: "NFS SERVER INITIALIZED" in log.read_text(), "ganesha.nfsd serves")
    file = tmp_path / "file"
    file.write_bytes(bytes(5000))
    portmapper.run("nfs-cp", str(file), "nfs://127.0.0.1/mem/file")
    assert re.search(r"\b5000 file$", portmapper.run("nfs-ls", "nfs://127.0.0.1/mem"), re.MULTILINE)
    assert len(portmapper.run("nfs-cat", "nfs://127.0.0.1/mem/file")) == 5000
    ganesha.stop()
    assert table().others() == set()
