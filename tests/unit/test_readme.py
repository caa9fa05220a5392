"""The README shows what the examples of the documentation show, which are run."""

import re
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.console_session import steps

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = TOP / "docs" / "examples"
README = (TOP / "README.md").read_text()


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
