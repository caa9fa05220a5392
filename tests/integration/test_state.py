"""Mappings outlive the daemon, and nobody can have it take others for them."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portmapd.oncrpc import xdr
from portmapd.oncrpc.netid import format_address
from portmapd.oncrpc.program import PROGRAM, Rpcb, RpcbProcedure, encode_rpcb
from portmapd.registry.mapping import mapping
from portmapd.registry.snapshot import (
    SavedMapping,
    decode_snapshot,
    encode_lines,
    encode_saved,
    encode_snapshot,
)
from portmapd.server.boot import this_boot
from portmapd.server.state_file import SLOTS
from tests.integration.real_programs.table import Table
from tests.support.daemon import TWISTD, start_portmapd
from tests.support.kills import BEHIND, Victim, run_kills
from tests.support.namespace import Namespace, eventually
from tests.unit.server.test_bound_sockets import UDP, opened

root = pytest.mark.skipif(os.geteuid() != 0, reason="to be several users takes root")

SET, UNSET = RpcbProcedure.RPCBPROC_SET, RpcbProcedure.RPCBPROC_UNSET


@contextmanager
def victim(folder: Path, *options: str, name: str = "first") -> Iterator[Victim]:
    """Have a daemon in the block that may be killed there, and is in the end."""
    own = folder / name
    own.mkdir()
    made = Victim(own, folder / "state" / "mappings", *options)
    made.spawn()
    try:
        made.connect()
        yield made
    finally:
        made.close()


def change(daemon: Victim, procedure: RpcbProcedure, program: int, address: str) -> None:
    """Have a mapping set or unset."""
    assert daemon.ask(procedure, encode_rpcb(Rpcb(program, 1, "udp", address))).boolean()


def events(folder: Path, told: str, name: str = "first") -> list[str]:
    """The lines of a daemon's log with these words."""
    return [line for line in (folder / name / "log").read_text().splitlines() if told in line]


def address_of(skt: socket.socket) -> str:
    """The universal address of a socket."""
    return format_address(*skt.getsockname())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_end(tmp_path: Path, number: signal.Signals) -> None:
    """A service stays registered with its owner, whatever ends the daemon; a dead one does not."""
    with opened(UDP, "127.0.0.1") as alive, victim(tmp_path) as daemon:
        with opened(UDP, "127.0.0.1") as dead:
            change(daemon, SET, 7, address_of(alive))
            change(daemon, SET, 8, address_of(dead))
            before = daemon.table()
            if number is signal.SIGKILL:
                time.sleep(BEHIND)
            daemon.kill(number)
        daemon.spawn()
        daemon.connect()
        assert daemon.table() == {7: before[7]}
        change(daemon, UNSET, 7, "")
        daemon.kill(signal.SIGTERM)
        daemon.spawn()
        daemon.connect()
        assert daemon.table() == {}


def valid() -> bytes:
    """A state file whose mapping is registered if it is obeyed."""
    saved = SavedMapping(mapping(7, 1, "udp", "127.0.0.1.0.9", "superuser"))
    boot = this_boot()
    return b"".join(
        encode_snapshot(boot.name, boot.seconds(), [encode_lines([encode_saved(saved)])])
    )


def write(data: bytes, mode: int = 0o600) -> Callable[[Path], None]:
    """Puts a file in place."""

    def make(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(mode)

    return make


def link(path: Path) -> None:
    """Put a link to a valid file in place."""
    path.with_name("elsewhere").write_bytes(valid())
    path.with_name("elsewhere").chmod(0o600)
    path.symlink_to("elsewhere")


PLANTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (write(b""), "it is empty"),
    "truncated": (write(valid()[:-1]), "its checksum is wrong"),
    "corrupt": (write(valid().replace(b" 9", b" 8")[:-2] + b"8\n"), "its checksum is wrong"),
    "version": (write(valid().replace(b"mappings 1", b"mappings 2")), "it is of version 2"),
    "group": (write(valid(), 0o620), "others may write it"),
    "world": (write(valid(), 0o606), "others may write it"),
    "link": (link, "it is a symbolic link"),
    "directory": (Path.mkdir, "it is a directory"),
    "fifo": (os.mkfifo, "it is a fifo"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_file(tmp_path: Path, kind: str) -> None:
    """CVE-2010-2061: a file that somebody has put in place is set aside, and a new one is made."""
    plant, why = PLANTED[kind]
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    plant(folder / "mappings")
    with victim(tmp_path) as daemon:
        assert daemon.table() == {}
        (line,) = events(tmp_path, "are not taken back")
        assert why in line
        assert line.endswith(f"the file is {folder}/mappings.bad-1 now")
        eventually((folder / "mappings").is_file, "there is a new one")
    assert decode_snapshot((folder / "mappings").read_bytes()).saved == ()
    assert not any("Traceback" in line for line in events(tmp_path, ""))


def test_valid_file(tmp_path: Path) -> None:
    """The same file is obeyed where nobody else can have put it."""
    (tmp_path / "state").mkdir(0o700)
    write(valid())(tmp_path / "state" / "mappings")
    with victim(tmp_path) as daemon:
        assert daemon.table() == {7: ("127.0.0.1.0.9", "superuser")}


@root
def test_file_of_another_user(tmp_path: Path) -> None:
    """CVE-2010-2061: nor is a file obeyed that belongs to somebody else."""
    (tmp_path / "state").mkdir(0o700)
    path = tmp_path / "state" / "mappings"
    write(valid())(path)
    os.chown(path, 65_534, 65_534)
    with victim(tmp_path) as daemon:
        assert daemon.table() == {}
        (line,) = events(tmp_path, "are not taken back")
        assert "it belongs to uid 65534" in line


def test_directory_of_everyone(tmp_path: Path) -> None:
    """CVE-2010-2061 and CVE-2010-2064: where anybody can plant a file, none is read or written."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o1777)
    write(valid())(folder / "mappings")
    with victim(tmp_path) as daemon:
        assert daemon.table() == {}
        change(daemon, SET, 9, "127.0.0.1.0.9")
        time.sleep(BEHIND)
        (line,) = events(tmp_path, "cannot be kept")
        assert f"the directory {folder} can be written by others; trying again" in line
        daemon.kill(signal.SIGTERM)
    assert (folder / "mappings").read_bytes() != b""
    assert [path.name for path in folder.iterdir()] == ["mappings"]


def test_planted_links(tmp_path: Path) -> None:
    """CVE-2010-2064: no link is written through, wherever it is."""
    folder, victims = tmp_path / "state", tmp_path / "precious"
    folder.mkdir(0o700)
    victims.write_bytes(b"precious")
    for name in ("mappings", *(f"mappings{slot}" for slot in SLOTS)):
        (folder / name).symlink_to(victims)
    with victim(tmp_path) as daemon:
        change(daemon, SET, 9, "127.0.0.1.0.9")
        daemon.kill(signal.SIGTERM)
    assert victims.read_bytes() == b"precious"
    (saved,) = decode_snapshot((folder / "mappings").read_bytes()).saved
    assert saved.mapping.program == 9


def test_full_disk(namespace: Namespace, tmp_path: Path) -> None:
    """A full disk is one warning; the mappings are kept once there is room, and not before."""
    namespace.run("mkdir", "/run/small")
    namespace.run("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", "/run/small")
    path = "/run/small/mappings"
    log = tmp_path / "log"
    daemon = start_portmapd(namespace, log, f"--state={path}")
    eventually(lambda: namespace.run("stat", path, status=None).startswith("  File"), "it is kept")
    namespace.run("sh", "-c", "cat /dev/zero >/run/small/filler", status=None)
    namespace.run("python3", "-c", _SET.format(program=200_100))
    eventually(lambda: "cannot be kept" in log.read_text(), "there is a warning")
    namespace.run("python3", "-c", _SET.format(program=200_101))
    assert {200_100, 200_101} <= Table.parse(namespace.run("rpcinfo")).others()
    namespace.run("rm", "/run/small/filler")
    eventually(lambda: "are kept in" in log.read_text(), "it is told")
    saved = decode_snapshot(namespace.run("cat", path).encode()).saved
    assert {each.mapping.program for each in saved} == {200_100, 200_101}
    assert log.read_text().count("cannot be kept in") == 1
    assert namespace.run("ls", "/run/small").split() == ["mappings", "mappings.lock"]
    assert daemon.stop() == 0


#: Sets a mapping over UDP, without any library.
_SET = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect(('127.0.0.1', 111))
s.send(struct.pack('>14I', 1, 0, 2, 100000, 2, 1, 0, 0, 0, 0, {program}, 1, 17, 9))
assert s.recv(100)[-1] == 1
"""


def test_another_user(namespace: Namespace, tmp_path: Path) -> None:
    """With ``--uid``, the default directory is that user's, who has the mappings back."""
    user = ("--uid=65534", "--gid=65534")
    for number in range(2):
        log = tmp_path / f"log{number}"
        daemon = start_portmapd(namespace, log, twistd=(TWISTD, *user))
        if number == 0:
            namespace.run("python3", "-c", _SET.format(program=200_100))
        assert Table.parse(namespace.run("rpcinfo")).others() == {200_100}
        assert daemon.stop() == 0
        namespace.run("rm", "-f", "/run/rpcbind.sock")
    where = "/run/portmapd.state"
    assert namespace.run("stat", "-c", "%a %u", where, f"{where}/mappings").split() == [
        *("700", "65534", "600", "65534")
    ]


class TestImport:
    """The files of ``rpcbind -w``; the tests of real programs have rpcbind itself write them."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> Iterator[tuple[Path, str]]:
        """Give the directory of rpcbind's files, and the address of the one service in it."""
        folder = tmp_path / "rpcbind"
        folder.mkdir(0o755)
        with opened(UDP, "127.0.0.1") as skt:
            address = address_of(skt)
            rows = [
                Rpcb(PROGRAM, 4, "udp", "0.0.0.0.0.111", "superuser"),
                Rpcb(7, 1, "udp", address, str(os.geteuid()) if os.geteuid() else "superuser"),
                Rpcb(8, 1, "udp", address, "12345"),
                Rpcb(9, 1, "udp", "127.0.0.1.0.9", "superuser"),
                Rpcb(10, 1, "udp", address, "unknown"),
            ]
            write(xdr.sequence([encode_rpcb(row) for row in rows]))(folder / "rpcbind.xdr")
            write(xdr.sequence([]))(folder / "portmap.xdr")
            yield folder, address

    def test_bound(self, tmp_path: Path, files: tuple[Path, str]) -> None:
        """What is taken over is bound by its owner; once it is unset, it does not come back."""
        option = f"--import-rpcbind-from={files[0]}"
        with victim(tmp_path, option) as daemon:
            assert daemon.table().keys() == {7, 10}
            assert len(events(tmp_path, "2 mappings of rpcbind are registered")) == 1
            time.sleep(BEHIND)
            change(daemon, UNSET, 7, "")
            daemon.kill(signal.SIGTERM)
            daemon.spawn()
            daemon.connect()
            assert daemon.table().keys() == {10}

    @pytest.mark.parametrize(
        ("plant", "why"),
        [
            (lambda f: f.chmod(0o777), "can be written by others"),
            (lambda f: (f / "rpcbind.xdr").chmod(0o666), "rpcbind.xdr: others may write it"),
            (lambda f: (f / "rpcbind.xdr").write_bytes(b"\0\0\0\1"), "rpcbind.xdr: it is not one"),
            (lambda f: (f / "portmap.xdr").write_bytes(b""), "portmap.xdr: it is not one"),
            (shutil.rmtree, "No such file or directory"),
        ],
    )
    def test_planted(
        self,
        tmp_path: Path,
        files: tuple[Path, str],
        plant: Callable[[Path], object],
        why: str,
    ) -> None:
        """CVE-2010-2061: what anybody may have written, or is damaged, is told and not obeyed."""
        plant(files[0])
        with victim(tmp_path, f"--import-rpcbind-from={files[0]}") as daemon:
            assert daemon.table() == {}
            (line,) = events(tmp_path, "are not taken over")
            assert why in line


def test_kills(tmp_path: Path) -> None:
    """Killed at random moments under load, it loses, resurrects and invents nothing."""
    state = tmp_path / "state" / "mappings"
    seed = int(time.time())
    report = run_kills(tmp_path, state, 6, 1.5, seed, is_patient=True)
    assert not report.faults, (seed, report)
    assert report.changes > 100
