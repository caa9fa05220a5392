"""The page on reliability names tests that there are."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "docs" / "reliability.rst").read_text()
#: A test as the page names it: its file, and its function.
NAMED = re.findall(r"``(test_\w+\.py)::(\w+)``", PAGE)


class PageTests(SynchronousTestCase):
    """Its promises have tests."""

    def test_named_tests_exist(self) -> None:
        """Every test that the page names is in the file that it names."""
        self.assertGreater(len(NAMED), 30)
        for file, function in NAMED:
            texts = [path.read_text() for path in (TOP / "tests").rglob(file)]
            self.assertTrue(any(f"def {function}(" in text for text in texts), (file, function))

    def test_named_targets_exist(self) -> None:
        """Every command that it names is a target of the Makefile."""
        makefile = (TOP / "Makefile").read_text()
        for target in set(re.findall(r"``make (\w+)", PAGE)):
            self.assertIn(f"\n{target}:", makefile)
