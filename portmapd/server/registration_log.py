"""The log of registrations: who set, removed or replaced what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.context import Event
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import RESERVED, NamedService
from portmapd.server import log_events as events
from portmapd.server.log_events import LogEvent
from portmapd.server.rate_limited_log import RateLimitedLog

_EVENTS = {
    Event.SET: events.MAPPING_SET,
    Event.REPLACED: events.MAPPING_REPLACED,
    Event.UNSET: events.MAPPING_UNSET,
}
_SERVICES = {
    ChangeKind.REGISTERED: events.SERVICE_REGISTERED,
    ChangeKind.DEREGISTERED: events.SERVICE_DEREGISTERED,
}
_MAPPINGS = {ChangeKind.MAPPED: events.MAPPING_SET, ChangeKind.UNMAPPED: events.MAPPING_UNSET}


class RegistrationLog:
    """Logs what callers of program 100000 do, and what connections of the local channel hold.

    :param registry: whose changes are logged.
    :param log: bounds the lines.
    """

    def __init__(self, registry: Registry, log: RateLimitedLog) -> None:
        self._registry = registry
        self._log = log
        self._ends: dict[ChangeKind, Callable[[], None]] = {}
        for kind in _SERVICES:
            self._follow_services(kind)
        for kind, event in _MAPPINGS.items():
            self._ends[kind] = registry.follow(partial(self._mappings, event), kind)

    def report(self, event: Event, caller: Caller, mapping: Mapping, **fields: object) -> None:
        """Log what *caller* did; it is a reporter of the port mapper."""
        kind = _EVENTS[event]
        if self._log.takes(kind):
            who = f"{caller} over {caller.netid.name}"
            self._log.write(kind, who=who, **_fields(mapping), **fields)

    def close(self) -> None:
        """Stop following the registry; the log must be closed before."""
        for end in self._ends.values():
            end()

    def _follow_services(self, kind: ChangeKind) -> None:
        follower = partial(self._services, kind, _SERVICES[kind])
        self._ends[kind] = self._registry.follow(follower, kind)

    def _services(self, kind: ChangeKind, event: LogEvent, changes: Sequence[ChangeRecord]) -> None:
        if self._log.is_full(event):
            self._pause(kind, event, len(changes))
            return
        for change in changes:
            service = change.subject
            if not isinstance(service, NamedService) or service.name.endswith(RESERVED):
                continue
            if self._log.takes(event):
                self._log.write(
                    event, name=service.name, port=service.port, uid=service.uid, pid=service.pid
                )

    def _pause(self, kind: ChangeKind, event: LogEvent, first: int) -> None:
        """Follow changes of a kind no more until the period ends: a busy host makes very many.

        They are counted by the registry, with those of the port mapper's own names.

        :param first: how many have come since there was no line left.
        """
        self._ends[kind]()
        before = self._registry.changes[kind] - first

        def count() -> int:
            self._follow_services(kind)
            return self._registry.changes[kind] - before

        self._log.count_at_end(event, count)

    def _mappings(self, event: LogEvent, changes: Sequence[ChangeRecord]) -> None:
        """Log mappings of a connection; callers of program 100000 are reported by themselves."""
        for change in changes:
            mapping = change.subject
            if isinstance(mapping, Mapping) and mapping.holder and mapping.program != PROGRAM:
                who = f"uid {mapping.holder.uid}, pid {mapping.holder.pid}"
                self._log.log(event, who=who, **_fields(mapping))


def _fields(mapping: Mapping) -> dict[str, object]:
    """The fields of a mapping in an event."""
    return {
        "program": mapping.program,
        "version": mapping.version,
        "netid": mapping.netid,
        "address": mapping.address,
    }
