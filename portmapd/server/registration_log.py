"""The log of registrations: who set, removed or replaced what."""

from __future__ import annotations

from collections.abc import Sequence

from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.context import Event
from portmapd.registry.change import VISIBLE, ChangeKind, ChangeRecord
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import RESERVED
from portmapd.server import log_events as events
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
        self._end = registry.follow(self._changed, *VISIBLE)

    def report(self, event: Event, caller: Caller, **fields: object) -> None:
        """Log what *caller* did; it is a reporter of the port mapper."""
        kind = _EVENTS[event]
        if self._log.takes(kind):
            self._log.write(kind, who=f"{caller} over {caller.netid.name}", **fields)

    def close(self) -> None:
        """Stop following the registry."""
        self._end()

    def _changed(self, changes: Sequence[ChangeRecord]) -> None:
        for change in changes:
            subject = change.subject
            if isinstance(subject, Mapping):
                self._mapping(change.kind, subject)
            elif not subject.name.endswith(RESERVED) and self._log.takes(_SERVICES[change.kind]):
                self._log.write(
                    _SERVICES[change.kind],
                    name=subject.name,
                    port=subject.port,
                    uid=subject.uid,
                    pid=subject.pid,
                )

    def _mapping(self, kind: ChangeKind, mapping: Mapping) -> None:
        """Log a mapping of a connection; callers of program 100000 are reported by themselves."""
        holder = mapping.holder
        if holder is None or mapping.program == PROGRAM:
            return
        self._log.log(
            _MAPPINGS[kind],
            program=mapping.program,
            version=mapping.version,
            netid=mapping.netid,
            address=mapping.address,
            who=f"uid {holder.uid}, pid {holder.pid}",
        )
