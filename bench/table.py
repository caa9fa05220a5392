"""The table that people read."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

Records = Sequence[Mapping[str, Any]]

PEERS, CHECKOUTS = ("portmapd", "peer"), ("after", "before")
"""The heads of the two figures' columns."""

_LEFT = {0, 3, 6, 7}
_VERDICT = {True: "yes", False: "NO", None: ""}


def table(records: Records, figures: tuple[str, str] = PEERS) -> list[str]:
    """The rows, aligned, figures to the right, and their notes.

    :param figures: the heads of the figures' columns.
    """
    head = ("what", *figures, "", "ratio", "(rounds)", "goal", "met")
    lines = aligned([head, *map(_cells, records)], _LEFT)
    return [*lines, *(_note(record) for record in records if record["note"])]


def aligned(cells: Sequence[Sequence[str]], left: Container[int]) -> list[str]:
    """Lines with a head, and a rule below it.

    :param cells: the head, and the rows.
    :param left: the columns whose cells are to the left.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(line, widths, left) for line in cells]
    rule = "-" * max(map(len, lines))
    return [lines[0], rule, *lines[1:]]


def _cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    unit, ratio, ratios = record["unit"], record["ratio"], record["ratios"]
    return (
        record["what"],
        _figure(record["portmapd"], unit),
        _figure(record["peer_figure"], unit),
        record["peer"],
        "" if ratio is None else f"{ratio:.2f}",
        f"{min(ratios):.2f}-{max(ratios):.2f}" if len(set(ratios)) > 1 else "",
        record["goal"] or "",
        _VERDICT[record["met"]],
    )


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if value >= 1000 else 1 if value >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def _line(cells: Iterable[str], widths: Sequence[int], left: Container[int]) -> str:
    columns = enumerate(zip(cells, widths, strict=True))
    return "  ".join(
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in columns
    ).rstrip()


def _note(record: Mapping[str, Any]) -> str:
    beside = f" (beside {record['peer']})" if record["peer"] else ""
    return f"{record['what']}{beside}: {record['note']}"
