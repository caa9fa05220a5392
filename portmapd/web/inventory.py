"""What is registered, as rows of the status page, and since when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from portmapd.registry.change import VISIBLE, ChangeKind, ChangeRecord
from portmapd.registry.mapping import Key
from portmapd.registry.mapping import Mapping as RpcMapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import NamedService
from portmapd.server.listing import Filter, service_pages
from portmapd.web.portmap import PAGE, is_shown

#: A row of the page: its kind, what identifies it, and its cells.
Row = list[Any]
#: Is called with rows that are new, changed or gone, each with whether everybody is shown it.
Changed = Callable[[Sequence[tuple[Row, bool]]], object]

_KINDS = (*VISIBLE, ChangeKind.SUSPENDED, ChangeKind.RELEASED)


class Inventory:
    """Follows the registry, which has no clock, to know since when what is registered.

    :param registry: what is registered.
    :param now: tells the time, in seconds since 1970.
    :param names: the names of RPC programs.
    :param changed: is told of changes.
    """

    def __init__(
        self,
        registry: Registry,
        now: Callable[[], float],
        names: Mapping[int, str],
        changed: Changed,
    ) -> None:
        self._registry = registry
        self._now = now
        self._names = names
        self._changed = changed
        #: What came before is as old as this.
        self._start = now()
        self._since: dict[NamedService | Key, float] = {}
        self._end = registry.follow(self._follow, *_KINDS)

    def close(self) -> None:
        """Follow the registry no longer."""
        self._end()

    def pages(self, is_local: bool) -> Iterator[list[Row]]:
        """Every row, in pages; what changes meanwhile may be in it or not, and is told.

        :param is_local: whether they are for a caller on this host.
        """
        mappings = self._mappings()
        while page := list(islice(mappings, PAGE)):
            yield page
        for services in service_pages(self._registry, Filter(), PAGE):
            yield [self._service(s) for s in services if is_shown(s, is_local)]

    def _mappings(self) -> Iterator[Row]:
        for mapping in self._registry.mappings:
            # What is gone meanwhile was told already.
            if self._registry.mappings.get(*mapping.key) is mapping:
                yield self._mapping(mapping)
        for mapping in list(self._registry.suspended.values()):
            yield self._mapping(mapping)

    def _follow(self, changes: Sequence[ChangeRecord]) -> None:
        self._changed([row for change in changes for row in self._rows(change)])

    def _rows(self, change: ChangeRecord) -> Iterator[tuple[Row, bool]]:
        """The row that changes, with whether everybody is shown it; none if nobody is."""
        subject = change.subject
        if isinstance(subject, RpcMapping):
            yield self._changed_mapping(change.kind, subject), True
        elif is_shown(subject, is_local=True):
            row = self._changed_service(change.kind, subject)
            yield row, is_shown(subject, is_local=False)

    def _changed_service(self, kind: ChangeKind, service: NamedService) -> Row:
        if kind is ChangeKind.REGISTERED:
            self._since[service] = self._now()
            return self._service(service)
        self._since.pop(service, None)
        return ["gone", _service_id(service)]

    def _changed_mapping(self, kind: ChangeKind, mapping: RpcMapping) -> Row:
        if kind in (ChangeKind.MAPPED, ChangeKind.SUSPENDED):
            self._since[mapping.key] = self._now()
        current = self._registry.mappings.get(*mapping.key)
        current = current or self._registry.suspended.get(mapping.key)
        if current is not None:
            return self._mapping(current)
        self._since.pop(mapping.key, None)
        return ["gone", _mapping_id(mapping)]

    def _service(self, service: NamedService) -> Row:
        since = self._since.get(service, self._start)
        cells = service.name, service.uid, service.pid, service.port, service.exe
        return ["service", _service_id(service), *cells, round(since)]

    def _mapping(self, m: RpcMapping) -> Row:
        name = self._names.get(m.program, "")
        is_registered = self._registry.mappings.get(*m.key) is not None
        state = "alive" if is_registered else "paused"
        cells = m.program, name, m.version, m.netid, m.address, m.owner, state
        return ["mapping", _mapping_id(m), *cells, round(self._since.get(m.key, self._start))]


def _service_id(service: NamedService) -> str:
    return "s{}.{}".format(*service.place)


def _mapping_id(mapping: RpcMapping) -> str:
    return "m{}.{}.{}".format(*mapping.key)
