"""Text for terminals: escaped, in aligned columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from unicodedata import combining, east_asian_width

#: The separator of columns.
GAP = "  "
#: How much of a wrong word is shown, in characters.
SHOWN = 64


def line(text: str) -> str:
    """*text* as one line whose control characters are escaped, so it cannot steer a terminal."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def cell(value: object) -> str:
    """*value* as a part of a line. Backslashes are doubled, so escapes are unambiguous."""
    return line(str(value).replace("\\", "\\\\"))


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a table, its columns aligned."""
    cells = [tuple(head), *(tuple(map(cell, row)) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return (columns(row, widths) for row in cells)


def columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    """A line of cells, each padded to its width."""
    padded = [
        text + " " * (width - _width(text)) for text, width in zip(cells, widths, strict=True)
    ]
    return GAP.join(padded).rstrip()


def _width(text: str) -> int:
    """The number of columns that *text* takes on a terminal."""
    return sum(_places(char) for char in text)


def _places(char: str) -> int:
    if combining(char):
        return 0
    return 2 if east_asian_width(char) in {"W", "F"} else 1
