"""The table that people read, and the same rows for programs."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench.rows import Row

_HEAD = ("what", "portmapd", "peer", "", "ratio", "(rounds)", "goal", "met")
_LEFT = {0, 3, 6, 7}
_VERDICT = {True: "yes", False: "NO", None: ""}


def lines(rows: Sequence[Row]) -> list[str]:
    """The table, aligned; figures to the right. Notes follow it."""
    cells = [_HEAD, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    table = [_line(line, widths) for line in cells]
    notes = [f"{_name(row)}: {row.note}" for row in rows if row.note]
    return [table[0], "-" * max(map(len, table)), *table[1:], *notes]


def record(row: Row) -> dict[str, Any]:
    """A row as JSON has it, with the ratio of each round."""
    return {
        "what": row.what,
        "unit": row.unit,
        "portmapd": row.ours,
        "peer": row.peer,
        "peer_figure": row.theirs,
        "ratio": row.ratio,
        "ratios": list(row.ratios),
        "ratios_set_aside": list(row.set_aside),
        "goal": str(row.goal) if row.goal else None,
        "met": row.met,
        "note": row.note,
    }


def _name(row: Row) -> str:
    return f"{row.what} (beside {row.peer})" if row.peer else row.what


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.what,
        _figure(row.ours, row.unit),
        "" if row.theirs is None else _figure(row.theirs, row.unit),
        row.peer,
        "" if row.ratio is None else f"{row.ratio:.2f}",
        f"{min(row.ratios):.2f}-{max(row.ratios):.2f}" if len(row.ratios) > 1 else "",
        str(row.goal) if row.goal else "",
        _VERDICT[row.met],
    )


def _figure(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 10 else 3
    return f"{value:,.{digits}f} {unit}"


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    aligned = (
        cell.ljust(width) if column in _LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(aligned).rstrip()
