"""What the clients for Twisted and asyncio have in common. Internal."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from os import PathLike
from typing import TYPE_CHECKING, Any

from portmapd.channel.socket_path import asking_socket
from portmapd.client.core.reconnecting import ReconnectingConnection
from portmapd.client.core.registrations import Lost
from portmapd.client.core.watching import AllWatchers, AsyncChanges, Watchers
from portmapd.client.portmapper import (
    BasePortmapper,
    ClusterT,
    MappingsT,
    NoneT,
    PathT,
    ServicesT,
    SharedMappingsT,
    SharedT,
    StatusT,
)
from portmapd.client.values import check_only_host, watched_names
from portmapd.errors import BadArguments, PortmapdError

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Runtime


class AsyncPortmapper(
    BasePortmapper[NoneT, ServicesT, MappingsT, PathT, StatusT, SharedT, SharedMappingsT, ClusterT]
):
    """A client whose connection is kept by a reactor or an event loop."""

    def __init__(
        self,
        runtime: Runtime[Any],
        path: str | PathLike[str] | None,
        lost: Lost | None,
        host: str | None,
    ) -> None:
        self._watchers = AllWatchers(runtime)
        self._connection: ReconnectingConnection
        if host is None:
            self._connection = ReconnectingConnection(
                runtime, asking_socket(path), lost, self._watchers
            )
        else:
            check_only_host(path)
            self._connection = _remote_session(runtime, host)
        self._spawn = runtime.spawn

    def watch(
        self, names: str | Iterable[str] | None = None, *, cluster: bool = False
    ) -> AsyncChanges:
        """Watch what is registered now, and every change, as an asynchronous iterator.

        If there is no daemon, it begins once there is one. Changes that cancel out are left out if
        very many wait to be taken.

        :param names: the name, or the names, whose services are watched; None: all services, and
            the RPC mappings.
        :param cluster: watch what the machines of the cluster share instead. Where the daemon
            belongs to none, the iteration raises :exc:`~portmapd.errors.NoCluster`.
        :return: ``async for`` takes :class:`~portmapd.client.values.Change` values from it.
            ``close()`` ends it, and must be called when it is not read any more.
        :raises BadArguments: *names* are not names, or can never be registered.
        :raises ClientClosed: the client is closed.
        """
        self._connection.check()
        if self._connection.remote_hosts is not None:
            raise BadArguments("the services of another machine cannot be watched; list them again")
        watchers = self._watchers.cluster if cluster else self._watchers.local
        changes = watchers.watch(frozenset(watched_names(names)))
        self._spawn(self._begin_to_watch(watchers))
        return changes

    async def _begin_to_watch(self, watchers: Watchers) -> None:
        # The connection is made again as long as anything is watched.
        with suppress(PortmapdError):
            watchers.begin(await self._connection.open())


def _remote_session(runtime: Runtime[Any], host: str) -> Any:
    """What a client of another machine has in place of a connection that is made again.

    :raises ValueError: *host* is none.
    """
    # Few ask another machine.
    from portmapd.client.core.remote import RemoteHost, RemoteSession

    return RemoteSession(runtime, RemoteHost(host))
