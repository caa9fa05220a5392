"""The methods that every client of the local channel has. Internal."""

# What a client makes of a result is beyond what type variables can say.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from portmapd.channel import commands as c
from portmapd.client.core import operations
from portmapd.client.core.connecting import LOOPBACK, S, dial_any, dial_each, shared_targets
from portmapd.client.core.registrations import Group
from portmapd.client.values import (
    ClusterService,
    Flags,
    Known,
    Service,
    Terminator,
    names_of,
    pids_of,
    uids_of,
    user_ids,
)
from portmapd.errors import NoCluster, NoService, NotListed

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Dialer, Session
    from portmapd.client.reg_arguments import NamedPorts, Ports, Rpc

T = TypeVar("T")

# What the methods of a client return for an operation that has no result, services, RPC mappings,
# or a path: the result itself, or what gives it later.
NoneT = TypeVar("NoneT")
ServicesT = TypeVar("ServicesT")
MappingsT = TypeVar("MappingsT")
PathT = TypeVar("PathT")
StatusT = TypeVar("StatusT")
#: Services and mappings of the cluster, and how this machine stands in it.
SharedT = TypeVar("SharedT")
SharedMappingsT = TypeVar("SharedMappingsT")
ClusterT = TypeVar("ClusterT")

#: Seconds that have to be left before others of the cluster are asked for.
LEAST = 0.2
#: Where a service may be that is connected to: on any machine, or on this one.
ANYWHERE, HERE = "any", "local"

#: A user, by uid or name.
User = int | str

_ANNOUNCEMENT = (c.PID2EXE, c.ANY_PORT, int(Flags.PUBLIC))


class BasePortmapper(
    ABC,
    Generic[NoneT, ServicesT, MappingsT, PathT, StatusT, SharedT, SharedMappingsT, ClusterT],
):
    """The operations; each client says what its methods return.

    The errors below come in the way of each client, whatever the argument: a Deferred fails, and a
    call or an ``await`` raises them.
    """

    @abstractmethod
    def _run(
        self, operation: Callable[[Session], Coroutine[Any, Any, T]], terminator: Terminator | None
    ) -> Any:
        """Do *operation*.

        :param terminator: ends it by becoming readable.
        """

    @overload
    def reg(
        self,
        name: str,
        port: Ports,
        flags: int = 0,
        terminator: Terminator | None = None,
        rpc: Rpc | None = None,
    ) -> NoneT: ...

    @overload
    def reg(
        self,
        name: Iterable[NamedPorts],
        port: None = None,
        flags: int = 0,
        terminator: Terminator | None = None,
        rpc: None = None,
    ) -> NoneT: ...

    def reg(
        self,
        name: str | Iterable[NamedPorts],
        port: Ports | None = None,
        flags: int = 0,
        terminator: Terminator | None = None,
        rpc: Rpc | None = None,
    ) -> NoneT:
        """Register a name, all or nothing.

        :param name: the name; or a list of (name, port) or (name, port, flags), to register
            several at once.
        :param port: a number, the absolute path of a UNIX socket, a listening socket, a Twisted
            ``IListeningPort``, or a list of these; the same port twice counts once. None: the
            names have theirs.
        :param flags: :class:`~portmapd.client.values.Flags`; 0: none. In a list of names, for
            those without their own.
        :param terminator: a descriptor, or an object with ``fileno()``, that ends the operation by
            becoming readable; None: there is none.
        :param rpc: (program, version) or (program, version, netid): the ports become its RPC
            mappings, too, one on each netid; None: they do not.
        :raises InvalidService: *name*, *port* or *flags* is malformed.
        :raises InvalidMapping: *rpc* is malformed.
        :raises AlreadyRegistered: the name is taken, or the program's version on that netid.
        :raises LimitExceeded: the process would hold more than the daemon allows.
        :raises ExecutableUnknown: it is to be public, but the executable is not known.
        :raises NoCluster: it is to be shared, and the daemon belongs to no cluster.
        :raises ClusterUnreachable: it is to be exclusive and shared, and the cluster cannot be
            asked.
        """
        return self._run(lambda session: _reg(session, name, port, flags, rpc), terminator)

    @overload
    def dereg(
        self, name: str, port: Ports | None = None, terminator: Terminator | None = None
    ) -> NoneT: ...

    @overload
    def dereg(
        self,
        name: Iterable[NamedPorts],
        port: None = None,
        terminator: Terminator | None = None,
    ) -> NoneT: ...

    def dereg(
        self,
        name: str | Iterable[NamedPorts],
        port: Ports | None = None,
        terminator: Terminator | None = None,
    ) -> NoneT:
        """Undo a registration, and keep the others.

        RPC mappings that :meth:`reg` made with it are unset.

        :param name: as for :meth:`reg`.
        :param port: as for :meth:`reg`; None for one name: every port under which this client
            registered it.
        :raises NotRegistered: it is not registered through this client.
        """
        return self._run(lambda session: _dereg(session, name, port), terminator)

    @overload
    def list(
        self,
        name: str | Iterable[str] | None = None,
        user: User | Iterable[User] | None = None,
        pid: int | Iterable[int] | None = None,
        terminator: Terminator | None = None,
        *,
        cluster: Literal[False] = False,
    ) -> ServicesT: ...

    @overload
    def list(
        self,
        name: str | Iterable[str] | None = None,
        user: User | Iterable[User] | None = None,
        pid: None = None,
        terminator: Terminator | None = None,
        *,
        cluster: Literal[True],
        host: str | Iterable[str] | None = None,
    ) -> SharedT: ...

    def list(
        self,
        name: str | Iterable[str] | None = None,
        user: User | Iterable[User] | None = None,
        pid: int | Iterable[int] | None = None,
        terminator: Terminator | None = None,
        *,
        cluster: bool = False,
        host: str | Iterable[str] | None = None,
    ) -> ServicesT | SharedT:
        """Every :class:`~portmapd.client.values.Service` that matches all arguments.

        :param name: a name, or several; None: any.
        :param user: a uid or a user's name, or several; None: any.
        :param pid: a process of this machine, or several; None: any.
        :param cluster: list every :class:`~portmapd.client.values.ClusterService` instead that any
            machine of the cluster shares, this one included. The list has an ``age``: the seconds
            since it was known to be all; 0: it is.
        :param host: a machine of the cluster, or several; None: any.
        :raises BadArguments: an argument is none of these, or there is no such user.
        :raises NoCluster: the daemon belongs to no cluster.
        :raises ClusterUnreachable: what the cluster shares is not known, or was last known too long
            ago.
        """
        if cluster:
            return self._run(lambda s: _list_cluster(s, name, user, host), terminator)
        return self._run(lambda session: _list(session, name, user, pid), terminator)

    def regpid2exe(self, terminator: Terminator | None = None) -> NoneT:
        """Announce the path of this process's executable.

        :raises ExecutableUnknown: it is not known: deleted, replaced, or not readable.
        """
        group = Group((_ANNOUNCEMENT,))
        return self._run(lambda session: operations.register(session, group), terminator)

    def deregpid2exe(self, terminator: Terminator | None = None) -> NoneT:
        """Undo :meth:`regpid2exe`.

        :raises NotRegistered: this client has not announced it.
        """
        keys = [_ANNOUNCEMENT[:2]]
        return self._run(lambda session: operations.deregister(session, keys), terminator)

    def pid2exe(self, pid: int, terminator: Terminator | None = None) -> PathT:
        """The path of the executable that process *pid* announces; empty if it is not known."""
        return self._run(lambda session: _pid2exe(session, pid), terminator)

    def set(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> NoneT:
        """Map a version of an RPC program on *netid* to a universal address (RFC 5665).

        :param program: 0 to 4294967295, but not the port mapper's own.
        :param version: 0 to 4294967295.
        :param netid: ``udp``, ``tcp``, ``udp6``, ``tcp6`` or ``local``.
        :param address: such as ``127.0.0.1.3.232`` for port 1000; a path for netid local.
        :raises InvalidMapping: an argument is none of these.
        :raises AlreadyRegistered: it is mapped already, by anyone.
        :raises LimitExceeded: the process would hold more than the daemon allows.
        """
        group = Group(mappings=((program, version, netid, address),))
        return self._run(lambda session: operations.register(session, group), terminator)

    def unset(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> NoneT:
        """Undo :meth:`set`; the arguments are the same.

        :raises NotRegistered: it is not set through this client.
        """
        mapping = program, version, netid, address
        return self._run(lambda session: operations.unset(session, mapping), terminator)

    @overload
    def mappings(
        self, terminator: Terminator | None = None, *, cluster: Literal[False] = False
    ) -> MappingsT: ...

    @overload
    def mappings(
        self,
        terminator: Terminator | None = None,
        *,
        cluster: Literal[True],
        host: str | Iterable[str] | None = None,
    ) -> SharedMappingsT: ...

    def mappings(
        self,
        terminator: Terminator | None = None,
        *,
        cluster: bool = False,
        host: str | Iterable[str] | None = None,
    ) -> MappingsT | SharedMappingsT:
        """Every :class:`~portmapd.client.values.RpcMapping`, whoever set it.

        :param cluster: every :class:`~portmapd.client.values.ClusterMapping` instead that any
            machine of the cluster shares; see :meth:`list`.
        :param host: a machine of the cluster, or several; None: any.
        """
        if cluster:
            wanted = {"hosts": names_of(host)}
            return self._run(lambda s: operations.list_cluster_mappings(s, wanted), terminator)
        return self._run(operations.list_mappings, terminator)

    def cluster(self, terminator: Terminator | None = None) -> ClusterT:
        """How this machine stands in its cluster, as a
        :class:`~portmapd.client.values.ClusterStatus`.

        :raises NoCluster: it belongs to none.
        """
        return self._run(operations.cluster, terminator)

    def status(self, terminator: Terminator | None = None) -> StatusT:
        """How the daemon is, as a :class:`~portmapd.client.values.Status`.

        :raises UnknownCommand: it is older than this command.
        """
        return self._run(operations.status, terminator)

    def restart(self, terminator: Terminator | None = None) -> NoneT:
        """Have a new process take the place of the daemon, of a newer version if there is one.

        Everything passes over to it, the connections of clients included. It takes about a second.

        :raises NotAllowed: only root and the daemon's own user may do that.
        :raises RestartFailed: no new process serves, and the daemon goes on as it was.
        """
        return self._run(operations.restart, terminator)


async def connect(
    session: Session, dialer: Dialer[S], name: str, user: User | None, where: str = ANYWHERE
) -> S:
    """Connect to a service of that name and user; None: any user.

    :param where: ``any``: on this machine, else on any of the cluster; ``local``: on this machine;
        else the name of a machine of the cluster.
    :raises NotListed: none is registered.
    :raises NotAccepted: none of them accepts.
    :raises NoCluster: a machine is named, and the daemon belongs to no cluster.
    """
    hosts = session.remote_hosts
    if where not in (ANYWHERE, HERE):
        return await _connect_to(session, dialer, name, user, where)
    try:
        services = await _list(session, name, user, None)
        return await dial_any(dialer, name, services, LOOPBACK if hosts is None else hosts)
    except NoService as error:
        if where == HERE or hosts is not None or dialer.left < LEAST:
            raise
        with suppress(NotListed, NoCluster):
            return await _connect_to(session, dialer, name, user, None)
        raise error


async def _connect_to(
    session: Session, dialer: Dialer[S], name: str, user: User | None, host: str | None
) -> S:
    """Connect to a service of other machines of the cluster; None: of any."""
    services = await _list_cluster(session, name, user, host)
    if not services:
        where = "the cluster" if host is None else host
        raise NotListed(f"no service {name} is shared by {where}")
    return await dial_each(dialer, name, shared_targets(services), len(services))


# Arguments are read within the coroutines: an error comes where the others of an operation come.


async def _reg(
    session: Session,
    name: str | Iterable[NamedPorts],
    port: Ports | None,
    flags: int,
    rpc: Rpc | None,
) -> None:
    # It takes long to import, and a program that only looks names up does without.
    from portmapd.client.reg_arguments import group_of

    await operations.register(session, group_of(name, port, flags, rpc))


async def _dereg(session: Session, name: str | Iterable[NamedPorts], port: Ports | None) -> None:
    if isinstance(name, str) and port is None:
        await operations.deregister_name(session, name)
        return
    from portmapd.client.reg_arguments import group_of

    await operations.deregister(session, group_of(name, port, 0, None).keys)


async def _list(
    session: Session,
    name: str | Iterable[str] | None,
    user: User | Iterable[User] | None,
    pid: int | Iterable[int] | None,
) -> list[Service]:
    users = user_ids(user) if session.remote_hosts is None else uids_of(user)
    wanted = {"names": names_of(name), "users": users, "pids": pids_of(pid)}
    return await operations.list_services(session, wanted)


async def _list_cluster(
    session: Session,
    name: str | Iterable[str] | None,
    user: User | Iterable[User] | None,
    host: str | Iterable[str] | None,
) -> Known[ClusterService]:
    wanted = {"names": names_of(name), "users": user_ids(user), "hosts": names_of(host)}
    return await operations.list_cluster(session, wanted)


async def _pid2exe(session: Session, pid: int) -> str:
    return await operations.pid2exe(session, pids_of(pid))
