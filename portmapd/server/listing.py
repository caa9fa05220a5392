"""Listings of the registry, a page at a time."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from attrs import frozen

from portmapd.channel.arguments import Rows
from portmapd.channel.commands import (
    MAPPING_ROW,
    SERVICE_ROW,
    SHARED_MAPPING_ROW,
    SHARED_SERVICE_ROW,
)
from portmapd.errors import BadArguments
from portmapd.registry.cluster_copy import ClusterCopy
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Key, Mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import NamedService
from portmapd.registry.shared import SharedMapping, SharedService
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


def list_cluster(
    copy: ClusterCopy,
    names: frozenset[str],
    users: frozenset[int],
    hosts: frozenset[str],
    start: int,
) -> tuple[bytes, str | None]:
    """A page of the services of a cluster; see :func:`list_services`.

    :param names: of these names; empty: of any. Users and hosts likewise.
    :param start: the serial behind which it begins.
    """
    found = (
        sorted((each for name in names for each in copy.of(name)), key=_place)
        if names
        else copy.after(start)
    )
    later = (each for each in found if each[0] > start and isinstance(each[1], SharedService))

    def matches(found: tuple[int, SharedService]) -> bool:
        service = found[1]
        return (not users or service.uid in users) and (not hosts or service.host in hosts)

    return _page(later, matches, SHARED_SERVICE_ROW, _second, _end_of_shared)


def list_cluster_mappings(
    copy: ClusterCopy, hosts: frozenset[str], start: int
) -> tuple[bytes, str | None]:
    """A page of the mappings of a cluster; see :func:`list_cluster`."""
    found = copy.after(start)
    mappings = (each for each in found if isinstance(each[1], SharedMapping))

    def matches(found: tuple[int, SharedMapping]) -> bool:
        return not hosts or found[1].host in hosts

    return _page(mappings, matches, SHARED_MAPPING_ROW, _second, _end_of_shared)


def _place(found: tuple[int, object]) -> int:
    return found[0]


def _second(found: tuple[int, tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(found[1])


def _end_of_shared(found: tuple[int, object]) -> str:
    return str(found[0])


def shared_place(after: str | None) -> int:
    """Where a page of the cluster begins: behind the serial that *after* is.

    :raises BadArguments: it is none.
    """
    try:
        return 0 if after is None else _number(after)
    except ValueError:
        raise BadArguments(f"after {after!r} is not the end of a page") from None


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
