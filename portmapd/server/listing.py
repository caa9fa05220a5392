"""Listings of the registry, a page at a time."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from attrs import frozen

from portmapd.channel.arguments import Rows
from portmapd.channel.commands import MAPPING_ROW, SERVICE_ROW
from portmapd.errors import BadArguments
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Key, Mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import NamedService
from portmapd.server.watchers import mapping_row, service_row

#: A page ends when its rows have so many bytes: a value holds 65,535, and a row at most 5,000.
MAX_PAGE = 32_768
#: A page ends when so many registrations were looked at, so that others do not wait long.
MAX_LOOKED_AT = 2_000

#: The position of a service in listings: the serials of its holder and of itself.
Position = tuple[int, int]


@frozen
class Filter:
    """Which services a listing has. An empty field allows all; all three must match."""

    names: frozenset[str] = frozenset()
    users: frozenset[int] = frozenset()
    pids: frozenset[int] = frozenset()

    def matches(self, service: NamedService) -> bool:
        """Does the listing have *service*?"""
        return (
            (not self.names or service.name in self.names)
            and (not self.users or service.uid in self.users)
            and (not self.pids or service.pid in self.pids)
        )


def list_services(
    registry: Registry, wanted: Filter, after: str | None
) -> tuple[bytes, str | None]:
    """A page of the services that *wanted* matches.

    :param after: the end of the page before; None for the first page.
    :return: the rows, encoded; and the end of this page, None for the last one.
    :raises BadArguments: *after* is not the end of any page.
    """
    start = _position(after)
    candidates = (s for s in _candidates(registry, wanted, start) if s.place > start)
    return _page(candidates, wanted.matches, SERVICE_ROW, service_row, _end_of_service)


def service_pages(
    registry: Registry, wanted: Filter, looked_at: int = MAX_LOOKED_AT
) -> Iterator[list[NamedService]]:
    """The services that *wanted* matches, in pages: there may be changes between two of them.

    A service that is registered all the time is in one of them.

    :param looked_at: how many services are looked at for a page.
    """
    start: Position = 0, 0
    while True:
        later = (s for s in _candidates(registry, wanted, start) if s.place > start)
        page = list(islice(later, looked_at))
        if not page:
            return
        start = page[-1].place
        yield [service for service in page if wanted.matches(service)]


def _candidates(registry: Registry, wanted: Filter, start: Position) -> Iterable[NamedService]:
    """The services that may be wanted, in the order of their positions."""
    if wanted.pids:
        holders = (h for pid in sorted(wanted.pids) for h in registry.holders_of(pid))
        return (s for h in sorted(holders, key=_serial) for s in h.services.values())
    if wanted.names:
        named = (s for name in wanted.names for s in registry.names.of(name))
        return sorted(named, key=_position_of)
    return (s for h in registry.holders_after(start[0]) for s in h.services.values())


def list_mappings(registry: Registry, after: str | None) -> tuple[bytes, str | None]:
    """A page of the mappings; see :func:`list_services`."""
    return _page(
        registry.mappings.after(_key(after)), _any, MAPPING_ROW, mapping_row, _end_of_mapping
    )


def _page(
    candidates: Iterable[Any],
    matches: Callable[[Any], bool],
    rows: Rows,
    row_of: Callable[[Any], tuple[Any, ...]],
    end_of: Callable[[Any], str],
) -> tuple[bytes, str | None]:
    parts: list[bytes] = []
    size = 0
    for count, candidate in enumerate(candidates, 1):
        if matches(candidate):
            parts.append(rows.encode_row(row_of(candidate)))
            size += len(parts[-1])
        if size >= MAX_PAGE or count >= MAX_LOOKED_AT:
            return b"".join(parts), end_of(candidate)
    return b"".join(parts), None


def _any(candidate: object) -> bool:
    return True


def _serial(holder: Holder) -> int:
    return holder.serial


def _position_of(service: NamedService) -> Position:
    return service.place


def _end_of_service(service: NamedService) -> str:
    return "{}.{}".format(*service.place)


def _position(after: str | None) -> Position:
    if after is None:
        return 0, 0
    try:
        holder, service = map(_number, after.split("."))
    except ValueError:
        raise BadArguments(f"after {after!r} is not the end of a page") from None
    return holder, service


def _end_of_mapping(mapping: Mapping) -> str:
    return "{}.{}.{}".format(*mapping.key)


def _key(after: str | None) -> Key:
    if after is None:
        return -1, -1, ""
    try:
        program, version, netid = after.split(".")
        return _number(program), _number(version), netid
    except ValueError:
        raise BadArguments(f"after {after!r} is not the end of a page") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text)
