"""The examples of the Twisted client, run as its page shows."""

import shutil
import signal
from collections.abc import Iterator
from doctest import NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest

from tests.support.console_session import play, steps
from tests.support.daemon import TWISTD
from tests.support.namespace import PATH, TOP, Namespace, Started, eventually

EXAMPLES = TOP / "docs" / "examples" / "twisted"
PROGRAMS = f"{Path(TWISTD).parent}:{PATH}"
START = "$ twistd --pidfile=portmapd.pid --logfile=portmapd.log portmapd\n"


@pytest.fixture
def folder(namespace: Namespace, tmp_path: Path) -> Iterator[Path]:
    """Give a folder with the programs, on a host whose daemon runs; it logs no error."""
    for program in EXAMPLES.glob("*.py"):
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


def test_every_example_is_shown() -> None:
    """Each example is on the page."""
    page = (TOP / "docs" / "howto" / "twisted-client.rst").read_text()
    hidden = [path.name for path in EXAMPLES.iterdir() if f"twisted/{path.name}" not in page]
    assert hidden == []
