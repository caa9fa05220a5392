"""The files for developers agree with the project: pages, hooks, news fragments."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

TOP = Path(__file__).resolve().parents[2]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "README.md", "changes/README.md", "bench/README.md")
#: A path as pages write it: in backquotes, or as the target of a link.
PATH = re.compile(r"`(\w+/[\w./-]*)`|\]\((?!https?:)([^)#]+)\)")


def hooks() -> list[dict[str, Any]]:
    """The hooks of pre-commit."""
    config = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())
    return [hook for repo in config["repos"] for hook in repo["hooks"]]


def kinds() -> list[str]:
    """The kinds of news fragments."""
    config = tomllib.loads((TOP / "pyproject.toml").read_text())
    return [kind["directory"] for kind in config["tool"]["towncrier"]["type"]]


def paths(page: str) -> Iterator[Path]:
    """The files and folders of the project that a page names."""
    text = (TOP / page).read_text()
    for quoted, linked in PATH.findall(text):
        if quoted:
            yield TOP / quoted
        else:
            yield (TOP / page).parent / linked


class PageTests(SynchronousTestCase):
    """The pages at the top."""

    def test_paths_exist(self) -> None:
        """A reader finds every file that a page sends them to."""
        named = [(page, path) for page in PAGES for path in paths(page)]
        missing = [f"{page}: {path.relative_to(TOP)}" for page, path in named if not path.exists()]
        self.assertEqual(missing, [])

    def test_rooms(self) -> None:
        """A newcomer finds every room of the package in both tables of rooms."""
        modules = {path.name for path in (TOP / "portmapd").glob("*.py")} - {"__init__.py"}
        rooms = modules | {f"{path.parent.name}/" for path in TOP.glob("portmapd/*/__init__.py")}
        for page, row, room in (
            ("CONTRIBUTING.md", r"(?m)^\| (`portmapd/.*?) \|", r"`portmapd/(.*?)`"),
            ("docs/architecture.rst", r"(?m)^   \* - (``.*)$", r"``(.*?)``"),
        ):
            rows = re.findall(row, (TOP / page).read_text())
            found = {name for each in rows for name in re.findall(room, each)}
            self.assertEqual(rooms - found, set(), page)


class HookTests(SynchronousTestCase):
    """The configuration of pre-commit."""

    def test_hooks_are_the_checks(self) -> None:
        """The hooks run the commands of ``make lint`` and ``make types``."""
        makefile = (TOP / "Makefile").read_text()
        for hook in hooks():
            self.assertIn(hook["entry"].replace(".venv/bin", "$(BIN)"), makefile)

    def test_hooks_run_on_any_file(self) -> None:
        """Each is a program of the environment that looks at the whole project."""
        self.assertEqual(len(hooks()), 3)
        for hook in hooks():
            self.assertEqual((hook["language"], hook["pass_filenames"]), ("system", False))

    def test_commands_exist(self) -> None:
        """The tools of ``make lint`` and ``make types`` are among the developers' packages."""
        requirements = (TOP / "setup.cfg").read_text()
        for hook in hooks():
            tool = Path(shlex.split(hook["entry"])[0])
            self.assertRegex(requirements, rf"(?m)^    {tool.name} >=")


class FragmentTests(SynchronousTestCase):
    """The news fragments."""

    def test_kinds(self) -> None:
        """Every fragment is of a kind that the changelog has."""
        self.assertEqual(kinds(), ["added", "changed", "fixed", "removed", "security"])
        names = [path.name for path in (TOP / "changes").glob("*.md") if path.name != "README.md"]
        self.assertEqual([name for name in names if name.split(".")[-2] not in kinds()], [])
