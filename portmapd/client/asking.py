"""What the operations of an application ask the daemon for, and what stands after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from portmapd.channel import commands as c
from portmapd.client.lasting import LastingLink
from portmapd.client.link import Link
from portmapd.client.registration import MappingFields, registrations, rpc_mappings
from portmapd.client.restoring import register
from portmapd.client.standing import Group
from portmapd.client.values import (
    RpcMapping,
    Service,
    mapping_of,
    names_of,
    pids_of,
    service_of,
    user_ids,
)
from portmapd.errors import NotRegistered

T = TypeVar("T")


class Asking:
    """Operations over one lasting connection, each a coroutine.

    All of them raise :exc:`~portmapd.errors.Refusal` for what the daemon, or an argument, refuses
    and :exc:`~portmapd.errors.DaemonUnreachable` where there is no daemon.
    """

    def __init__(self, link: LastingLink) -> None:
        self._link = link

    async def reg(self, name: Any, port: Any, flags: int, rpc: Any) -> None:
        """Register a name, or several, and RPC mappings with them."""
        mappings = rpc_mappings(rpc, port) if rpc is not None else ()
        await self.register(Group(registrations(name, port, flags), mappings))

    async def register(self, group: Group) -> None:
        """Register *group*, which stands from then on."""
        await register(await self._link.open(), group)
        self._link.standing.add(group)

    async def dereg(self, name: Any, port: Any) -> None:
        """Undo :meth:`reg`."""
        await self.deregister([service[:2] for service in registrations(name, port)])

    async def deregister(self, keys: Sequence[tuple[str, str]]) -> None:
        """Undo registrations by name and port, and that of the mappings that came with them."""
        link = await self._link.open()
        await link.ask(c.DEREGISTER, {"services": keys})
        mappings = self._link.standing.deregistered(keys)
        if mappings:
            await _unset(link, mappings)

    async def list(self, name: Any, user: Any = None, pid: Any = None) -> Sequence[Service]:
        """Every service that matches."""
        wanted = {"names": names_of(name), "users": user_ids(user), "pids": pids_of(pid)}
        return await pages(await self._link.open(), c.LIST, wanted, service_of)

    async def mappings(self) -> Sequence[RpcMapping]:
        """Every mapping."""
        return await pages(await self._link.open(), c.LIST_MAPPINGS, {}, mapping_of)

    async def pid2exe(self, pid: int) -> str:
        """The executable that a process announces; empty if it is not known."""
        announcements = await self.list(c.PID2EXE, pid=pid)
        return next((service.exe for service in announcements if service.exe), "")

    async def unset(self, mapping: MappingFields) -> None:
        """Undo a mapping."""
        link = await self._link.open()
        await link.ask(c.UNSET_MAPPINGS, {"mappings": [mapping]})
        self._link.standing.unset([mapping])


async def _unset(link: Link, mappings: Sequence[MappingFields]) -> None:
    """Unset *mappings*, each of which the superuser may have unset already."""
    for mapping in mappings:
        try:
            await link.ask(c.UNSET_MAPPINGS, {"mappings": [mapping]})
        except NotRegistered:
            continue


async def pages(
    link: Link,
    command: c.Command,
    wanted: dict[str, Any],
    make: Callable[[tuple[Any, ...]], T],
    first: Callable[[], object] = lambda: None,
) -> list[T]:
    """Every page of a listing, all of them from one connection.

    :param wanted: the arguments that filter it.
    :param make: makes a value of a row.
    :param first: is called when the first page has come.
    """
    field = command.answer[0].name
    answer = await link.ask(command, wanted)
    first()
    rows = [make(row) for row in answer[field]]
    while answer["more"] is not None:
        answer = await link.ask(command, {**wanted, "after": answer["more"]})
        rows += [make(row) for row in answer[field]]
    return rows
