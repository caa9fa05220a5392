"""The port mapper that runs already, as the one that a registry is served by."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from portmapd.client.rpc.registrar import Registrar
from portmapd.config import PORT
from portmapd.errors import InvalidMapping, PortmapdError
from portmapd.oncrpc.netid import TCP, UDP, format_address
from portmapd.oncrpc.program import PMAP_VERS, PROGRAM
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import Mapping, mapping
from portmapd.registry.registry import Registry
from portmapd.server.bound_sockets import is_bound
from portmapd.server.log_events import NOT_REGISTERED
from portmapd.server.rate_limited_log import RateLimitedLog


def taken_port(wanted: int) -> int | None:
    """The port of a port mapper that runs on this host.

    :param wanted: the port that is to be served; 0: any free one.
    :return: that, or 111, if it is taken; None if neither is.
    """
    for port in dict.fromkeys(filter(None, (wanted, PORT))):
        address = format_address("127.0.0.1", port)
        if any(is_bound(mapping(PROGRAM, PMAP_VERS, n.name, address)) for n in (UDP, TCP)):
            return port
    return None


def serves(netid: str, address: str) -> bool:
    """Does anybody serve at an address of this host?"""
    try:
        return is_bound(mapping(PROGRAM, PMAP_VERS, netid, address))
    except InvalidMapping:
        return False


class JoinedPortMapper:
    """Registers what is in a registry with the port mapper that runs, and follows the changes.

    :param registry: what is registered.
    :param reactor: measures time, and makes connections.
    :param port: the port mapper's port.
    """

    def __init__(self, registry: Registry, reactor: IReactorTime, port: int) -> None:
        self._log = RateLimitedLog(reactor)
        self._registrar = Registrar(reactor, port, serves, self._failed)
        self._end = registry.follow(self._changed, ChangeKind.MAPPED, ChangeKind.UNMAPPED)
        for existing in registry.mappings:
            self._add(existing)

    def settled(self) -> Deferred[str]:
        """Wait until everything is registered; see :meth:`Registrar.settled`."""
        return self._registrar.settled()

    def close(self) -> Deferred[None]:
        """Unset everything; fires when that is done."""
        self._end()
        self._log.close()
        return self._registrar.close()

    def _changed(self, changes: Sequence[ChangeRecord]) -> None:
        for change in changes:
            subject = change.subject
            if not isinstance(subject, Mapping):
                continue
            if change.kind is ChangeKind.MAPPED:
                self._add(subject)
            else:
                self._registrar.discard(*subject.key)

    def _add(self, added: Mapping) -> None:
        self._registrar.add(*added.key, added.address)

    def _failed(self, what: str, why: PortmapdError) -> None:
        self._log.log(NOT_REGISTERED, what=what, why=str(why))
