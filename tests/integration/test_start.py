"""How a start goes: which port it takes, and what it says when it cannot be made."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import NO_STATE, TWISTD
from tests.support.exchange import connect, exchange, free_port, question
from tests.support.namespace import TOP, Namespace, eventually

#: In the foreground, without a file for its process id.
START = (TWISTD, "-n", "--pidfile=", "portmapd", "--rpc-socket=none", "--local-socket=none")
#: Users who may read the tests' files, whoever owns them.
USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
READ = "+dac_read_search"


def rights(*more: str) -> tuple[str, ...]:
    """Options of ``setpriv`` for capabilities that a user keeps."""
    kept = ",".join((READ, *more))
    return f"--inh-caps={kept}", f"--ambient-caps={kept}"


def port_of(namespace: Namespace, log: Path, *command: str) -> int:
    """The port that a daemon serves which is started by *command*, without one being asked for."""
    started = namespace.start(*command, *START, log=log)

    def served() -> int | None:
        assert started.running(), log.read_text()
        for port in (111, 10111):
            try:
                with connect(
                    socket.SOCK_STREAM, "127.0.0.1", port, make=namespace.make_socket
                ) as s:
                    exchange(s, question(2, 0))
            except ConnectionRefusedError:
                continue
            return port
        return None

    eventually(served, "it serves")
    port = served()
    started.stop()
    assert port is not None
    return port


@pytest.mark.programs("setpriv", "sysctl")
def test_right_to_the_port(namespace: Namespace, tmp_path: Path) -> None:
    """Who may bind port 111 serves it by default, and nobody else: the uid does not count."""
    log = tmp_path / "log"
    bind = "net_bind_service"
    assert port_of(namespace, log, *USER, *rights()) == 10111
    assert port_of(namespace, log, *USER, *rights(f"+{bind}")) == 111
    assert port_of(namespace, log, "setpriv", f"--bounding-set=-{bind}") == 10111
    namespace.run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=111")
    assert port_of(namespace, log, *USER, *rights()) == 111


def test_socket_handed_in() -> None:
    """A socket that a service manager handed in is named as that, and not as another twistd's."""
    port = free_port()
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", port))
        skt.listen()
        done = subprocess.run(
            [*START, *NO_STATE, "--port", str(port)],
            cwd=TOP,
            pass_fds=[skt.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        said = f"is taken by a socket that this process was handed as descriptor {skt.fileno()} ("
        assert said in done.stdout + done.stderr
        assert "twistd (pid" not in done.stdout + done.stderr


@pytest.mark.programs("setpriv", "make")
def test_checkout_that_cannot_be_written(tmp_path: Path) -> None:
    """``make`` says that the checkout cannot be written, and gives no advice that does not help."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(TOP / name, tmp_path)
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    done = subprocess.run(
        [*USER, "make", "-C", str(tmp_path), "run"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"{tmp_path} cannot be written" in done.stderr
    assert "apt install" not in done.stderr
