"""The local channel for programs without an event loop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from portmapd.channel.socket_path import asking_socket
from portmapd.client.blocking.deadline import check_timeout
from portmapd.client.blocking.session import SharedConnection, SyncSession
from portmapd.client.core.registrations import Lost
from portmapd.client.portmapper import ANYWHERE, BasePortmapper, User, connect
from portmapd.client.values import (
    ClusterMapping,
    ClusterService,
    ClusterStatus,
    Known,
    RpcMapping,
    Service,
    Status,
    Terminator,
    check_only_host,
    watched_names,
)
from portmapd.errors import BadArguments

if TYPE_CHECKING:
    from portmapd.client.blocking.changes import Changes

T = TypeVar("T")

#: How long an operation may take, in seconds, unless the program says otherwise.
TIMEOUT = 10.0


class Portmapper(
    BasePortmapper[
        None,
        Sequence[Service],
        Sequence[RpcMapping],
        str,
        Status,
        Known[ClusterService],
        Known[ClusterMapping],
        ClusterStatus,
    ]
):
    """Registers and finds named services of this machine.

    What is registered through it stays registered until it is deregistered, the client is closed,
    or the process ends. It connects to the daemon when it is first used. If the connection broke,
    because the daemon was restarted, the next operation connects again and first registers
    everything again, in the groups in which it was; :meth:`hold` does so while the program does
    nothing else with it.

    Any operation may raise

    - a :exc:`~portmapd.errors.Refusal` if a rule forbids it; the connection stays;
    - :exc:`~portmapd.errors.DaemonUnreachable` if there is no daemon, or the connection breaks
      while the operation waits: it may have been done or not, and is not registered again;
    - :exc:`~portmapd.errors.CallTimedOut` if it takes longer than *timeout*. Its connection is
      closed, because the answer may still come; so what was registered is gone until the next
      operation;
    - :exc:`~portmapd.errors.ClientClosed` after :meth:`close`, also if it waits meanwhile;
    - :exc:`~portmapd.errors.Terminated` if its *terminator*, a descriptor or an object with
      ``fileno()``, becomes readable while it waits. The connection to the daemon is closed, and
      everything that was registered through it is gone for good.

    Threads may share it. The daemon is asked for one operation at a time; the others wait, which
    counts as their time: one that runs out of it meanwhile leaves the connection alone, but one
    that is terminated closes it, and the operation that it waited for raises
    :exc:`~portmapd.errors.DaemonUnreachable`.

    A process that forks keeps what it registered; the child's copy has nothing registered, and
    connects by itself. As a context manager it is closed at the end of the block.

    :param path: the path of the daemon's socket; None: the user's own daemon's if there is one,
        else, and for root, the system's.
    :param timeout: how long an operation may take, in seconds; None: without a limit.
    :param lost: is called with each :class:`~portmapd.client.core.registrations.Group` that could
        not be registered again, and the exception that says why, after the operation that
        connected. It may use the client; what it raises is logged. None: the logger ``portmapd``
        of the logging module warns of the group.
    :param host: another machine, a name or an address, with its port if that is not 80: its
        services with a port are listed and connected to by what its ``--http`` tells. Nothing can
        be registered or watched there, and its users are uids. None: this machine.
    :raises ValueError: *timeout* is not positive, *host* is none, or there is a *path*, too.
    :raises TypeError: *path* is not a path.
    :raises OSError: the process may open no more descriptors.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        timeout: float | None = TIMEOUT,
        lost: Lost | None = None,
        *,
        host: str | None = None,
    ) -> None:
        check_timeout(timeout)
        if host is None:
            self._shared = SharedConnection(asking_socket(path), timeout, lost)
            return
        # Few ask another machine.
        from portmapd.client.blocking.remote import SharedRemote

        check_only_host(path)
        self._shared = SharedRemote(host, timeout)

    def _run(
        self,
        operation: Callable[[SyncSession], Coroutine[Any, Any, T]],
        terminator: Terminator | None,
    ) -> T:
        return self._shared.run(operation, terminator)

    def connect(
        self,
        name: str,
        user: User | None,
        terminator: Terminator | None = None,
        where: str = ANYWHERE,
    ) -> socket.socket:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP (127.0.0.1, then ::1) or UNIX
        sockets, until one accepts. Those that hang leave time for the others.

        :param user: a uid, or a user's name; None: any.
        :param where: ``any``: on this machine, else on any other machine of the cluster that shares
            it, in random order; ``local``: on this machine alone; else the name of a machine of
            the cluster.
        :return: the connected socket, which blocks.
        :raises NotListed: none is registered.
        :raises NotAccepted: none of them accepts.
        """
        skt = self._run(lambda session: connect(session, session, name, user, where), terminator)
        skt.setblocking(True)
        return skt

    def connect_root(self, name: str, terminator: Terminator | None = None) -> socket.socket:
        """Connect to a service of that name that root registered; see :meth:`connect`."""
        return self.connect(name, 0, terminator)

    def connect_any(
        self, name: str, terminator: Terminator | None = None, where: str = ANYWHERE
    ) -> socket.socket:
        """Connect to a service of that name, whoever registered it; see :meth:`connect`."""
        return self.connect(name, None, terminator, where)

    def watch(
        self,
        names: str | Iterable[str] | None = None,
        terminator: Terminator | None = None,
        *,
        cluster: bool = False,
    ) -> Changes:
        """Watch what is registered now, and every change, as an iterator.

        It has a connection of its own, and goes on over restarts of the daemon; if the daemon
        stays away for longer than the timeout, it raises
        :exc:`~portmapd.errors.DaemonUnreachable`. It ends when it, or the client, is closed, by
        another thread too.

        :param names: the name, or the names, whose services are watched; None: all services, and
            the RPC mappings.
        :param cluster: watch what the machines of the cluster share instead.
        :raises NoCluster: the daemon belongs to no cluster.
        :raises BadArguments: *names* are not names, or can never be registered.
        """
        # It takes long to import, and most programs do not watch.
        from portmapd.client.blocking.changes import CLUSTER, LOCAL, Changes

        if self._shared.remote_hosts is not None:
            raise BadArguments("the services of another machine cannot be watched; list them again")

        commands = CLUSTER if cluster else LOCAL
        return Changes(self._shared, watched_names(names), terminator, commands)

    def hold(self, terminator: Terminator | None = None) -> None:
        """Wait, and keep everything registered over restarts of the daemon.

        It returns once another thread closes the client, and tries for ever if there is no daemon.
        Programs that are busy otherwise call it in a thread.
        """
        self._shared.hold(terminator)

    def close(self) -> None:
        """Close the connection for good; everything that was registered through it is gone.

        It takes effect at once: operations of other threads that wait, and later ones, raise
        :exc:`~portmapd.errors.ClientClosed`; iterations over changes end, and :meth:`hold`
        returns.
        """
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
