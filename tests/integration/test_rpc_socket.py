"""The rpcbind socket: its file, and who may register over it."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from twisted.internet.threads import deferToThread

from portmapd.errors import ConfigurationError
from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import Rpcb, encode_rpcb
from portmapd.oncrpc.xdr import Reader
from tests.support.embedded import asking, asynchronous, serving
from tests.support.exchange import connect_local, exchange, question, run_as

SET, UNSET = 1, 2


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give the path of the socket."""
    return str(tmp_path / "rpcbind.sock")


def leave_stale(path: str) -> None:
    """Leave a socket's file behind, as a process does that is killed."""
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(path)
        skt.listen()


@asynchronous
async def test_file(path: str) -> None:
    """It is there while the service runs, and everyone may connect, whatever the umask is."""
    mask = os.umask(0o077)
    try:
        async with serving(rpc_socket=path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
            assert os.umask(0o077) == 0o077
    finally:
        os.umask(mask)
    assert not os.path.exists(path)


@asynchronous
async def test_stale(path: str) -> None:
    """A file that a dead process left is replaced."""
    leave_stale(path)
    async with serving(rpc_socket=path), asking(0, path, "local") as client:
        await client.null()


@asynchronous
async def test_live(path: str) -> None:
    """A socket that somebody serves is refused, with advice, and goes on serving."""
    async with serving(rpc_socket=path), asking(0, path, "local") as client:
        with pytest.raises(ConfigurationError, match=f"{path} cannot be used: .*--rpc-socket"):
            async with serving(rpc_socket=path):
                pass
        await client.null()


@asynchronous
async def test_live_but_busy(path: str) -> None:
    """A socket whose server takes no more connections now is not stale either."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(path)
        busy.listen(0)
        waiting.connect(path)
        with pytest.raises(ConfigurationError, match="cannot be used"):
            async with serving(rpc_socket=path):
                pass
        assert os.path.exists(path)


@asynchronous
async def test_no_socket(path: str) -> None:
    """Another kind of file in its place is neither used nor removed."""
    Path(path).write_text("precious")
    with pytest.raises(ConfigurationError, match="it is not a socket"):
        async with serving(rpc_socket=path):
            pass
    assert Path(path).read_text() == "precious"


@asynchronous
async def test_no_folder(path: str) -> None:
    """A folder that does not exist is an error that names the path."""
    with pytest.raises(ConfigurationError, match=f"{path}/below cannot be used"):
        async with serving(rpc_socket=f"{path}/below"):
            pass


@asynchronous
async def test_another_file(path: str) -> None:
    """A socket that somebody else put in its place is not removed."""
    async with serving(rpc_socket=path):
        os.unlink(path)
        leave_stale(path)
    assert os.path.exists(path)


@asynchronous
async def test_removed(path: str) -> None:
    """A file that somebody removed is not missed."""
    async with serving(rpc_socket=path):
        os.unlink(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
@asynchronous
async def test_owners(open_folder: str) -> None:
    """A mapping is its user's: another user may neither remove nor replace it, root may."""
    path = f"{open_folder}/rpcbind.sock"

    async def ask(uid: int, procedure: int, address: str = "") -> bool:
        rpcb = encode_rpcb(Rpcb(200100, 1, "udp", address, "superuser"))
        call = question(3, procedure, rpcb)
        reply = await deferToThread(run_as, uid, lambda: _exchange(path, call))
        return Reader(decode_reply(reply)).boolean()

    async with serving(rpc_socket=path), asking(0, path, "local") as client:
        assert await ask(1000, SET, "0.0.0.0.0.9")
        (row,) = [m for m in await client.dump_addresses() if m.program == 200100]
        assert row.owner == "1000"
        assert not await ask(1001, UNSET)
        assert not await ask(1001, SET, "0.0.0.0.0.10")
        assert await ask(1000, SET, "0.0.0.0.0.10")
        assert await client.getport(200100, 1, socket.IPPROTO_UDP) == 10
        assert await ask(0, UNSET)
        assert await client.getport(200100, 1, socket.IPPROTO_UDP) == 0


@pytest.fixture
def open_folder() -> Iterator[str]:
    """Give a folder that every user may enter."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield folder


def _exchange(path: str, message: bytes) -> bytes:
    with connect_local(path) as skt:
        return exchange(skt, message)
