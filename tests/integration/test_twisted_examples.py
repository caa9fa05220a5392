"""The examples of the clients for Twisted and asyncio, run as their pages show."""

import shutil
import signal
from collections.abc import Iterator
from doctest import NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest

from tests.support.console_session import play, steps
from tests.support.daemon import TWISTD
from tests.support.namespace import PATH, TOP, Namespace, Started, eventually

DOCS = TOP / "docs"
EXAMPLES = DOCS / "examples" / "twisted"
ASYNCIO = DOCS / "examples" / "asyncio"
PROGRAMS = f"{Path(TWISTD).parent}:{PATH}"
START = "$ twistd --pidfile=portmapd.pid --logfile=portmapd.log portmapd\n"


@pytest.fixture
def folder(namespace: Namespace, tmp_path: Path) -> Iterator[Path]:
    """Give a folder with the programs, on a host whose daemon runs; it logs no error."""
    for program in (*EXAMPLES.glob("*.py"), *ASYNCIO.glob("*.py")):
        shutil.copy(program, tmp_path)
    play(namespace, START, PROGRAMS, tmp_path)
    yield tmp_path
    assert "Traceback" not in (tmp_path / "portmapd.log").read_text()


def started(namespace: Namespace, folder: Path, program: str) -> Started:
    """Start a program in the folder; what it prints goes to a file of its name."""
    words = ("env", "-C", str(folder), "python", program)
    return namespace.start(*words, log=folder / f"{program}.out", env={"PATH": PROGRAMS})


def prints(folder: Path, program: str, what: str) -> None:
    """Wait until a program has printed this."""
    log = folder / f"{program}.out"
    eventually(lambda: what in log.read_text(), f"{program} prints {what}")


def test_shouting(namespace: Namespace, folder: Path) -> None:
    """The server is found by its name, also after the daemon was restarted."""
    started(namespace, folder, "shouter.py")
    prints(folder, "shouter.py", "registered")
    play(namespace, (EXAMPLES / "shout.console").read_text(), PROGRAMS, folder)
    assert "not registered" not in (folder / "shouter.py.out").read_text()


def test_watching(namespace: Namespace, folder: Path) -> None:
    """Whoever watches sees the server come and go."""
    (step,) = steps((EXAMPLES / "shouters.console").read_text())
    watching = started(namespace, folder, step.command.split()[-1])
    server = started(namespace, folder, "shouter.py")
    prints(folder, "shouters.py", "registered 2")
    server.stop(signal.SIGKILL)
    prints(folder, "shouters.py", "deregistered 0")
    watching.stop(signal.SIGINT)
    said = (folder / "shouters.py.out").read_text()
    assert OutputChecker().check_output(step.output, said, NORMALIZE_WHITESPACE), said


def test_nobody(namespace: Namespace, folder: Path) -> None:
    """Without a server, its client says so."""
    said = namespace.run(
        "env", "-C", str(folder), "python", "shout.py", "hello", status=1, env={"PATH": PROGRAMS}
    )
    assert said == "no service shouter.example.com is registered\n"


def test_echo(namespace: Namespace, folder: Path) -> None:
    """The asyncio server is found by its name, also after the daemon was restarted."""
    started(namespace, folder, "echo_server.py")
    prints(folder, "echo_server.py", "registered")
    play(namespace, (ASYNCIO / "echo.console").read_text(), PROGRAMS, folder)
    assert "not registered" not in (folder / "echo_server.py.out").read_text()


def test_echo_watch(namespace: Namespace, folder: Path) -> None:
    """Whoever watches it sees it come and go."""
    (step,) = steps((ASYNCIO / "echo_watch.console").read_text())
    watching = started(namespace, folder, step.command.split()[-1])
    server = started(namespace, folder, "echo_server.py")
    prints(folder, "echo_watch.py", "registered")
    server.stop(signal.SIGKILL)
    prints(folder, "echo_watch.py", "deregistered")
    watching.stop(signal.SIGINT)
    said = (folder / "echo_watch.py.out").read_text()
    assert OutputChecker().check_output(step.output, said, NORMALIZE_WHITESPACE), said


@pytest.mark.parametrize(
    ("examples", "page"), [(EXAMPLES, "twisted-client.rst"), (ASYNCIO, "asyncio.rst")]
)
def test_every_example_is_shown(examples: Path, page: str) -> None:
    """Each example is on its page."""
    text = (DOCS / "howto" / page).read_text()
    names = [f"{path.parent.name}/{path.name}" for path in examples.iterdir()]
    assert [name for name in names if name not in text] == []
