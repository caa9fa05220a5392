"""What is watched over one connection after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from portmapd.channel import commands as c
from portmapd.client.core.channel_protocol import Overflow
from portmapd.client.core.listing_sync import ListingSync
from portmapd.client.core.operations import pages
from portmapd.client.core.watch_state import WatchState
from portmapd.client.values import (
    Change,
    ClusterService,
    Service,
    Subject,
    cluster_mapping_of,
    cluster_service_of,
    mapping_of,
    service_of,
)

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Connection

#: The most bytes of names that the daemon is asked to watch; beyond that, it is asked for all.
MAX_NAMES = 32_768


class Commands(NamedTuple):
    """How the daemon is asked for what is watched; a named tuple.

    :param watch: has it tell of changes.
    :param unwatch: ends that.
    :param services: lists services, and `service` makes one of a row.
    :param mappings: lists RPC mappings, and `mapping` makes one of a row.
    """

    watch: c.Command
    unwatch: c.Command
    services: c.Command
    service: Callable[[tuple[Any, ...]], Service | ClusterService]
    mappings: c.Command
    mapping: Callable[[tuple[Any, ...]], Subject]


#: Of this machine, and of the cluster.
LOCAL = Commands(c.WATCH, c.UNWATCH, c.LIST, service_of, c.LIST_MAPPINGS, mapping_of)
CLUSTER = Commands(
    c.WATCH_CLUSTER,
    c.UNWATCH_CLUSTER,
    c.LIST_CLUSTER,
    cluster_service_of,
    c.LIST_CLUSTER_MAPPINGS,
    cluster_mapping_of,
)


class Watches:
    """Keeps the states of several watchers up to date by the daemon's events and listings.

    :param commands: how the daemon is asked.
    :ivar states: the state of each watcher.
    :ivar is_stale: the states are to be synchronised: a watcher was added, the connection is
        another one, or the daemon left events out.
    """

    def __init__(self, *states: WatchState, commands: Commands = LOCAL) -> None:
        self.states = states
        self.commands = commands
        self.is_stale = True
        #: Counts services while they are listed; None while they are not.
        self._sync: ListingSync | None = None
        #: What happens to RPC mappings meanwhile; the last change of each one counts.
        self._mapped: list[Change] = []

    def add(self, state: WatchState) -> None:
        """Watch for another watcher."""
        self.states = (*self.states, state)
        self.is_stale = True

    def discard(self, state: WatchState) -> None:
        """Watch no longer for this watcher."""
        self.states = tuple([one for one in self.states if one is not state])

    async def synchronise(self, connection: Connection) -> None:
        """Have *connection* watched, and bring every state up to date.

        :raises PortmapdError: as asking does.
        """
        self.is_stale = False
        self._sync, self._mapped = ListingSync(), []
        try:
            subjects = await self._list(connection, self._sync)
        finally:
            self._sync = None
        for state in self.states:
            state.listed(subjects, self._mapped)

    async def _list(self, connection: Connection, sync: ListingSync) -> list[Subject]:
        names = self._names()
        commands = self.commands
        await connection.ask(commands.watch, {"names": names})
        mappings: list[Subject] = []
        if names is None:
            mappings += await pages(connection, commands.mappings, {}, commands.mapping)
        wanted: dict[str, Any] = {"names": names}
        listed = partial(pages, connection, commands.services)
        sync.listed(await listed(wanted, commands.service))
        while sync.unsure:
            wanted = sync.again()
            sync.listed(await listed(wanted, commands.service))
        return [*mappings, *sync.counts.elements()]

    def _names(self) -> list[str] | None:
        """Return the names that the daemon is asked for; None: all."""
        names = sorted(set().union(*(state.names for state in self.states)))
        size = sum(len(name.encode(errors="replace")) + 2 for name in names)
        watch_all = size > MAX_NAMES or any(not state.names for state in self.states)
        return None if watch_all else names

    def take(self, event: Change | Overflow) -> None:
        """Take in what the daemon told."""
        if isinstance(event, Overflow):
            self.is_stale = True
        elif self._sync is None:
            for state in self.states:
                state.changed(event)
        elif isinstance(event.subject, Service | ClusterService):
            self._sync.changed(event)
        else:
            self._mapped.append(event)
