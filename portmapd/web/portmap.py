"""``/portmap``: the named services, in the form of httportmap, as CSV, JSON or HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape

from portmapd.channel.service import is_number
from portmapd.registry.registry import Registry
from portmapd.registry.service import NamedService
from portmapd.server.listing import Filter, service_pages
from portmapd.web.accept import choose
from portmapd.web.query import Answer, Query, RequestRefused

#: The columns. ``prog`` is the executable of a public service.
COLUMNS = ("service", "user", "pid", "port", "prog")
#: A page of so many services is made in a few milliseconds.
PAGE = 500
#: The most values of all filters.
MAX_VALUES = 1_000
#: What a cell begins with that a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@")

Pages = Iterator[list[NamedService]]


def is_shown(service: NamedService, is_local: bool) -> bool:
    """Whether a caller is shown *service*: one on a UNIX socket is of use on this host alone.

    :param is_local: whether the caller is on this host.
    """
    return is_number(service.port) or (is_local and service.port.startswith("/"))


class PortmapPage:
    """Lists services.

    :param registry: whose services are listed.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def answer(self, query: Query) -> Answer:
        """The services that the fields ``service``, ``user`` and ``pid`` leave.

        :raises RequestRefused: a field is unknown, or has a value that it cannot have.
        """
        wanted = _filter(query.fields)
        kind = choose(query.accept, tuple(_FORMS))
        write, parameters = _FORMS[kind]
        pages = (
            [service for service in page if is_shown(service, query.is_local)]
            for page in service_pages(self._registry, wanted, PAGE)
        )
        # The name of an executable may be no text.
        body = (part.encode(errors="backslashreplace") for part in write(pages))
        return Answer(body, kind + parameters, headers={"Vary": "Accept"})


def _filter(fields: Mapping[str, Sequence[str]]) -> Filter:
    unknown = sorted(set(fields) - {"service", "user", "pid"})
    if unknown:
        raise RequestRefused(400, f"field {unknown[0][:64]!r} is none of service, user, pid")
    if sum(map(len, fields.values())) > MAX_VALUES:
        raise RequestRefused(400, f"the filters have more than {MAX_VALUES} values")
    return Filter(
        frozenset(fields.get("service", ())),
        frozenset(_numbers(fields, "user")),
        frozenset(_numbers(fields, "pid")),
    )


def _numbers(fields: Mapping[str, Sequence[str]], name: str) -> Iterable[int]:
    for value in fields.get(name, ()):
        if not (value.isascii() and value.isdecimal() and len(value) <= 10):
            raise RequestRefused(400, f"{name} {value[:64]!r} is not a number")
        yield int(value)


def _cells(service: NamedService) -> tuple[str, int, int, int | str, str]:
    port = int(service.port) if is_number(service.port) else service.port
    return service.name, service.uid, service.pid, port, service.exe


def _csv(pages: Pages) -> Iterator[str]:
    yield ",".join(COLUMNS) + "\r\n"
    for page in pages:
        lines = io.StringIO()
        csv.writer(lines).writerows(map(_inert, map(_cells, page)))
        yield lines.getvalue()


def _inert(cells: Iterable[object]) -> list[object]:
    """Cells that no spreadsheet calculates: what looks like a formula has an apostrophe."""
    return [f"'{c}" if isinstance(c, str) and c.startswith(FORMULA) else c for c in cells]


def _json(pages: Pages) -> Iterator[str]:
    before = "[\n"
    for page in pages:
        rows = [json.dumps(dict(zip(COLUMNS, _cells(service), strict=True))) for service in page]
        if rows:
            yield before + ",\n".join(rows)
            before = ",\n"
    yield "[]\n" if before.startswith("[") else "\n]\n"


_HEAD = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>portmap</title><link rel="stylesheet" href="page.css">
<main><h1>Services</h1>
<form method="get"><label>service <input name="service"></label>
<button>List</button> <a href="portmap">all</a></form>
<div class="wide"><table><thead><tr>"""
_TAIL = "</tbody></table></div></main></html>\n"


def _html(pages: Pages) -> Iterator[str]:
    yield _HEAD + "".join(f"<th>{name}</th>" for name in COLUMNS) + "</tr></thead><tbody>\n"
    for page in pages:
        yield "".join(
            f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in _cells(service))}</tr>\n"
            for service in page
        )
    yield _TAIL


#: The forms by their media types, with the parameters of these; the first one is for callers who
#: do not say.
_FORMS: dict[str, tuple[Callable[[Pages], Iterator[str]], str]] = {
    "text/csv": (_csv, "; charset=utf-8; header=present"),
    "application/json": (_json, ""),
    "text/html": (_html, "; charset=utf-8"),
}
