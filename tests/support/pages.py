"""Are the built pages as they should be? ``python -m tests.support.pages docs/_build``

Every link leads somewhere, without a look at the network. No page is wider than its window, and in
a window of 1,200 pixels no line of code of up to 100 columns wraps or is clipped.
"""

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.browser import Browser, browser
from tests.support.namespace import TOP

WIDTHS = (1_200, 400)
#: Pages that Sphinx makes of nothing that anyone wrote.
_MADE = {"genindex.html", "py-modindex.html", "search.html"}
_MARKDOWN = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md")
_MARKDOWN_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")

#: What is too wide: the page for the window, or a line of code for its box. A line is measured in
#: a copy that does not wrap.
_TOO_WIDE = """
(() => {
  const page = document.documentElement;
  const faults = page.scrollWidth > page.clientWidth ? [`the page: ${page.scrollWidth}`] : [];
  if (innerWidth < 1000) return faults;
  for (const code of document.querySelectorAll(".highlight pre")) {
    const lines = code.textContent.split("\\n").filter(line => line.length <= 100);
    const longest = lines.reduce((a, b) => a.length > b.length ? a : b, "");
    const probe = code.cloneNode(false);
    probe.textContent = longest;
    probe.style.cssText = "position: absolute; white-space: pre; width: max-content";
    code.parentNode.append(probe);
    if (probe.offsetWidth > code.offsetWidth + 1) faults.push(`a line of code: ${longest}`);
    probe.remove();
  }
  return faults;
})()
"""


class Page(HTMLParser):
    """The links of a page, and where links may lead in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        self.links += [found[name] for name in ("href", "src") if name in found]


def broken_links(folder: Path) -> Iterator[str]:
    """The links of built pages that lead nowhere."""
    pages = {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            if not _leads_somewhere(path, link, pages):
                yield f"{path.relative_to(folder)}: {link}"


def _leads_somewhere(page: Path, link: str, pages: Mapping[Path, Page]) -> bool:
    url = urlsplit(link)
    if url.scheme or url.netloc:
        # The addresses of examples are not looked up; those of others' pages are encrypted.
        return url.scheme in ("https", "data", "mailto") and (bool(url.netloc) or bool(url.path))
    target = (page.parent / unquote(url.path)).resolve() if url.path else page
    if not target.exists():
        return False
    return not url.fragment or target not in pages or url.fragment in pages[target].places


def broken_markdown_links(top: Path) -> Iterator[str]:
    """The links of files in Markdown that lead nowhere."""
    for name in _MARKDOWN:
        path = top / name
        for link in _MARKDOWN_LINK.findall(path.read_text()):
            if not _leads_somewhere(path, link, {}):
                yield f"{name}: {link}"


def too_wide(folder: Path, pages: Iterable[Path]) -> Iterator[str]:
    """What is wider than its window, or its box."""
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as chromium:
        for width in WIDTHS:
            chromium.show(width, 900)
            for path in pages:
                for fault in _faults(chromium, path.resolve().as_uri()):
                    yield f"{path.relative_to(folder)} at {width} pixels: {fault}"


def _faults(chromium: Browser, url: str) -> list[str]:
    chromium.call("Page.navigate", url=url)
    chromium.until(f"location.href === {url!r} && document.readyState === 'complete'", url)
    faults: list[str] = chromium.run(_TOO_WIDE)
    return faults


def main(folder: Path) -> int:
    """Print what is wrong.

    :return: the exit status.
    """
    pages = [path for path in sorted(folder.rglob("*.html")) if path.name not in _MADE]
    assert len(pages) > 20, f"{folder} has no pages: run make docs"
    faults = [*broken_links(folder), *broken_markdown_links(TOP), *too_wide(folder, pages)]
    print("\n".join([*faults, f"{len(pages)} pages, {len(faults)} faults"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
