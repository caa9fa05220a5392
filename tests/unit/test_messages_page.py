"""The page on messages has those that portmapd prints, and every refusal."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from portmapd import errors

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "docs" / "messages.rst").read_text()
#: What the page writes as code. In a message, an ellipsis stands for what differs.
CODE = re.compile(r"``([^`]+)``")


def texts() -> Iterator[str]:
    """The constant parts of every text of the package."""
    for path in (TOP / "portmapd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


class PageTests(SynchronousTestCase):
    """The messages of the page."""

    def test_messages_exist(self) -> None:
        """portmapd prints every message that the page has, but for what differs."""
        known = "\n".join(texts())
        messages = [" ".join(each.split()) for each in CODE.findall(PAGE) if "…" in each]
        self.assertGreater(len(messages), 50)
        parts = {part.strip() for each in messages for part in each.split("…")}
        self.assertEqual([part for part in sorted(parts) if part not in known], [])

    def test_refusals(self) -> None:
        """The page has every code of a refusal, of the local channel and of RPC."""
        kinds: list[type[errors.Refusal | errors.CallRefused]] = [
            *errors.Refusal.__subclasses__(),
            *errors.CallRefused.__subclasses__(),
        ]
        for kind in kinds:
            self.assertIn(f"``{kind.code}``", PAGE)
