"""The log of registrations: who set, removed or replaced what."""

from __future__ import annotations

from collections.abc import Sequence
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
        self._log = log
        follow = registry.follow
        self._ends = [
            *(follow(partial(self._services, event), kind) for kind, event in _SERVICES.items()),
            *(follow(partial(self._mappings, event), kind) for kind, event in _MAPPINGS.items()),
        ]

    def report(self, event: Event, caller: Caller, mapping: Mapping, **fields: object) -> None:
        """Log what *caller* did; it is a reporter of the port mapper."""
        kind = _EVENTS[event]
        if self._log.takes(kind):
            who = f"{caller} over {caller.netid.name}"
            self._log.write(kind, who=who, **_fields(mapping), **fields)

    def close(self) -> None:
        """Stop following the registry."""
        for end in self._ends:
            end()

    def _services(self, event: LogEvent, changes: Sequence[ChangeRecord]) -> None:
        for change in changes:
            service = change.subject
            if not isinstance(service, NamedService) or service.name.endswith(RESERVED):
                continue
            # Most changes of a busy host are left out: nothing is made of them.
            if self._log.takes(event):
                self._log.write(
                    event, name=service.name, port=service.port, uid=service.uid, pid=service.pid
                )

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
