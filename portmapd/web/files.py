"""The files of the status page."""

from pathlib import Path

from portmapd.web.query import Answer, Handler, Query

FOLDER = Path(__file__).with_name("page")
#: Paths, their files and their media types.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


def file_handlers() -> dict[str, Handler]:
    """What answers with each file, by its path; the files are read once."""
    return {path: _handler(FOLDER / name, kind) for path, (name, kind) in FILES.items()}


def _handler(file: Path, kind: str) -> Handler:
    contents = file.read_bytes()

    def answer(query: Query) -> Answer:
        return Answer([contents], kind)

    return answer
