"""The documentation's examples of the local channel, run as its pages show."""

import shutil
import signal
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest

from tests.support.console_session import play, steps
from tests.support.daemon import TWISTD
from tests.support.namespace import PATH, TOP, Namespace, Started, eventually

EXAMPLES = TOP / "docs" / "examples" / "local"
PROGRAMS = f"{Path(TWISTD).parent}:{PATH}"
START = "$ twistd --pidfile=portmapd.pid --logfile=portmapd.log portmapd\n"

#: A user who has logged in, but for a home. The capability stands in for a Python that everyone can
#: read, which need not be the one that runs the tests.
USER = 1000
RUNTIME = f"/run/user/{USER}"
AS_USER = (
    "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
    "env", f"XDG_RUNTIME_DIR={RUNTIME}",
)  # fmt: skip


class Shells:
    """The shells of a reader, in one folder with the example programs.

    :param folder: the folder.
    """

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self._namespace = namespace
        self._folder = folder

    def play(self, name: str) -> None:
        """Run a session to its end; each command prints what the page shows."""
        session = (EXAMPLES / f"{name}.console").read_text()
        play(self._namespace, session, PROGRAMS, self._folder)

    @contextmanager
    def left_running(
        self, name: str, until: str = "", number: signal.Signals = signal.SIGINT
    ) -> Iterator[Started]:
        """Run a session of one command while the block is run in another shell.

        :param until: what it prints before the block begins.
        :param number: ends it after the block; it has printed what the page shows then.
        """
        (step,) = steps((EXAMPLES / f"{name}.console").read_text())
        log = self._log(name)
        # An interactive shell gives each command SIGINT's usual meaning.
        running = self._namespace.start(
            "env", "-C", str(self._folder), "--default-signal=INT", *step.command.split(),
            log=log, env={"PATH": PROGRAMS, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        eventually(lambda: until in log.read_text(), f"{step.command} prints {until}")
        yield running
        running.stop(number)
        said = log.read_text()
        same = OutputChecker().check_output(step.output, said, ELLIPSIS | NORMALIZE_WHITESPACE)
        assert same, f"{step.command}\nprinted: {said}\nthe page shows: {step.output}"

    def program(self, name: str, until: str) -> Started:
        """Start an example program, and wait until it has printed *until*."""
        log = self._log(name)
        running = self._namespace.start(
            "env", "-C", str(self._folder), "python", name, log=log, env={"PATH": PROGRAMS}
        )
        eventually(lambda: until in log.read_text(), f"{name} prints {until}")
        return running

    def said(self, name: str) -> str:
        """What a session that is left running, or a program, has printed."""
        return self._log(name).read_text()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.out"


@pytest.fixture
def shells(namespace: Namespace, tmp_path: Path) -> Iterator[Shells]:
    """Give shells on a host whose daemon runs; it logs no error."""
    for program in (*EXAMPLES.glob("*.py"), EXAMPLES.parent / "greet.py"):
        shutil.copy(program, tmp_path)
    play(namespace, START, PROGRAMS, tmp_path)
    made = Shells(namespace, tmp_path)
    yield made
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()


def test_portmapctl(shells: Shells) -> None:
    """What portmapctl prints, and its statuses."""
    shells.play("portmapctl")


def test_blocking(shells: Shells) -> None:
    """A service that is held is registered again; a follower ends when it is told."""
    held = shells.program("held.py", "registered")
    shells.play("held")
    with shells.left_running("follow", until="registered", number=signal.SIGTERM) as follower:
        assert follower.running()
        held.stop(signal.SIGKILL)
        eventually(lambda: "deregistered" in shells.said("follow"), "it is told")


def test_hard_coded_port(shells: Shells) -> None:
    """The clock with a hard-coded port, and with a name."""
    shells.program("fixed_server.py", "serving")
    shells.program("fixed_client.py", "it is ")
    shells.program("named_server.py", "serving")
    shells.play("clock")


def test_user(shells: Shells, namespace: Namespace) -> None:
    """A user's own daemon beside the system's: the user's programs find it by themselves."""
    namespace.run("install", "-d", "-o", str(USER), RUNTIME)
    session = (EXAMPLES / "user.console").read_text()
    play(namespace, session, PROGRAMS, Path(RUNTIME), (*AS_USER, "bash"))
    assert "Traceback" not in namespace.run("cat", f"{RUNTIME}/own.log")


@pytest.mark.programs("systemd-analyze")
def test_user_unit(namespace: Namespace, tmp_path: Path) -> None:
    """systemd takes the unit without a complaint; its command serves the user's socket."""
    namespace.run("mount", "-t", "tmpfs", "tmpfs", "/opt")
    namespace.run("ln", "-s", str(Path(TWISTD).parents[1]), "/opt/portmapd")
    unit = tmp_path / "own.service"
    shutil.copy(EXAMPLES / "portmapd.service", unit)
    assert namespace.run("systemd-analyze", "verify", str(unit)) == ""
    namespace.run("install", "-d", "-o", str(USER), RUNTIME)
    parser = RawConfigParser()
    parser.read_string(unit.read_text())
    log = tmp_path / "own.log"
    namespace.start(*AS_USER, *parser["Service"]["ExecStart"].split(), log=log)
    socket = f"{RUNTIME}/portmapd.sock"
    eventually(lambda: "  File:" in namespace.run("stat", socket, status=None), "it serves")


def test_every_example_is_shown() -> None:
    """Each example is on a page."""
    pages = "".join(page.read_text() for page in (TOP / "docs").rglob("*.rst"))
    hidden = [path.name for path in EXAMPLES.iterdir() if f"local/{path.name}" not in pages]
    assert hidden == []
