"""The command ``portmapd``, as it is typed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from portmapd import __version__
from portmapd.options import OPTIONS
from tests.support.daemon import TWISTD
from tests.support.exchange import PATIENCE, connect_local, exchange, question
from tests.support.host import run
from tests.support.namespace import eventually

PORTMAPD = str(Path(TWISTD).with_name("portmapd"))


def portmapd(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    return run(PORTMAPD, *words, env=env)


def test_help() -> None:
    """The help names every option once, under a heading, and has examples."""
    for words in (("--help",), ("-h",)):
        done = portmapd(*words)
        assert done.returncode == 0
        for option in OPTIONS:
            assert done.stdout.count(f"  --{option.name} ") == 1 or option.letter
        for heading in ("Addresses:", "Access:", "Local channel:", "Logs:", "Examples:"):
            assert f"\n{heading}\n" in done.stdout or f"\n  {heading}\n" in done.stdout


def test_version() -> None:
    """The version is portmapd's own, also of the module."""
    for command in ((PORTMAPD,), (sys.executable, "-m", "portmapd")):
        done = run(*command, "--version")
        assert (done.returncode, done.stdout) == (0, f"portmapd {__version__}\n")


def test_wrong_usage(tmp_path: Path) -> None:
    """A wrong option is one line, with the likely one, and status 2."""
    file = tmp_path / "portmapd.toml"
    file.write_text("prot = 4")
    for words, said in (
        # Each version of click has its own quotes, and stops.
        (("--prot", "3"), "No such option --prot Did you mean --port?"),
        (("--port",), "Option '--port' requires an argument"),
        (("--port", "http"), "--port 'http' is not a whole number"),
        (("--callit", "some"), "callit 'some' is none of off, local, null, all"),
        (("serve",), "Got unexpected extra argument (serve)"),
        (("--config", str(file)), f"{file}, line 1: there is no option 'prot'; did you mean"),
        (("--config", "/nowhere"), "/nowhere is not there; --config names the file"),
    ):
        done = portmapd(*words)
        assert done.returncode == 2
        assert unquoted(done.stdout).startswith(unquoted(f"portmapd: {said}"))
        assert done.stdout.count("\n") == 1


def unquoted(text: str) -> str:
    """A text without quotes, and without the stops behind words."""
    return re.sub(r"['\"]|[.:](?= )", "", text)


def test_check_config(tmp_path: Path) -> None:
    """``--check-config`` says what was given, and where, and serves nothing."""
    file = tmp_path / "portmapd.toml"
    file.write_text('port = 5\nmax-services = 20\nliveness = "off"\n')
    words = ("--check-config", "--config", str(file), "--port", "0", "--insecure")
    done = portmapd(*words, env={"PORTMAPD_TRUST": "10.0.0.0/8,::1"})
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        'port = "0"  # command line',
        'trust = ["10.0.0.0/8", "::1"]  # the environment',
        "insecure = true  # command line",
        f'max-services = "20"  # {file}',
        f'liveness = "off"  # {file}',
        "The options can be used.",
    ]
    # What it printed is a file of options itself.
    file.write_text("\n".join(done.stdout.splitlines()[:-1]))
    assert portmapd("--check-config", "--config", str(file)).returncode == 0


def test_serves(tmp_path: Path) -> None:
    """It serves in the foreground, and ends as a daemon does."""
    path, log = f"{tmp_path}/rpc.sock", tmp_path / "log"
    file = tmp_path / "portmapd.toml"
    file.write_text(f'port = 0\nrpc-socket = "{path}"\nlocal-socket = "none"\n')
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PORTMAPD, "--config", file, "--interface", "127.0.0.1"], stdout=output, stderr=output
        )
    eventually(lambda: Path(path).exists(), "it serves")
    with connect_local(path) as skt:
        exchange(skt, question(2, 0))
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert "serving port" in log.read_text()
    assert not Path(path).exists()


def test_background(tmp_path: Path) -> None:
    """It serves in the background, with a pid file and a log, and the shell goes on."""
    pid, log, path = tmp_path / "pid", tmp_path / "log", f"{tmp_path}/rpc.sock"
    words = ("--port=0", "--local-socket=none", f"--rpc-socket={path}", "--background")
    done = portmapd(*words, "--pid-file", str(pid), "--log-file", str(log))
    assert (done.returncode, done.stdout) == (0, "")
    with connect_local(path) as skt:
        exchange(skt, question(2, 0))
    os.kill(int(pid.read_text()), signal.SIGTERM)
    eventually(lambda: not pid.exists(), "it has ended")
    assert "serving port" in log.read_text()


def test_cannot_start_in_background(tmp_path: Path) -> None:
    """In the background, too, one line says why it cannot start."""
    (tmp_path / "rpc.sock").touch()
    words = ("--port=0", f"--rpc-socket={tmp_path}/rpc.sock", "--background")
    files = (f"--pid-file={tmp_path}/pid", f"--log-file={tmp_path}/log")
    done = portmapd(*words, *files)
    assert done.returncode == 1
    assert done.stdout.startswith(f"portmapd: the socket {tmp_path}/rpc.sock cannot be used: ")
    assert done.stdout.count("\n") == 1


def test_cannot_start(tmp_path: Path) -> None:
    """A start that fails is one line and status 1."""
    done = portmapd("--port=0", "--rpc-socket=/dev/null/x", "--local-socket=none")
    assert done.returncode == 1
    assert "portmapd: the socket /dev/null/x cannot be used" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout
