"""The README shows what the examples of the documentation show, which are run."""

import json
import re
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.console_session import steps

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = TOP / "docs" / "examples"
README = (TOP / "README.md").read_text()
#: Rows of the README, each with the rows of the performance page that it shows: what was measured,
#: the peer, and whose figure it is.
OURS, THEIRS = "portmapd", "peer_figure"
FIGURES = {
    "`GETPORT` calls a second over UDP": (
        ("GETPORT, UDP, 32 in flight", "rpcbind", OURS),
        ("GETPORT, UDP, 32 in flight", "rpcbind", THEIRS),
    ),
    "look-ups a second among 900 names": (
        ("lookup, 900 names", "epmd", OURS),
        ("lookup, connected before, 900 names", "epmd", OURS),
        ("lookup, 900 names", "epmd", THEIRS),
    ),
    "memory when idle": (
        ("resident when idle", "rpcbind", OURS),
        ("resident when idle", "rpcbind", THEIRS),
    ),
}


def about(figure: float) -> str:
    """A figure of two digits that count."""
    return f"{float(f'{figure:.2g}'):,g}"


def blocks(language: str) -> list[str]:
    """The blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


class ReadmeTests(SynchronousTestCase):
    """Its blocks of code."""

    def test_session(self) -> None:
        """Each command is one of an example, which allows what the README says that it printed."""
        played = {
            s.command: s.output for s in steps((EXAMPLES / "start_services.console").read_text())
        }
        (session,) = blocks("console")
        for step in steps(session):
            allowed = played[step.command]
            same = OutputChecker().check_output(
                allowed, step.output, ELLIPSIS | NORMALIZE_WHITESPACE
            )
            self.assertTrue(same, step)

    def test_program(self) -> None:
        """The program is an example."""
        (program,) = blocks("python")
        self.assertIn(program, (EXAMPLES / "greeter.py").read_text())

    def test_figures(self) -> None:
        """The figures of speed and memory are those of the performance page."""
        measured = json.loads((TOP / "docs" / "performance.json").read_text())["rows"]
        found = {(row["what"], row["peer"]): row for row in measured}
        for shown, sources in FIGURES.items():
            (line,) = re.findall(rf"^\| {re.escape(shown)} \|.*", README, re.MULTILINE)
            figures = [about(found[what, peer][whose]) for what, peer, whose in sources]
            self.assertEqual(re.findall(r"\d(?:[\d.,]*\d)?", line.split("|", 2)[2]), figures)
