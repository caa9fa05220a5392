"""``portmapctl``, as a shell runs it."""

import ctypes
import fcntl
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from attrs import frozen

from portmapd.client.blocking import Portmapper, Service
from tests.support.clients import Mortal
from tests.support.exchange import PATIENCE
from tests.support.namespace import TOP, eventually
from tests.support.registrant import Registrant
from tests.support.talk import Talk

ME, UID = os.getpid(), os.geteuid()
USER = pwd.getpwuid(UID).pw_name
OWNER = str(UID) if UID else "superuser"
NAME = "printer.example.com"
PROGRAM = 400_001
COMMAND = (sys.executable, "-m", "portmapd.cli")

#: More digits than Python makes into a number.
DIGITS = "9" * 5000

#: prctl(2): take a capability from what is run from here on; and those by which root may enter
#: every directory (capabilities(7)).
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2

#: Says that it is there; tells of the first of these signals, and how many more came with it.
COUNT = """
import signal, sys, time
came = []
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: came.append(number))
print("ready", flush=True)
while not came:
    time.sleep(0.01)
time.sleep(0.5)
print(*map(int, came), flush=True)
sys.exit(9)
"""


@frozen
class Said:
    """What ``portmapctl`` said, and the status that it ended with."""

    status: int
    out: str
    why: str

    def ends(self, status: int, why: str) -> None:
        """Assert that it ended with *status*, and one line that matches *why*."""
        assert (self.status, self.why.count("\n")) == (status, 1), self
        assert re.search(f"^portmapctl: {why}$", self.why), self


class Shell:
    """Runs ``portmapctl`` with a daemon's socket."""

    def __init__(self, path: str) -> None:
        self.options = ("--socket", path)

    def run(self, *words: str) -> Said:
        """Run it until it ends."""
        process = self.start(*words)
        out, why = process.communicate(timeout=PATIENCE)
        return Said(process.returncode, out, why)

    def start(self, *words: str, **options: object) -> "subprocess.Popen[str]":
        """Start it."""
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [*COMMAND, *self.options, *words],
            cwd=TOP,
            text=True,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )


@pytest.fixture
def shell(daemon: Mortal) -> Shell:
    """Give a shell."""
    return Shell(daemon.path)


@pytest.fixture
def portmapper(daemon: Mortal) -> Iterator[Portmapper]:
    """Give a client."""
    with Portmapper(daemon.path) as client:
        yield client


def end(process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGKILL) -> Said:
    """Send it a signal, and give what it said when it has ended."""
    process.send_signal(number)
    out, why = process.communicate(timeout=PATIENCE)
    return Said(process.returncode, out, why)


# Listings


def test_services(shell: Shell, portmapper: Portmapper) -> None:
    """A table of all services, aligned; or of one name, user, process."""
    portmapper.reg([(NAME, 9100), (NAME, "/run/printer.sock", 2), ("短い.example", 80)])
    said = shell.run("services", "--pid", str(ME))
    exe = os.path.realpath("/proc/self/exe")
    pid = str(ME).ljust(3)
    assert said.out.splitlines() == [
        f"NAME                 {'USER':<{len(USER)}}  {'PID':<{len(pid)}}  PORT               EXE",
        f"printer.example.com  {USER:<4}  {pid}  /run/printer.sock  {exe}",
        f"printer.example.com  {USER:<4}  {pid}  9100",
        f"短い.example         {USER:<4}  {pid}  80",
    ]
    assert (said.status, said.why) == (0, "")
    assert shell.run("services", NAME, "--user", USER).out.count(NAME) == 2
    assert shell.run("services", "--user", str(UID)).out.count("\n") == 5


def test_services_as_json(shell: Shell, portmapper: Portmapper) -> None:
    """With --json, the fields of each, as one array."""
    portmapper.reg([(NAME, 9100), (NAME, "/run/s")])
    said = shell.run("services", "--json", NAME)
    assert said.status == 0
    assert [Service(**row) for row in json.loads(said.out)] == [
        Service(NAME, UID, ME, "/run/s", ""),
        Service(NAME, UID, ME, 9100, ""),
    ]


def test_no_service(shell: Shell) -> None:
    """What nobody registered is not found: status 1."""
    shell.run("services", "nobody").ends(1, "no such service is registered; .*")
    said = shell.run("services", "nobody", "--json")
    assert json.loads(said.out) == []
    said.ends(1, ".*")
    shell.run("services", "--user", "nobody-at-all").ends(
        1, "user: there is no user 'nobody-at-all'; give the name of a user, or a uid"
    )


def test_mappings(shell: Shell, portmapper: Portmapper) -> None:
    """The RPC mappings, as a table and as JSON."""
    portmapper.set(PROGRAM, 1, "tcp", "0.0.0.0.8.1")
    said = shell.run("mappings")
    assert (said.status, said.why) == (0, "")
    head, *rows = [line.split() for line in said.out.splitlines()]
    assert head == ["PROGRAM", "VERSION", "NETID", "ADDRESS", "OWNER"]
    assert rows[-1] == [str(PROGRAM), "1", "tcp", "0.0.0.0.8.1", OWNER]
    assert json.loads(shell.run("mappings", "--json").out)[-1] == {
        "program": PROGRAM,
        "version": 1,
        "netid": "tcp",
        "address": "0.0.0.0.8.1",
        "owner": OWNER,
    }


def test_pid2exe(shell: Shell, portmapper: Portmapper) -> None:
    """The path of an executable, or status 1."""
    shell.run("pid2exe", str(ME)).ends(1, f"process {ME} has not announced its executable; .*")
    portmapper.regpid2exe()
    exe = os.path.realpath("/proc/self/exe")
    assert shell.run("pid2exe", str(ME)) == Said(0, f"{exe}\n", "")
    assert json.loads(shell.run("pid2exe", str(ME), "--json").out) == {"pid": ME, "exe": exe}


def test_hostile_executable(shell: Shell, daemon: Mortal, tmp_path: Path) -> None:
    """A path that would steer the terminal is escaped, and can be told from one that is so."""
    folder = tmp_path / "\x1b[31m\n\u202e\\x1b"
    folder.mkdir()
    python = shutil.copy(os.path.realpath(sys.executable), folder / "py")
    command, home = (str(python),), {"PYTHONHOME": sys.base_prefix}
    with (
        Registrant(daemon.path, command=command, env=home) as process,
        Talk(process.connect()) as talk,
    ):
        talk.register((NAME, "1", 2), ("pid2exe.portmapd", "*", 2))
        for words in (("services", NAME), ("pid2exe", str(process.pid))):
            shown = shell.run(*words).out
            assert shown.endswith(r"/\x1b[31m\n\u202e\\x1b/py" + "\n")
            assert shown.replace("\n", "").isprintable()
            written = shell.run(*words, "--json").out
            assert json.dumps(str(python)) in written
            assert written.replace("\n", "").isprintable()


# Scripts and terminals


def test_port(shell: Shell, portmapper: Portmapper) -> None:
    """The port of a name, and nothing else; a path; one of several."""
    portmapper.reg(NAME, 9100)
    assert shell.run("port", NAME) == Said(0, "9100\n", "")
    assert shell.run("port", NAME, "--user", USER).out == "9100\n"
    assert json.loads(shell.run("port", NAME, "--json").out)["port"] == 9100
    portmapper.reg([(NAME, 9101), ("path.example", "/run/s")])
    assert shell.run("port", NAME).out == "9100\n"
    assert shell.run("port", "path.example").out == "/run/s\n"
    shell.run("port", "nobody").ends(1, "no service nobody is registered; .*")


def test_connect(shell: Shell, portmapper: Portmapper) -> None:
    """Standard input reaches the service, to its end, and its answer the standard output."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        portmapper.reg(NAME, server.getsockname()[1])
        process = shell.start("connect", NAME, stdin=subprocess.PIPE)
        peer, _ = server.accept()
        assert process.stdin is not None
        process.stdin.write("a" * 3_000_000)
        process.stdin.close()
        with peer, peer.makefile("rb") as sent:
            asked = sent.read()
            peer.sendall(asked.upper())
        assert process.stdout is not None
        assert process.stdout.read() == "A" * 3_000_000
        assert process.wait(PATIENCE) == 0
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()
    shell.run("connect", "nobody").ends(1, "no service nobody is registered; .*")
    shell.run("connect", NAME).ends(3, ".* none accepts a connection; .*")


def test_wait(shell: Shell, portmapper: Portmapper) -> None:
    """A service that is not there yet, or does not accept yet, is waited for, and no longer."""
    asking = shell.start("port", NAME, "--wait", "30")
    time.sleep(0.5)
    assert asking.poll() is None
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        portmapper.reg(NAME, server.getsockname()[1])
        assert asking.communicate(timeout=PATIENCE) == (f"{server.getsockname()[1]}\n", "")
        calling = shell.start("connect", NAME, "--wait", "30", stdin=subprocess.DEVNULL)
        time.sleep(0.5)
        assert calling.poll() is None
        server.listen()
        server.accept()[0].close()
        assert calling.communicate(timeout=PATIENCE) == ("", "")
        assert (asking.returncode, calling.returncode) == (0, 0)
    shell.run("port", "nobody", "--wait", "0.2").ends(1, "no service nobody is registered; .*")
    shell.run("connect", NAME, "--wait", "0.2").ends(3, ".* none accepts a connection; .*")
    shell.run("port", NAME, "--wait", "-1").ends(2, ".*-1.*")


def test_completion(shell: Shell, portmapper: Portmapper) -> None:
    """Shells complete the names of services; without a daemon, nothing is said."""
    portmapper.reg([(NAME, 9100), ("other.example", 9101)])
    for path, found in ((shell.options[1], [f"plain,{NAME}"]), ("/nowhere", [])):
        words = f"portmapctl --socket {path} services pri"
        env = {
            **os.environ, "COMP_WORDS": words, "COMP_CWORD": "4",
            "_PORTMAPCTL_COMPLETE": "bash_complete",
        }  # fmt: skip
        said = subprocess.run(COMMAND, cwd=TOP, env=env, capture_output=True, text=True, check=True)
        assert (said.stdout.split(), said.stderr) == (found, "")


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["colour", "none"])
def test_colour(shell: Shell, portmapper: Portmapper, variables: dict[str, str]) -> None:
    """On a terminal, the heading stands out; not if colour is declined."""
    portmapper.reg(NAME, 9100)
    main, terminal = os.openpty()
    with shell.start(
        "services", stdout=terminal, env={**os.environ, "TERM": "xterm", **variables}
    ) as process:
        os.close(terminal)
        said = os.read(main, 4096)
        assert process.wait(PATIENCE) == 0
    os.close(main)
    assert said.startswith(b"NAME" if variables else b"\x1b[1mNAME")


# Watching


def test_watch(shell: Shell, portmapper: Portmapper) -> None:
    """A line for each change, from what is registered on; an interrupt is its usual end."""
    portmapper.reg(NAME, 9100)
    watching = shell.start("watch", NAME, "other")
    assert watching.stdout is not None
    begun = datetime.now().replace(microsecond=0)  # noqa: DTZ005 # what a person's clock shows
    for kind in ("registered", "deregistered"):
        day, time, *rest = watching.stdout.readline().split()
        assert begun <= datetime.fromisoformat(f"{day} {time}")
        assert rest == [kind, NAME, USER, str(ME), "9100"]
        if kind == "registered":
            portmapper.dereg(NAME, 9100)
    assert end(watching, signal.SIGINT) == Said(0, "", "")


def test_watch_refuses_impossible_names(shell: Shell) -> None:
    """A name that can never be registered is wrong usage, and is named."""
    for name in ("a b", "a\n", "", "a" * 256):
        done = shell.run("watch", NAME, name)
        assert (done.status, done.out) == (2, "")
        assert "name" in done.why


def test_watch_as_json(shell: Shell, portmapper: Portmapper) -> None:
    """With --json, one object a line; without names, mappings as well."""
    with shell.start("watch", "--json") as watching:
        assert watching.stdout is not None
        portmapper.reg(NAME, 9100, rpc=(PROGRAM, 1))
        for line in watching.stdout:
            change = json.loads(line)
            if change.get("name") == NAME:
                assert change["change"] == "registered"
                assert change["port"] == 9100
            if change.get("program") == PROGRAM:
                assert change["change"] == "mapped"
                break
        end(watching)


def test_watch_over_a_restart(shell: Shell, daemon: Mortal, portmapper: Portmapper) -> None:
    """It outlives a restart of the daemon."""
    watching = shell.start("watch", NAME)
    portmapper.reg(NAME, 1)
    assert watching.stdout is not None
    assert " registered " in watching.stdout.readline()
    daemon.kill()
    daemon.start()
    assert " deregistered " in watching.stdout.readline()
    assert end(watching, signal.SIGINT).status == 0


def test_reader_has_enough(shell: Shell) -> None:
    """When the reader of the pipe has gone, it ends at once, without a complaint."""
    watching = shell.start("watch")
    assert watching.stdout is not None
    assert watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    assert watching.wait(PATIENCE) == 0
    assert watching.stderr.read() == ""
    watching.stderr.close()


def test_reader_of_a_socket_has_enough(shell: Shell) -> None:
    """So it does when its output is a socket; what that reader sends is not looked at."""
    ours, theirs = socket.socketpair()
    watching = shell.start("watch", stdout=theirs)
    theirs.close()
    ours.sendall(b"to be ignored")
    assert ours.recv(1)
    with pytest.raises(subprocess.TimeoutExpired):
        watching.wait(0.5)
    ours.close()
    assert watching.wait(PATIENCE) == 0
    assert watching.communicate()[1] == ""


def test_own_output_is_no_end(shell: Shell, portmapper: Portmapper, tmp_path: Path) -> None:
    """Where it could read what it writes, that does not end it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    portmapper.reg(NAME, 1)
    with path.open("r+b", buffering=0) as fifo:
        watching = shell.start("watch", NAME, stdout=fifo)
        assert select.select([fifo], [], [], PATIENCE)[0]
        with pytest.raises(subprocess.TimeoutExpired):
            watching.wait(0.5)
        portmapper.reg(NAME, 2)
        said = b""
        while b" 2\n" not in said:
            said += fifo.read(4096)
    assert end(watching, signal.SIGINT).status == 0


@pytest.mark.parametrize(
    "words",
    [("services",), ("services", "--json"), ("mappings",), ("watch",), ("--help",)],
    ids=" ".join,
)
def test_no_room(shell: Shell, words: tuple[str, ...]) -> None:
    """Output that cannot be written: status 1, and a line that says why."""
    with open("/dev/full", "wb") as full:
        process = shell.start(*words, stdout=full)
        _, why = process.communicate(timeout=PATIENCE)
    Said(process.returncode, "", why).ends(1, r"the output cannot .* \(No space left .*\); .*")


# Running a command


def test_run(shell: Shell, portmapper: Portmapper) -> None:
    """The name is registered while the command runs, with its flags and its RPC program."""
    options = ("--exclusive", "--public", "--rpc", f"{PROGRAM}:2")
    running = shell.start(
        "run", NAME, "9100", *options, "--", "sh", "-c", "echo up; read x; exit 7",
        stdin=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    # A public one is registered once the command runs, and its RPC program behind it.
    eventually(
        lambda: any(each.program == PROGRAM for each in portmapper.mappings()),
        "both are registered",
        PATIENCE,
    )
    (service,) = portmapper.list(NAME)
    assert service.port == 9100
    assert parent_of(service.pid) == running.pid
    assert service.exe == os.path.realpath(f"/proc/{service.pid}/exe")
    assert service.exe == os.path.realpath(shutil.which("sh") or "")
    (mapping,) = [each for each in portmapper.mappings() if each.program == PROGRAM]
    assert (mapping.version, mapping.netid, mapping.address) == (2, "tcp", "0.0.0.0.35.140")
    for option in ("--exclusive", "--public"):
        said = shell.run("run", NAME, "1", option, "sleep", "1000")
        said.ends(1, f"{NAME} is registered exclusively by .*; .*")
    running.communicate("x\n", timeout=PATIENCE)
    assert running.returncode == 7
    eventually(lambda: portmapper.list(NAME) == [], "it is gone", PATIENCE)


def parent_of(pid: int) -> int:
    """The parent of a process."""
    (parent,) = re.findall(
        r"^PPid:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    return int(parent)


def test_run_auto(shell: Shell, portmapper: Portmapper) -> None:
    """A free port is chosen, and the command told; the registration is the command's own."""
    script = "echo $$ $PORT {port} $0; read x"
    running = shell.start(
        "run", NAME, "auto", "--", "sh", "-c", script, "at-{port}", stdin=subprocess.PIPE
    )
    assert running.stdout is not None
    pid, *ports, word = running.stdout.readline().split()
    (service,) = portmapper.list(NAME)
    assert (service.pid, service.exe) == (int(pid), "")
    assert ports == [str(service.port)] * 2
    assert word == f"at-{service.port}"
    with socket.create_server(("127.0.0.1", int(service.port))):
        pass
    running.communicate("x\n", timeout=PATIENCE)
    assert running.returncode == 0
    assert shell.run("run", NAME, "9100", "--", "echo", "{port}").out == "{port}\n"


def test_run_path(shell: Shell, portmapper: Portmapper) -> None:
    """A path may be registered as well; the command's output and input are its own."""
    said = shell.run("run", NAME, "/run/s", "--", "sh", "-c", "cat; echo out; echo err >&2")
    assert said == Said(0, "out\n", "err\n")
    eventually(lambda: portmapper.list(NAME) == [], "it is gone", PATIENCE)


def test_run_a_dash(shell: Shell) -> None:
    """Behind a first --, a name may begin with a dash; the second one is not a command."""
    list_it = ("sh", "-c", 'exec "$@" | grep -o "^-n "', "sh", *COMMAND)
    for words in (("--", "-n", "80", "--"), ("--", "-n", "80")):
        said = shell.run("run", *words, *list_it, *shell.options, "services", "--", "-n")
        assert said == Said(0, "-n \n", "")
    assert shell.run("run", NAME, "80", "--", "echo", "--", "-n").out == "-- -n\n"


def test_statuses(shell: Shell, tmp_path: Path) -> None:
    """It ends with the status of the command, or 128 and the signal's number."""
    assert shell.run("run", NAME, "1", "--", "sh", "-c", "exit 200").status == 200
    assert shell.run("run", NAME, "1", "--", "sh", "-c", "kill -9 $$").status == 137
    assert shell.run("run", NAME, "1", "--", "sh", "-c", "kill $$").status == 143
    shell.run("run", NAME, "1", "--", "/no/such").ends(127, "/no/such cannot be run .*; .*")
    shell.run("run", NAME, "1", "--", str(tmp_path)).ends(126, ".* cannot be run .*; .*")


def test_not_run(shell: Shell, tmp_path: Path) -> None:
    """If the registration is refused, the command is not run."""
    mark = tmp_path / "ran"
    shell.run("run", "a.portmapd", "1", "--", "touch", str(mark)).ends(1, "name .*; .*")
    shell.run("run", NAME, "1", "--rpc", "100000:2", "--", "touch", str(mark)).ends(1, ".*; .*")
    assert not mark.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(shell: Shell, number: signal.Signals) -> None:
    """The command gets the signals that portmapctl gets, each once, and may go on."""
    running = shell.start("run", NAME, "1", "--", sys.executable, "-c", COUNT)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    assert end(running, number) == Said(9, f"{int(number)}\n", "")


@pytest.mark.parametrize("hangs_up", [False, True], ids=["interrupt", "hang-up"])
def test_terminal(shell: Shell, hangs_up: bool) -> None:
    """The command gets once what a terminal sends to both, and what it sends to portmapctl."""
    main, terminal = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    with shell.start(
        "run", NAME, "1", "--", sys.executable, "-c", COUNT,
        stdin=terminal, preexec_fn=take_terminal,
    ) as running:  # fmt: skip
        os.close(terminal)
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        if hangs_up:
            os.close(main)
        else:
            os.write(main, b"\x03")
        number = signal.SIGHUP if hangs_up else signal.SIGINT
        assert running.stdout.readline() == f"{int(number)}\n"
        assert running.wait(PATIENCE) == 9
    if not hangs_up:
        os.close(main)


def test_killed(shell: Shell, portmapper: Portmapper) -> None:
    """When portmapctl is killed, the registration is gone, and the command ends as well."""
    running = shell.start("run", NAME, "1", "--", sys.executable, "-c", COUNT)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.kill()
    running.wait(PATIENCE)
    eventually(lambda: portmapper.list(NAME) == [], "it is gone", PATIENCE)
    # The kernel may tell the command of each of portmapctl's threads.
    assert set(running.stdout.readline().split()) == {f"{int(signal.SIGTERM)}"}
    running.communicate(timeout=PATIENCE)


def test_run_over_a_restart(shell: Shell, daemon: Mortal, portmapper: Portmapper) -> None:
    """The name is registered again when the daemon was restarted."""
    running = shell.start("run", NAME, "1", "--", "sleep", "1000")
    eventually(lambda: portmapper.list(NAME), "it is registered", PATIENCE)
    daemon.kill()
    daemon.start()
    eventually(lambda: portmapper.list(NAME), "it is registered again", PATIENCE)
    assert end(running, signal.SIGTERM) == Said(143, "", "")


def test_run_loses(shell: Shell, daemon: Mortal, portmapper: Portmapper) -> None:
    """If it cannot be registered again, a line says so, and the command goes on."""
    running = shell.start("run", NAME, "1", "--", "sleep", "1000")
    eventually(lambda: portmapper.list(NAME), "it is registered", PATIENCE)
    running.send_signal(signal.SIGSTOP)
    daemon.kill()
    daemon.start()
    portmapper.reg(NAME, 2, 1)
    running.send_signal(signal.SIGCONT)
    assert running.stderr is not None
    line = running.stderr.readline()
    assert re.match(f"portmapctl: {NAME} is not registered any more: .*; .*", line)
    assert end(running, signal.SIGTERM) == Said(143, "", "")


# Endings


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--nonsense",),
        ("nonsense",),
        ("services", "a", "b"),
        ("services", "--pid", "one"),
        ("services", "--pid", DIGITS),
        ("services", "--pid", "4194305"),
        ("services", "--user", DIGITS),
        ("services", "--user", "4294967296"),
        ("pid2exe",),
        ("pid2exe", DIGITS),
        ("run", NAME),
        ("run", NAME, "80"),
        ("run", NAME, "0", "true"),
        ("run", NAME, "printer.sock", "true"),
        ("run", NAME, DIGITS, "true"),
        ("run", NAME, "/" + 107 * "a", "true"),
        ("run", "a b", "80", "true"),
        ("run", "--", "-n", "80", "--"),
        ("run", NAME, "80", "--rpc", "5", "true"),
        ("run", NAME, "80", "--rpc", "5:", "true"),
        ("run", NAME, "80", "--rpc", "5:-1", "true"),
        ("run", NAME, "80", "--rpc", "4294967296:1", "true"),
        ("run", NAME, "80", "true", "--nonsense"),
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_usage(words: tuple[str, ...]) -> None:
    """Wrong usage: status 2, and one line, without a daemon."""
    said = Shell("/nowhere").run(*words)
    said.ends(2, "[^\x1b]*; see portmapctl[a-z0-9 ]* --help")
    assert said.out == ""


@pytest.mark.parametrize(
    "words",
    [("services",), ("mappings",), ("pid2exe", "1"), ("watch",), ("run", NAME, "80", "true")],
    ids=" ".join,
)
def test_no_daemon(words: tuple[str, ...]) -> None:
    """No daemon: status 3, and a line that names the path and what to do."""
    said = Shell("/no\nwhere").run(*words)
    said.ends(3, r"no daemon answers at /no\\nwhere .* start it with .* --socket")
    assert said.out == ""


def test_no_permission(daemon: Mortal, shell: Shell) -> None:
    """A socket that may not be reached: status 3, and no advice to start what runs."""
    folder = Path(daemon.path).parent
    folder.chmod(0)
    try:
        process = shell.start("services", preexec_fn=enter_no_directory)
        out, why = process.communicate(timeout=PATIENCE)
    finally:
        folder.chmod(0o700)
    Said(process.returncode, out, why).ends(3, r".* \(Permission denied\).* you need permission .*")
    assert "start it" not in why


def enter_no_directory() -> None:
    """Have root enter no directories but those that anybody with its uid may."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_interrupted(daemon: Mortal, shell: Shell) -> None:
    """SIGINT ends it without a word: while it starts, and while it waits for an answer."""
    daemon.freeze()
    for begun in ("click", "portmapd.cli.commands"):
        asking = shell.start("services", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
        assert asking.stderr is not None
        next(line for line in asking.stderr if line.split("|")[-1].strip() == begun)
        said = end(asking, signal.SIGINT)
        assert said.status == -signal.SIGINT
        assert "Traceback" not in said.why
    daemon.thaw()


def test_help(shell: Shell) -> None:
    """Help is not an error; every command has a summary."""
    said = shell.run("--help")
    assert (said.status, said.why) == (0, "")
    for command in ("services", "run", "watch", "pid2exe", "mappings"):
        assert re.search(rf"^  {command} +\w", said.out, re.MULTILINE)
        assert shell.run(command, "--help").status == 0
    assert "..." not in said.out.partition("Commands:")[2]
    assert shell.run("-h").out == said.out


def test_other_encoding(daemon: Mortal, portmapper: Portmapper) -> None:
    """A terminal that has no character for a name gets an escape."""
    portmapper.reg("ж.example", 1)
    words = [*COMMAND, "--socket", daemon.path, "services", "--pid", str(ME)]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    said = subprocess.run(words, cwd=TOP, env=env, capture_output=True, check=True)
    assert rb"\u0436.example" in said.stdout
