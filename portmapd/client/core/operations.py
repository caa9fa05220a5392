"""The operations of a client, as coroutines over a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from portmapd.channel import commands as c
from portmapd.channel.service import check_service
from portmapd.client.core.registrations import Group, MappingFields, Refused, Registrations
from portmapd.client.values import (
    ClusterHost,
    ClusterMapping,
    ClusterService,
    ClusterStatus,
    Known,
    RpcMapping,
    Service,
    Status,
    cluster_mapping_of,
    cluster_service_of,
    mapping_of,
    service_of,
)
from portmapd.errors import (
    AlreadyRegistered,
    DaemonUnreachable,
    LimitExceeded,
    NoCluster,
    NotRegistered,
    Refusal,
    UnknownCommand,
)

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Connection, Session

T = TypeVar("T")

#: How often, and after how many seconds, what was refused is tried again: the daemon may not have
#: noticed yet that our previous connection is closed.
RETRIES = 5
RETRY_WAIT = 0.1
#: The most pages of a listing, and the most rows of all its pages. A page has up to 64 KiB; the
#: daemon's have half of that, so 30 MiB are listed, and no daemon can fill a client's memory.
MAX_PAGES = 1_000
MAX_ROWS = 250_000
#: Refusals that may be due to that.
PASSING = (AlreadyRegistered, LimitExceeded)


async def greet(connection: Connection) -> None:
    """Check that a daemon serves, and that it speaks our version of the protocol."""
    await connection.ask(c.HELLO, {"version": c.VERSION})


async def register(session: Session, group: Group) -> None:
    """Register *group*, all or nothing, and again whenever the connection is made again."""
    async with session.connected(changes=True) as connection:
        await _register(connection, group)
        connection.check()
        session.registrations.add(group)


async def deregister(session: Session, keys: Sequence[tuple[str, str]]) -> None:
    """Undo registrations by name and port, and unset the RPC mappings that came with them."""
    async with session.connected(changes=True) as connection:
        await _deregister(connection, session.registrations, keys)


async def deregister_name(session: Session, name: str) -> None:
    """Undo every registration of *name* that was made through this client.

    :raises InvalidService: it is not a name.
    :raises NotRegistered: there is none.
    """
    check_service(name, "1", 0)
    async with session.connected(changes=True) as connection:
        keys = [key for group in session.registrations for key in group.keys if key[0] == name]
        if not keys:
            raise NotRegistered(f"name {name}: it is not registered through this client")
        await _deregister(connection, session.registrations, keys)


async def _deregister(
    connection: Connection, registrations: Registrations, keys: Sequence[tuple[str, str]]
) -> None:
    await connection.ask(c.DEREGISTER, {"services": keys})
    for mapping in registrations.deregistered(keys):
        try:
            await _unset(connection, mapping)
        except NotRegistered:
            # The superuser may have unset it.
            continue


async def unset(session: Session, mapping: MappingFields) -> None:
    """Undo one RPC mapping."""
    async with session.connected(changes=True) as connection:
        await _unset(connection, mapping)
        session.registrations.unset(mapping)


async def restart(session: Session) -> None:
    """Have a new process take the daemon's place, and wait until it serves."""
    async with session.connected() as connection:
        await connection.ask(c.RESTART, {})


async def list_services(session: Session, wanted: Mapping[str, Any]) -> list[Service]:
    """List every service that matches the filters *wanted*."""
    async with session.connected() as connection:
        return await pages(connection, c.LIST, wanted, service_of)


async def list_cluster(session: Session, wanted: Mapping[str, Any]) -> Known[ClusterService]:
    """List every service that machines of the cluster share, and that matches *wanted*.

    :raises NoCluster: the daemon belongs to none, or is older than clusters.
    """
    async with session.connected() as connection:
        return await _known(connection, c.LIST_CLUSTER, wanted, cluster_service_of)


async def list_cluster_mappings(
    session: Session, wanted: Mapping[str, Any]
) -> Known[ClusterMapping]:
    """List every RPC mapping that machines of the cluster share, and that matches *wanted*."""
    async with session.connected() as connection:
        return await _known(connection, c.LIST_CLUSTER_MAPPINGS, wanted, cluster_mapping_of)


async def _known(
    connection: Connection,
    command: c.Command,
    wanted: Mapping[str, Any],
    make: Callable[[tuple[Any, ...]], T],
) -> Known[T]:
    ages: list[int] = []
    with _of_cluster():
        rows = await pages(
            connection, command, wanted, make, each=lambda answer: ages.append(answer["age"])
        )
    return Known(rows, max(ages))


async def cluster(session: Session) -> ClusterStatus:
    """Ask how this machine stands in its cluster.

    :raises NoCluster: it belongs to none, or the daemon is older than clusters.
    """
    answers: list[Mapping[str, Any]] = []
    async with session.connected() as connection:
        with _of_cluster():
            hosts = await pages(
                connection, c.CLUSTER, {}, lambda row: ClusterHost(*row), each=answers.append
            )
    answer = answers[0]
    fields = {name: answer[name] for name in ClusterStatus._fields if name != "hosts"}
    return ClusterStatus(hosts=hosts, **fields)


@contextmanager
def _of_cluster() -> Iterator[None]:
    try:
        yield
    except UnknownCommand as error:
        raise NoCluster("this port mapper is older than clusters: install a newer one") from error


async def list_mappings(session: Session) -> list[RpcMapping]:
    """List every RPC mapping."""
    async with session.connected() as connection:
        return await pages(connection, c.LIST_MAPPINGS, {}, mapping_of)


async def pid2exe(session: Session, pids: Sequence[int] | None) -> str:
    """Return the executable that a process announces; empty if it is not known."""
    announced = await list_services(session, {"names": [c.PID2EXE], "pids": pids})
    return next((service.exe for service in announced if service.exe), "")


async def status(session: Session) -> Status:
    """Ask how the daemon is."""
    async with session.connected() as connection:
        answer = await connection.ask(c.STATUS, {})
    return Status(answer["release"], answer["registered"], answer["mapped"], answer["behind"])


async def pages(
    connection: Connection,
    command: c.Command,
    wanted: Mapping[str, Any],
    make: Callable[[tuple[Any, ...]], T],
    each: Callable[[Mapping[str, Any]], object] = lambda answer: None,
) -> list[T]:
    """Return the rows of all pages of a listing.

    :param wanted: the arguments that filter it.
    :param make: makes a value of a row.
    :param each: is called with the answer of each page.
    :raises DaemonUnreachable: there are too many: it is no daemon of ours.
    """
    column = command.answer[0].name
    answer = await connection.ask(command, wanted)
    each(answer)
    rows = [make(row) for row in answer[column]]
    for _ in range(MAX_PAGES):
        if answer["more"] is None:
            return rows
        answer = await connection.ask(command, {**wanted, "after": answer["more"]})
        each(answer)
        rows += [make(row) for row in answer[column]]
        if len(rows) > MAX_ROWS:
            break
    raise DaemonUnreachable(
        f"the daemon's listing has no end: it has more than {MAX_PAGES} pages or {MAX_ROWS} rows"
    )


async def restore(connection: Connection, groups: Iterable[Group]) -> list[Refused]:
    """Register *groups* on a new connection, each all or nothing.

    :return: the groups that are refused for good.
    """
    refused = await _register_each(connection, groups)
    for _ in range(RETRIES):
        again = [group for group, why in refused if isinstance(why, PASSING)]
        if not again:
            break
        await connection.sleep(RETRY_WAIT)
        for_good = [(group, why) for group, why in refused if not isinstance(why, PASSING)]
        refused = for_good + await _register_each(connection, again)
    return refused


async def _register_each(connection: Connection, groups: Iterable[Group]) -> list[Refused]:
    outcomes = await connection.gather([_refused(connection, group) for group in groups])
    return [outcome for outcome in outcomes if outcome is not None]


async def _refused(connection: Connection, group: Group) -> Refused | None:
    try:
        await _register(connection, group)
    except Refusal as refusal:
        return group, refusal
    return None


async def _register(connection: Connection, group: Group) -> None:
    if group.services:
        await connection.ask(c.REGISTER, {"services": group.services})
    if not group.mappings:
        return
    try:
        await connection.ask(c.SET_MAPPINGS, {"mappings": group.mappings})
    except Refusal:
        if group.services:
            await connection.ask(c.DEREGISTER, {"services": group.keys})
        raise


async def _unset(connection: Connection, mapping: MappingFields) -> None:
    await connection.ask(c.UNSET_MAPPINGS, {"mappings": [mapping]})
