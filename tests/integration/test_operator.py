"""The daemon to its operator: signals, pid files, starts in the background, what is left behind."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portmapd.oncrpc.program import Pmap, encode_pmap
from tests.support.daemon import NO_STATE, TWISTD
from tests.support.exchange import connect_local, exchange, free_port, question
from tests.support.host import daemon, twistd
from tests.support.namespace import Namespace, eventually

NULL = question(2, 0)
#: Signals whose default is to end a process, and that somebody may send by accident.
ACCIDENTS = ("HUP", "QUIT", "USR1", "USR2", "PIPE", "ALRM", "VTALRM", "PROF", "IO", "PWR", "RTMIN")


def options(folder: Path) -> tuple[str, ...]:
    """Options for a free port and sockets in that folder."""
    paths = f"--rpc-socket={folder}/rpc.sock", f"--local-socket={folder}/local.sock"
    return "portmapd", "--port=0", *paths


def in_background(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Start a daemon in the background, with its files in *folder*."""
    files = (f"--pidfile={folder}/pid", f"--logfile={folder}/log")
    return twistd(*files, *(words or options(folder)))


@contextmanager
def background(folder: Path) -> Iterator[int]:
    """Have a daemon in the background in the block; it gives its pid, and is ended after it."""
    done = in_background(folder)
    assert (done.returncode, done.stdout) == (0, "")
    pid = int((folder / "pid").read_text())
    yield pid
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not (folder / "pid").exists(), "it has ended")


def names(folder: Path) -> list[str]:
    """What is in that folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ACCIDENTS)
def test_accidental_signal(name: str, tmp_path: Path) -> None:
    """A signal that is not meant to end it does not."""
    with daemon(tmp_path) as running, connect_local(running.path) as skt:
        os.kill(running.pid, getattr(signal, f"SIG{name}"))
        for _ in range(3):
            exchange(skt, NULL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """A signal that ends it leaves no socket and no pid file."""
    done = in_background(tmp_path)
    assert done.returncode == 0
    assert names(tmp_path) == ["local.sock", "log", "pid", "rpc.sock"]
    os.kill(int((tmp_path / "pid").read_text()), number)
    eventually(lambda: names(tmp_path) == ["log"], "only the log is left")


def test_ended_while_it_starts(tmp_path: Path) -> None:
    """A signal that comes as soon as there is a socket leaves none, either."""
    path = tmp_path / "rpc.sock"
    process = subprocess.Popen(
        [TWISTD, "-n", f"--pidfile={tmp_path}/pid", *options(tmp_path), *NO_STATE],
        stdout=subprocess.DEVNULL,
    )
    while not path.exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 0
    assert names(tmp_path) == []


def test_hangup_reopens_the_log(tmp_path: Path) -> None:
    """After a rotation SIGHUP makes it log to a new file; where it cannot, it keeps the old one."""
    with background(tmp_path) as pid:
        (tmp_path / "log").rename(tmp_path / "old")
        os.kill(pid, signal.SIGHUP)
        eventually((tmp_path / "log").exists, "there is a new log")
        eventually(lambda: "SIGHUP" in (tmp_path / "log").read_text(), "it is used")
        (tmp_path / "log").rename(tmp_path / "kept")
        (tmp_path / "log").mkdir()
        os.kill(pid, signal.SIGHUP)
        said = "cannot be opened again: "
        eventually(lambda: said in (tmp_path / "kept").read_text(), "the old one is used")


def test_whole_sentence_in_the_background(tmp_path: Path) -> None:
    """A start in the background that fails says why in a whole sentence, with status 1."""
    port = free_port()
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", port))
        skt.listen()
        words = "portmapd", f"--port={port}", "--rpc-socket=none", "--local-socket=none"
        done = in_background(tmp_path, *words)
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith(f"portmapd: port {port} of 127.0.0.1 is taken by ")
    assert first.endswith("stop that, or choose another port with --port")
    assert names(tmp_path) == ["log"]


def test_long_path_in_the_background(tmp_path: Path) -> None:
    """The sentence is whole, however long it is and whatever characters are in it."""
    folder = tmp_path / ("é" * 20)
    folder.mkdir()
    (folder / "rpc").touch()
    done = in_background(tmp_path, "portmapd", "--port=0", f"--rpc-socket={folder}/rpc")
    assert done.returncode == 1
    assert f"portmapd: the socket {folder}/rpc cannot be used: it is not a" in done.stdout
    assert done.stdout.splitlines()[0].endswith("choose another path with --rpc-socket, or none")


def test_output_is_closed(tmp_path: Path) -> None:
    """A program that reads what the start prints reads its end: the daemon holds nothing of it."""
    with background(tmp_path) as pid:
        links = {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)}
        assert links == {"/dev/null"}


#: What an earlier run, a crash or a full disk may have left as a pid file.
STALE = {
    "empty": "",
    "blank": "\n",
    "words": "not a number",
    "negative": "-1",
    "zero": "0",
    "huge": "9" * 40,
    "ended": "4194304",
    "another program's": "1",
    "bytes": "\x00\xff",
}


@pytest.mark.parametrize("left", STALE)
def test_stale_pid_file(left: str, tmp_path: Path) -> None:
    """A stale pid file does not stop a start, and is replaced."""
    (tmp_path / "pid").write_bytes(STALE[left].encode("latin-1"))
    with background(tmp_path) as pid:
        assert Path(f"/proc/{pid}").exists()


def test_pid_file_of_a_daemon(tmp_path: Path) -> None:
    """That of a daemon that runs stops another one's start, and stays."""
    with background(tmp_path) as pid:
        done = in_background(tmp_path)
        assert done.returncode == 1
        assert f"Another twistd server is running, PID {pid}" in done.stdout
        assert (tmp_path / "pid").read_text() == str(pid)


def test_impossible_pid_file(tmp_path: Path) -> None:
    """A path where no pid file can be made is named in one line, and nothing is started."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (
        "/dev/null",
        f"{tmp_path}/none/pid",
        str(tmp_path),
        "/proc/pid",
        *(str(tmp_path / name) for name in ("fifo", "link")),
    ):
        done = twistd(f"--pidfile={path}", f"--logfile={tmp_path}/log", *options(tmp_path))
        assert done.returncode == 1
        assert done.stdout.startswith(f"portmapd: the pid file {path} cannot be used: ")
        assert done.stdout.count("\n") <= 1
    assert names(tmp_path) == ["fifo", "link"]


def test_impossible_log(tmp_path: Path) -> None:
    """A log that cannot be opened, and an observer that there is not, are named in one line."""
    for words, said in (
        ((f"--logfile={tmp_path}/none/log",), f"the log file {tmp_path}/none/log cannot be opened"),
        ((f"--logfile={tmp_path}",), f"the log file {tmp_path} cannot be opened"),
        (("--logger=no.such.thing",), "--logger 'no.such.thing' cannot be imported"),
        (("--logfile=-",), "there is no terminal in the background"),
    ):
        done = twistd(f"--pidfile={tmp_path}/pid", *words, *options(tmp_path))
        assert done.returncode == 1
        assert done.stdout.startswith(f"portmapd: {said}")
        assert done.stdout.count("\n") <= 1
    assert names(tmp_path) == []


@pytest.mark.programs("cat")
def test_pid_file_of_another_user(namespace: Namespace, tmp_path: Path) -> None:
    """With ``--uid`` that user can remove the pid file and the local channel's socket."""
    words = ("--uid=65534", "--gid=65534", f"--logfile={tmp_path}/log", "portmapd")
    namespace.run(TWISTD, *words)
    pid = namespace.run("cat", "/run/portmapd/twistd.pid")
    assert namespace.run("ls", "/run/portmapd").split() == ["portmapd.sock", "twistd.pid"]
    assert "Uid:\t65534\t65534" in namespace.run("cat", f"/proc/{pid}/status")
    namespace.run("kill", pid)
    eventually(lambda: not namespace.run("ls", "/run/portmapd"), "nothing is left")
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.programs("setpriv")
def test_uid_without_the_right(namespace: Namespace) -> None:
    """``--uid`` of a user who may not become another one is refused before a socket is bound."""
    user = ("setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+dac_read_search")
    words = ("--ambient-caps=+dac_read_search", TWISTD, "-n", "--pidfile=", "--uid=1", "portmapd")
    said = namespace.run(*user, *words, status=1)
    assert said.startswith("portmapd: --uid may be given by root alone")


@pytest.fixture
def homeless() -> Iterator[tuple[int, Path]]:
    """A user without a runtime directory, and their private directory, which is removed at the end.

    The user's number is this process's own, for test runs share /tmp.
    """
    uid = 40_000 + os.getpid() % 20_000
    directory = Path(f"/tmp/portmapd-{uid}")
    yield uid, directory
    shutil.rmtree(directory, ignore_errors=True)


def as_user(uid: int) -> tuple[str, ...]:
    """The words that run a command as that user, who may read the checkout wherever it is."""
    drop = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    return "env", "-u", "XDG_RUNTIME_DIR", *drop, *read


@pytest.mark.programs("setpriv")
def test_user_without_a_runtime_directory(
    namespace: Namespace, homeless: tuple[int, Path], tmp_path: Path
) -> None:
    """Such a user has a local channel in a private directory, and clients find it there."""
    uid, directory = homeless
    command = (*as_user(uid), TWISTD, "-n", "--pidfile=", "portmapd")
    started = namespace.start(*command, log=tmp_path / "log")
    control = (*as_user(uid), str(Path(TWISTD).with_name("portmapctl")), "services")
    path = f"{directory}/portmapd.sock"
    eventually(lambda: path in namespace.run(*control, status=None), "portmapctl finds it")
    assert namespace.run("stat", "-c", "%a %u", str(directory)) == f"700 {uid}\n"
    assert started.stop() == 0
    assert not names(directory)


@pytest.mark.programs("setpriv")
def test_private_directory_is_taken(
    namespace: Namespace, homeless: tuple[int, Path], tmp_path: Path
) -> None:
    """If another user has made that directory, there is a warning instead of a local channel."""
    uid, directory = homeless
    directory.mkdir(0o777)
    log = tmp_path / "log"
    started = namespace.start(*as_user(uid), TWISTD, "-n", "--pidfile=", "portmapd", log=log)
    said = f"no local channel: {directory} belongs to another user; choose a path with"
    eventually(lambda: said in log.read_text(), said)
    assert started.stop() == 0
    assert not names(directory)


def test_what_is_served(tmp_path: Path) -> None:
    """One line says what is served and where; no line shows an object."""
    with background(tmp_path):
        log = (tmp_path / "log").read_text()
    line = (
        rf"serving port \d+ on 127\.0\.0\.1(, ::1)? and {tmp_path}/rpc\.sock; local channel at "
        rf"{tmp_path}/local\.sock$"
    )
    assert len(re.findall(line, log, re.MULTILINE)) == 1
    assert " object at " not in log


def test_log_level(tmp_path: Path) -> None:
    """Nothing below the level is written, and Twisted's own lines are there for ``debug``."""
    for level, wanted in (("warn", ""), ("debug", "Port")):
        folder = tmp_path / level
        folder.mkdir()
        done = in_background(folder, *options(folder), "--log-level", level)
        assert (done.returncode, done.stdout) == (0, "")
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
        eventually(lambda: names(folder) == ["log"], "it has ended")  # noqa: B023
        log = (folder / "log").read_text()
        assert wanted in log if wanted else not log


def test_json(tmp_path: Path) -> None:
    """With Twisted's observer for JSON, each line is an event with its name and fields."""
    files = (f"--pidfile={tmp_path}/pid", f"--logfile={tmp_path}/log")
    logger = ("--logger", "twisted.logger.jsonFileLogObserver")
    done = twistd(*files, *logger, *options(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    with connect_local(f"{tmp_path}/rpc.sock") as skt:
        exchange(skt, question(2, 1, encode_pmap(Pmap(200100, 1, 17, 4000))))
        exchange(skt, question(2, 1, encode_pmap(Pmap(200100, 1, 99, 4000))))
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    eventually(lambda: names(tmp_path) == ["log"], "it has ended")
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    named = {event["event"]: event for event in events if "event" in event}
    assert named["serving"]["what"].endswith(f"local channel at {tmp_path}/local.sock")
    assert (named["mapping-set"]["program"], named["mapping-set"]["netid"]) == (200100, "udp")


def test_lines_are_bounded(tmp_path: Path) -> None:
    """However often one user is refused, the log grows by a few lines of each kind."""
    with background(tmp_path), connect_local(f"{tmp_path}/rpc.sock") as skt:
        for port in range(4000, 4500):
            exchange(skt, question(2, 1, encode_pmap(Pmap(100000, 1, 17, port))))
            exchange(skt, question(2, 1, encode_pmap(Pmap(200100, port, 17, port))))
    log = (tmp_path / "log").read_text()
    assert log.count("\n") < 250
    assert "400 more events of the kind mapping-set" in log
