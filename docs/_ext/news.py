"""The directive ``news``: the changelog, and before it what the next release will say."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

TOP = Path(__file__).resolve().parents[2]
#: What lines a heading of Markdown is underlined with.
_UNDERLINES = {"## ": "-", "### ": "~"}
_MARKUP = re.compile(r"([*_|\\])")


def _draft() -> Iterator[str]:
    """The lines of the fragments, in Markdown, as ``towncrier`` orders them."""
    config = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["towncrier"]
    folder = TOP / config["directory"]
    yield "## The next release"
    for kind in config["type"]:
        fragments = sorted(folder.glob(f"*.{kind['directory']}.md"))
        if fragments:
            yield from ("", f"### {kind['name']}", "")
        for fragment in fragments:
            yield "- " + " ".join(fragment.read_text().split())
    yield ""


def _released() -> list[str]:
    """The lines of the releases in ``CHANGELOG.md``."""
    _, _, releases = (TOP / "CHANGELOG.md").read_text().partition("release notes start -->\n")
    return releases.splitlines()


def _line(markdown: str) -> Iterator[str]:
    """The lines of reStructuredText that a line of Markdown is."""
    heading = re.match(r"##+ ", markdown)
    text = markdown[heading.end() :] if heading else markdown
    odd = re.split(r"`([^`]*)`", text)
    odd[::2] = [_MARKUP.sub(r"\\\1", plain) for plain in odd[::2]]
    odd[1::2] = [f"``{code}``" for code in odd[1::2]]
    yield "".join(odd)
    if heading:
        yield _UNDERLINES[heading[0]] * len("".join(odd))


class News(SphinxDirective):
    """The next release, and every release before it."""

    def run(self) -> list[nodes.Node]:
        lines = [line for each in (*_draft(), *_released()) for line in _line(each)]
        changes = TOP / "changes"
        # The folder changes with each fragment that comes or goes.
        for path in (TOP / "CHANGELOG.md", changes, *changes.glob("*.md")):
            self.env.note_dependency(str(path))
        made = nodes.section()
        nested_parse_with_titles(self.state, StringList(lines, "CHANGELOG.md"), made)
        return list(made.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive to Sphinx."""
    app.add_directive("news", News)
    return {"parallel_read_safe": True}
