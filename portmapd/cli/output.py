"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence

import click

from portmapd.cli.text import cell, columns, table

#: Objects of JSON.
Records = Sequence[Mapping[str, object]]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def show(
    as_json: bool,
    records: Records,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> None:
    """Print *records* as JSON, or else *rows* as a table, if there are any."""
    if as_json:
        click.echo(encoded(records, indent=2))
    elif records:
        show_table(head, rows)


def show_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; on a terminal, its heading stands out."""
    heading, *lines = table(head, rows)
    echo(heading, bold=True)
    for text in lines:
        click.echo(text)


def encoded(value: object, indent: int | None = None) -> str:
    """*value* as JSON, in characters that do not steer a terminal."""
    # JSON escapes all others.
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def echo(text: str, **style: bool | str) -> None:
    """Print a line, in a style if it goes to a terminal that has not declined colour."""
    if os.environ.get("NO_COLOR"):
        click.echo(text)
    else:
        click.secho(text, **style)  # type: ignore[arg-type]


def row(values: Sequence[object], widths: Sequence[int]) -> str:
    """A line of a table whose later rows are not known yet."""
    return columns([cell(value) for value in values], widths)
