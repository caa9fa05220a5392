"""The examples of RPC servers, with clients of others, and with each kind of port mapper."""

import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from random import Random

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from portmapd.errors import GarbageArguments, ProcedureUnavailable
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import Call, decode_reply, encode_call
from portmapd.oncrpc.netid import TCP
from portmapd.rpc.call_server import ProgramServer
from portmapd.server.rate_limited_log import RateLimitedLog
from tests.support.console_session import play
from tests.support.daemon import TWISTD, portmapd
from tests.support.namespace import PATH, TOP, Namespace, Started, eventually
from tests.support.rpc_samples import loopback

EXAMPLES = TOP / "docs" / "examples" / "rpc"
BROADCAST = "10.99.0.255"

#: Finds instruments by a broadcast, and asks the first one.
_ASK = f"""
import vxi11
(host,) = vxi11.list_devices({BROADCAST!r})
instrument = vxi11.Instrument(host)
print(instrument.ask("*IDN?"), instrument.ask("MEAS:VOLT?"))
instrument.write("MEAS:VOLT?")
print(instrument.read_raw(3), instrument.read_raw())
instrument.close()
other = vxi11.Instrument(host)
try:
    other.ask("nonsense")
except vxi11.vxi11.Vxi11Exception as error:
    print(error)
"""
_ANSWERS = """\
Example,Voltmeter,1,1.0 +1.25000E+00
b'+1.' b'25000E+00\\n'
15: IO timeout [read]
"""

#: Stands in for a Python that everyone can read, which need not be the one that runs the tests.
READS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")

#: What serves port 111: nobody before the example, rpcbind, or portmapd.
MAPPERS = ("none", "rpcbind", "portmapd")


@contextmanager
def rpcbind(namespace: Namespace, folder: Path) -> Iterator[None]:
    """Run rpcbind in the block."""
    started = namespace.start("rpcbind", "-f", log=folder / "rpcbind.log")
    eventually(lambda: "portmapper" in namespace.run("rpcinfo", status=None), "rpcbind serves")
    try:
        yield
    finally:
        started.stop()


@pytest.fixture(params=MAPPERS)
def mapped(
    request: pytest.FixtureRequest, namespace: Namespace, tmp_path: Path
) -> Iterator[Namespace]:
    """Give a host with each kind of port mapper."""
    if request.param == "rpcbind":
        with rpcbind(namespace, tmp_path):
            yield namespace
    elif request.param == "portmapd":
        with portmapd(namespace, tmp_path, "--interface", "0.0.0.0"):
            yield namespace
    else:
        yield namespace


@contextmanager
def running(namespace: Namespace, folder: Path, example: str, *words: str) -> Iterator[Started]:
    """Run an example in the block. It says when it is registered, and unregisters at its end."""
    log = folder / f"{example}.log"
    command = (sys.executable, str(EXAMPLES / example), *words)
    server = namespace.start(*command, log=log)
    eventually(
        lambda: "registered with" in log.read_text() or not server.running(), f"{example} serves"
    )
    assert server.running(), log.read_text()
    yield server
    assert server.stop() in (0, -15), log.read_text()
    assert "Traceback" not in log.read_text()


def rows(namespace: Namespace) -> set[str]:
    """What is registered, but for the port mapper: program, version, netid, address."""
    said = namespace.run("rpcinfo", "127.0.0.1", status=None)
    found = re.findall(r"^ +(\d+ +\d+ +\w+ +\S+)", said, re.MULTILINE)
    return {row for row in found if not row.startswith("100000 ")}


def programs(namespace: Namespace) -> set[str]:
    """The programs that are registered, but for the port mapper."""
    return {row.split()[0] for row in rows(namespace)}


@pytest.mark.broadcast
@pytest.mark.programs("rpcinfo", "rpcbind")
def test_instrument(mapped: Namespace, tmp_path: Path) -> None:
    """python-vxi11 finds the instrument by a broadcast, and asks it."""
    with running(mapped, tmp_path, "instrument.py"):
        said = mapped.run(sys.executable, "-W", "ignore", "-c", _ASK)
        assert said == _ANSWERS
        assert programs(mapped) == {"395183"}
    assert programs(mapped) == set()


@pytest.mark.programs("rpcinfo", "rpcbind")
def test_restarted(namespace: Namespace, tmp_path: Path) -> None:
    """A server stays registered over a restart of rpcbind, and when portmapd takes its place."""
    with ExitStack() as ends:
        with rpcbind(namespace, tmp_path):
            ends.enter_context(running(namespace, tmp_path, "instrument.py"))
            before = rows(namespace)
            assert len(before) == 4
        with rpcbind(namespace, tmp_path):
            eventually(lambda: rows(namespace) == before, "it is registered again")
        ends.enter_context(portmapd(namespace, tmp_path))
        eventually(lambda: rows(namespace) == before, "it is registered with portmapd")
        ends.pop_all().close()


@pytest.mark.programs("rpcinfo")
def test_as_a_user(namespace: Namespace, tmp_path: Path) -> None:
    """A user who may not bind port 111 has a port mapper on 10111."""
    user = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", *READS)
    log = tmp_path / "instrument.log"
    command = (sys.executable, str(EXAMPLES / "instrument.py"))
    server = namespace.start(*user, *command, log=log)
    eventually(lambda: "registered with" in log.read_text(), "it is registered")
    assert "a port mapper of its own at port 10111" in log.read_text()
    assert server.stop() in (0, -15)


@pytest.mark.programs("rpcinfo", "rpcbind")
def test_two(namespace: Namespace, tmp_path: Path) -> None:
    """A second server of the same program leaves it to the first, and says so."""
    with rpcbind(namespace, tmp_path), running(namespace, tmp_path, "instrument.py"):
        said = namespace.run(sys.executable, str(EXAMPLES / "instrument.py"), status=1)
        assert "instrument.py: program 395183 version 1 on " in said
        assert "where somebody serves it" in said
        assert "Traceback" not in said


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Give a directory with files, which everyone may read but one of them."""
    made = tmp_path / "exported"
    (made / "more").mkdir(parents=True)
    (made / "greeting").write_text("hello\n")
    (made / "more" / "data").write_bytes(bytes(range(256)) * 1_000)
    for number in range(300):
        (made / "more" / f"file-with-a-long-name-{number}").touch()
    for path in made.rglob("*"):
        # Whatever the umask is.
        path.chmod(0o755)
    (made / "link").symlink_to("/etc/passwd")
    secret = made / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    return made


@pytest.mark.programs("rpcinfo", "rpcbind", "nfs-ls", "nfs-cat", "nfs-cp", "showmount", "mount.nfs")
def test_nfs(mapped: Namespace, exported: Path, tmp_path: Path) -> None:
    """The clients of libnfs list and read the directory; mount.nfs gets to the kernel."""
    with running(mapped, tmp_path, "nfs_server.py", str(exported)):
        url = f"nfs://127.0.0.1{exported}"
        assert programs(mapped) == {"100003", "100005"}
        assert f"{exported} (everyone)" in mapped.run("showmount", "-e", "127.0.0.1")
        rows = [row.split()[-2:] for row in mapped.run("nfs-ls", url).splitlines()]
        assert sorted(name for _, name in rows) == ["greeting", "link", "more"]
        assert ["6", "greeting"] in rows
        assert mapped.run("nfs-cat", f"{url}/greeting") == "hello\n"
        assert len(mapped.run("nfs-ls", f"{url}/more").splitlines()) == 301
        copied = tmp_path / "copied"
        mapped.run("sh", "-c", f"nfs-cat {url}/more/data >{copied}")
        assert copied.read_bytes() == (exported / "more" / "data").read_bytes()
        _check_refusals(mapped, url, exported)
        _check_mount(mapped, exported, tmp_path)
    assert programs(mapped) == set()


def _check_refusals(host: Namespace, url: str, exported: Path) -> None:
    """What not everyone may read, what is outside, and every write is refused."""
    assert "NFS3ERR_ACCES" in host.run("nfs-cat", f"{url}/secret", status=None)
    assert "MNT3ERR_NOENT" in host.run("nfs-ls", "nfs://127.0.0.1/etc", status=None)
    assert "MNT3ERR_NOENT" in host.run("nfs-ls", f"{url}/../..", status=None)
    assert "root:" not in host.run("nfs-cat", f"{url}/link/../../etc/passwd", status=None)
    file = exported / "greeting"
    assert "NFS3ERR_ROFS" in host.run("nfs-cp", str(file), f"{url}/new", status=None)


def _check_mount(host: Namespace, exported: Path, folder: Path) -> None:
    """A kernel with NFS mounts it; without, mount.nfs has found both programs, and says so."""
    at = folder / "mounted"
    at.mkdir()
    words = ("-v", "-o", "vers=3,nolock,retry=0", f"127.0.0.1:{exported}", str(at))
    said = host.run("mount.nfs", *words[3:], *words[:3], status=None)
    assert "prog 100005 vers 3 prot UDP port" in said
    if "No such device" not in said:
        assert host.run("cat", str(at / "greeting")) == "hello\n"
        host.run("umount", str(at))


def test_nfs_takes_anything(exported: Path, logged_errors: list[LogEvent]) -> None:
    """Whatever the arguments of a call are, the server of NFS has a status for it."""
    module = runpy.run_path(str(EXAMPLES / "nfs_server.py"))
    folder = module["Nfs"](str(exported))
    programs = module["nfs"](folder), module["mount"](folder)
    clock, random = Clock(), Random(7)
    server = ProgramServer(programs, clock, RateLimitedLog(clock))
    root = module["handle_of"](exported.lstat())
    names = (b"", b".", b"..", b"a/b", b"a\0b", b"greeting", b"\xff" * 255, b"x" * 1_024, b"more")
    numbers = (0, 1, 8, 4_096, 2**31, 2**32 - 1)
    for program, procedure in product(programs, range(23)):
        for _ in range(40):
            words = [
                random.choice((xdr.opaque(root), xdr.opaque(random.randbytes(8)), b"")),
                *random.choices([*map(xdr.opaque, names), *map(xdr.uint, numbers)], k=4),
            ]
            arguments = b"".join(words[random.randrange(2) :])
            call = Call(1, program.number, 3, procedure, arguments=arguments)
            with suppress(GarbageArguments, ProcedureUnavailable):
                reply = server.serve(encode_call(call), loopback(TCP), lambda reply: None)
                decode_reply(reply or b"")
    assert logged_errors == []


@pytest.mark.programs("rpcinfo", "nfs-ls", "nfs-cat", "showmount")
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.console")), ids=lambda path: path.stem)
def test_session(namespace: Namespace, tmp_path: Path, example: Path) -> None:
    """Each command of a session prints what the page shows."""
    for program in EXAMPLES.glob("*.py"):
        shutil.copy(program, tmp_path)
    play(namespace, example.read_text(), f"{Path(TWISTD).parent}:{PATH}", tmp_path)
    assert not any("Traceback" in log.read_text() for log in tmp_path.glob("*.log"))
