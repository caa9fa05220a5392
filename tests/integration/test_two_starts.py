"""Two daemons that start at one moment on the same sockets: one serves, the other one ends."""

import os
import subprocess
from pathlib import Path

from tests.support import host
from tests.support.exchange import connect_local, exchange, question
from tests.support.namespace import eventually

#: How often; ``PORTMAPD_STARTS=100`` for long.
STARTS = int(os.environ.get("PORTMAPD_STARTS", "3"))


def start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a daemon, which logs there."""
    words = (f"--rpc-socket={folder}/rpc.sock", "--port=0", "--local-socket=none")
    with log.open("wb") as output:
        return host.start(output, *words)


def race(folder: Path) -> None:
    """Start two at one moment; look that one serves; kill it."""
    logs = [folder / f"log{number}" for number in range(2)]
    both = [start(folder, log) for log in logs]
    try:
        eventually(lambda: any(each.poll() is not None for each in both), "one has ended")
        said = "".join(log.read_text() for log in logs)
        assert sorted(str(each.poll()) for each in both) == ["1", "None"], said
        assert "/rpc.sock cannot be used: another process serves there" in said
        with connect_local(str(folder / "rpc.sock")) as skt:
            exchange(skt, question(2, 0))
    finally:
        for each in both:
            each.kill()
            each.wait()


def test_two_at_once(tmp_path: Path) -> None:
    """Never does one take the other's socket, though a killed daemon has left its own there."""
    for _ in range(STARTS):
        race(tmp_path)
        # The next two find a socket that nobody serves, and never a lock.
        assert [each.name for each in tmp_path.glob("rpc*")] == ["rpc.sock"]
