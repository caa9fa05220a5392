"""The documentation's example programs, run as its pages show."""

import shutil
from pathlib import Path

import pytest

from tests.support.console_session import play
from tests.support.daemon import TWISTD
from tests.support.namespace import PATH, TOP, Namespace

EXAMPLES = TOP / "docs" / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the programs, where sessions may leave their files."""
    for program in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.tac")):
        shutil.copy(program, tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.console")), ids=lambda path: path.stem)
def test_session(namespace: Namespace, folder: Path, example: Path) -> None:
    """Each command of a session prints what the page shows, and no daemon logs an error."""
    path = f"{Path(TWISTD).parent}:{PATH}"
    play(namespace, example.read_text(), path, folder)
    logs = [log.read_text() for log in folder.glob("*.log")]
    assert logs
    assert not any("Traceback" in log or "Unhandled" in log for log in logs)


def test_every_program_is_shown() -> None:
    """Each example is on a page, and is run by a session."""
    pages = "".join(page.read_text() for page in (TOP / "docs").rglob("*.rst"))
    sessions = "".join(session.read_text() for session in EXAMPLES.glob("*.console"))
    for example in EXAMPLES.glob("*.*"):
        assert f"examples/{example.name}" in pages
        # A conversation is a test's to hold.
        assert example.suffix in {".console", ".txt"} or example.name in sessions
