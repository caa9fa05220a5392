"""The directives ``bars`` and ``figures``: what the benchmark measured, as plots and as a table.

``make bench ARGS=--page`` writes the file that both read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FIGURES = Path(__file__).resolve().parents[1] / "performance.json"
Row = Mapping[str, Any]


def figure(value: float, unit: str) -> str:
    """A figure with its unit, as people read it."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 3
    return f"{value:,.{digits}f}{'' if unit == '/s' else ' '}{unit}"


class Figures(SphinxDirective):
    """Base of the directives: reads the figures."""

    def document(self) -> Mapping[str, Any]:
        """What the benchmark wrote."""
        self.env.note_dependency(str(FIGURES))
        document: Mapping[str, Any] = json.loads(FIGURES.read_text())
        return document


class Bars(Figures):
    """A bar for each server, for the rows that the lines of the content name."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        rows = list(self._rows())
        most = max(value for row in rows for _, value in _values(row))
        bars = "".join(_group(row, most) for row in rows)
        caption = f"<figcaption>{escape(self.arguments[0])}</figcaption>"
        return [nodes.raw("", f'<figure class="bars">{caption}{bars}</figure>', format="html")]

    def _rows(self) -> Iterator[Row]:
        """The rows, in the order of the content; each line names one, and its peer behind ``|``."""
        known = {(row["what"], row["peer"]): row for row in self.document()["rows"]}
        for line in self.content:
            what, _, peer = (part.strip() for part in line.partition("|"))
            if (what, peer) not in known:
                raise self.error(f"{FIGURES.name} has no row {what!r} beside {peer!r}")
            yield known[what, peer]


def _values(row: Row) -> Iterator[tuple[str, float]]:
    yield "portmapd", row["portmapd"]
    if row["peer"]:
        yield row["peer"], row["peer_figure"]


def _group(row: Row, most: float) -> str:
    bars = (
        f'<div class="bar {"ours" if name == "portmapd" else "peer"}">'
        f'<span class="server">{escape(name)}</span>'
        f'<span class="track"><span style="width: {100 * value / most:.1f}%"></span></span>'
        f'<span class="value">{escape(figure(value, row["unit"]))}</span></div>'
        for name, value in _values(row)
    )
    return f'<div class="row"><div class="what">{escape(row["what"])}</div>{"".join(bars)}</div>'


class AllFigures(Figures):
    """A table of all rows, and what they were measured on."""

    def run(self) -> list[nodes.Node]:
        document = self.document()
        made = nodes.container()
        lines = StringList([*_machine(document), "", *_table(document["rows"])], FIGURES.name)
        self.state.nested_parse(lines, 0, made)
        return made.children


def _machine(document: Mapping[str, Any]) -> Iterator[str]:
    machine, plan = document["machine"], document["plan"]
    yield (
        f"Measured on {document['date']}, with {machine['processors']} processors, Linux "
        f"{machine['kernel'].split('-')[0]} and Python {machine['python']}, in {plan['rounds']} "
        f"rounds of {plan['seconds']:g} seconds. Disturbed rounds are left out where "
        f"{plan['calm_rounds']} calm ones remain."
    )


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 44 18 18 12 8", "")
    head = ("What", "portmapd", "Peer", "", "Ratio")
    for cells in (head, *map(_cells, rows)):
        yield from (f"   {'*' if not at else ' '} - {cell}" for at, cell in enumerate(cells))


def _cells(row: Row) -> Sequence[str]:
    peer = figure(row["peer_figure"], row["unit"]) if row["peer"] else ""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    return row["what"], figure(row["portmapd"], row["unit"]), peer, row["peer"], ratio


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("bars", Bars)
    app.add_directive("figures", AllFigures)
    return {"parallel_read_safe": True}
