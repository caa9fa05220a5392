"""What every client of the local channel takes and gives."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from portmapd.channel.arguments import Rows
from portmapd.channel.box import Box
from portmapd.channel.commands import (
    CHANGE,
    MAPPING_ROW,
    SERVICE_ROW,
    SHARED_MAPPING_ROW,
    SHARED_SERVICE_ROW,
)
from portmapd.channel.service import Flags, check_service, is_number
from portmapd.errors import BadArguments, InvalidService

__all__ = [
    "Change",
    "ClusterHost",
    "ClusterMapping",
    "ClusterService",
    "ClusterStatus",
    "Flags",
    "HasFileno",
    "Kind",
    "Known",
    "RpcMapping",
    "Service",
    "Subject",
    "Terminator",
]

T = TypeVar("T")


class HasFileno(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


#: What ends an operation by becoming readable: a descriptor, or what has one.
Terminator = int | HasFileno


class Service(NamedTuple):
    """A registered name, as clients see it; a named tuple.

    :param name: the name.
    :param user: the uid of the process that registered it.
    :param pid: the process that registered it.
    :param port: a port number, or the absolute path of a UNIX socket; ``*`` announces an
        executable.
    :param exe: the path of the process's executable if it is public; else empty.
    """

    name: str
    user: int
    pid: int
    port: int | str
    exe: str


class RpcMapping(NamedTuple):
    """A version of an RPC program with its universal address on a netid; a named tuple.

    :param owner: the uid of the user who set it, or ``superuser``.
    """

    program: int
    version: int
    netid: str
    address: str
    owner: str


class ClusterService(NamedTuple):
    """A name that a machine of the cluster shares; a named tuple.

    The first fields are those of a :class:`Service` of that machine.

    :param host: what the machine is called in the cluster.
    :param address: where it is reached.
    """

    name: str
    user: int
    pid: int
    port: int | str
    exe: str
    host: str
    address: str


class ClusterMapping(NamedTuple):
    """An RPC mapping that a machine of the cluster shares; a named tuple.

    :param address: the universal address at which other machines reach it.
    :param host: what the machine is called in the cluster.
    """

    program: int
    version: int
    netid: str
    address: str
    owner: str
    host: str


class Known(list[T]):
    """A list of what the cluster was known to share.

    :ivar age: the seconds since that was known to be all; 0: it is.
    """

    def __init__(self, found: Iterable[T], age: int) -> None:
        super().__init__(found)
        self.age = age


class ClusterHost(NamedTuple):
    """A machine of the cluster; a named tuple.

    :param name: what it is called.
    :param address: where it is reached.
    :param release: its version of portmapd.
    :param services: how many services it shares.
    """

    name: str
    address: str
    release: str
    services: int


class ClusterStatus(NamedTuple):
    """How this machine stands in its cluster; a named tuple.

    :param host: what it is called there.
    :param address: where it is reached.
    :param state: ``joined``, or what is in the way: ``joining``, ``unreachable``, ``refused``,
        ``full``, ``garbage``, ``name-taken``.
    :param why: what etcd, or the way to it, said; empty while it is joined.
    :param age: the seconds since what is known of the others was known to be all; 0: it is; None:
        nothing is known.
    :param revision: etcd's revision that is known.
    :param lease: the number of the lease under which this machine shares; 0: it has none.
    :param left: the seconds until that ends, unless it is kept alive.
    :param members: the members of etcd, each with ``asked``, ``known``, or why it does not answer.
    :param hosts: the machines, this one included.
    """

    host: str
    address: str
    state: str
    why: str
    age: int | None
    revision: int
    lease: int
    left: int
    members: Sequence[tuple[str, str]]
    hosts: Sequence[ClusterHost]


class Status(NamedTuple):
    """How a daemon is; a named tuple.

    :param release: its version of portmapd.
    :param services: how many services are registered.
    :param mappings: how many RPC mappings there are.
    :param behind: the seconds for which the newest mappings have not been written to its file; 0 if
        they are, None if it keeps none.
    """

    release: str
    services: int
    mappings: int
    behind: int | None


#: What a change is about.
Subject = Service | RpcMapping | ClusterService | ClusterMapping

#: Services are registered and deregistered, RPC mappings mapped and unmapped.
Kind = Literal["registered", "deregistered", "mapped", "unmapped"]


class Change(NamedTuple):
    """A change that a watcher is told of; a named tuple."""

    kind: Kind
    subject: Subject


def service_of(row: tuple[Any, ...]) -> Service:
    """Return the service in a row of a listing."""
    name, user, pid, port, exe = row
    return Service(name, user, pid, int(port) if is_number(port) else port, exe)


def cluster_service_of(row: tuple[Any, ...]) -> ClusterService:
    """Return the service of the cluster in a row of a listing."""
    name, user, pid, port, *rest = row
    return ClusterService(name, user, pid, int(port) if is_number(port) else port, *rest)


def cluster_mapping_of(row: tuple[Any, ...]) -> ClusterMapping:
    """Return the mapping of the cluster in a row of a listing."""
    return ClusterMapping(*row)


def mapping_of(row: tuple[Any, ...]) -> RpcMapping:
    """Return the mapping in a row of a listing."""
    return RpcMapping(*row)


#: How the box of an event is read, by its kind.
_EVENTS: dict[bytes, tuple[Kind, Rows, Callable[[tuple[Any, ...]], Subject]]] = {
    b"registered": ("registered", SERVICE_ROW, service_of),
    b"deregistered": ("deregistered", SERVICE_ROW, service_of),
    b"mapped": ("mapped", MAPPING_ROW, mapping_of),
    b"unmapped": ("unmapped", MAPPING_ROW, mapping_of),
}


#: The same of the cluster, whose events tell of a machine.
_CLUSTER_EVENTS: dict[bytes, tuple[Kind, Rows, Callable[[tuple[Any, ...]], Subject]]] = {
    b"registered": ("registered", SHARED_SERVICE_ROW, cluster_service_of),
    b"deregistered": ("deregistered", SHARED_SERVICE_ROW, cluster_service_of),
    b"mapped": ("mapped", SHARED_MAPPING_ROW, cluster_mapping_of),
    b"unmapped": ("unmapped", SHARED_MAPPING_ROW, cluster_mapping_of),
}


def change_of(box: Box) -> Change:
    """Return the change in an event.

    :raises BadArguments: its kind is unknown, or a field is missing.
    """
    name = box.get(CHANGE, b"")
    if name not in _EVENTS:
        raise BadArguments(f"change {name.decode('utf-8', 'replace')!r} is unknown")
    kind, rows, make = (_CLUSTER_EVENTS if b"host" in box else _EVENTS)[name]
    return Change(kind, make(tuple(column.take(box) for column in rows.columns)))


def names_of(name: str | Iterable[str] | None) -> list[str] | None:
    """Return one name or several as a list; None for any.

    :raises BadArguments: one of them is not a string.
    """
    return None if name is None else _list_of(str, "name", name)


def watched_names(name: str | Iterable[str] | None) -> list[str]:
    """Return the names that are to be watched; empty for all.

    :raises BadArguments: one of them is not a string, or can never be registered.
    """
    names = names_of(name) or []
    for one in names:
        try:
            check_service(one, "1", 0)
        except InvalidService as error:
            raise BadArguments(str(error)) from None
    return names


def pids_of(pid: int | Iterable[int] | None) -> list[int] | None:
    """Return one process or several as a list; None for any.

    :raises BadArguments: one of them is not a number.
    """
    return None if pid is None else _list_of(int, "pid", pid)


def user_ids(user: int | str | Iterable[int | str] | None) -> list[int] | None:
    """Return the uids of one user or several, by uid or by name; None for any.

    :raises BadArguments: no user has that name, or it is neither a uid nor a name.
    """
    if user is None:
        return None
    users: list[int | str] = _list_of((int, str), "user", user)
    return [_uid(one) if isinstance(one, str) else one for one in users]


def uids_of(user: int | str | Iterable[int | str] | None) -> list[int] | None:
    """Return the uids of users of another machine; None for any.

    :raises BadArguments: one of them is not a uid.
    """
    try:
        return None if user is None else _list_of(int, "user", user)
    except BadArguments:
        raise BadArguments(
            f"user {user!r}: names of users are those of this machine; give a uid of the other one"
        ) from None


def _list_of(kind: type | tuple[type, ...], what: str, value: Any) -> list[Any]:
    values = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    # The daemon would take an empty list for any.
    if not values or not all(isinstance(one, kind) and not isinstance(one, bool) for one in values):
        raise BadArguments(f"{what} {value!r}: give one, or a list of some, or None for any")
    return values


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    # ValueError: the user database cannot be asked for such a name.
    except (KeyError, ValueError):
        raise BadArguments(f"user: there is no user {name!r}") from None


def check_only_host(path: object) -> None:
    """Refuse a path of a socket for the client of another machine.

    :raises ValueError: there is one.
    """
    if path is not None:
        raise ValueError("give path, for this machine, or host, for another one; not both")


def descriptor_of(terminator: Terminator) -> int:
    """Return the descriptor that *terminator* is or has.

    :raises BadArguments: it is not an open descriptor.
    """
    try:
        number = terminator if isinstance(terminator, int) else terminator.fileno()
        os.fstat(number)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadArguments(
            f"terminator {terminator!r} is not an open descriptor, and has none: {error}"
        ) from error
    return number
