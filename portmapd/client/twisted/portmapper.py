"""The client of the local channel whose operations are Deferreds."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime

from portmapd.client.async_portmapper import AsyncPortmapper
from portmapd.client.core.connecting import Target
from portmapd.client.core.registrations import Lost
from portmapd.client.portmapper import ANYWHERE, User, connect
from portmapd.client.twisted.connection import Dialled
from portmapd.client.twisted.operations import Operations
from portmapd.client.twisted.runtime import ReactorRuntime
from portmapd.client.values import (
    ClusterMapping,
    ClusterService,
    ClusterStatus,
    Known,
    RpcMapping,
    Service,
    Status,
    Terminator,
)

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Session

T = TypeVar("T")


class Portmapper(
    AsyncPortmapper[
        Deferred[None],
        Deferred[Sequence[Service]],
        Deferred[Sequence[RpcMapping]],
        Deferred[str],
        Deferred[Status],
        Deferred[Known[ClusterService]],
        Deferred[Known[ClusterMapping]],
        Deferred[ClusterStatus],
    ]
):
    """Registers and finds named services of this machine.

    What is registered through it stays registered until it is deregistered, the client is closed,
    or the process ends. When the connection to the daemon breaks, it is made again, and everything
    is registered again in the groups in which it was.

    Every operation returns a Deferred. Any operation may fail with

    - a :exc:`~portmapd.errors.Refusal` if a rule forbids it; the message names the field.
    - :exc:`~portmapd.errors.DaemonUnreachable` if there is no daemon, or the connection breaks
      before it answers; the operation is not tried again then, and what was to be registered is
      not. It is :exc:`~portmapd.errors.ClientClosed` after :meth:`close`.
    - :exc:`~portmapd.errors.Terminated` if its *terminator*, a descriptor or an object with
      ``fileno()``, becomes readable while it waits (None: there is none). Then the connection to
      the daemon is closed, and everything that was registered through it is gone. Cancelling the
      Deferred does the same.

    An operation without a connection waits 10 seconds at most for the daemon to take one, and 10
    more for its greeting; then it fails with :exc:`~portmapd.errors.DaemonUnreachable`. On a
    connection there is no limit to how long it waits for a daemon that does not answer; set one
    with ``addTimeout``, which cancels.

    :param reactor: the application's reactor; None: the one that is installed.
    :param path: the path of the daemon's socket; None: the user's own daemon's if there is one,
        else the system's.
    :param lost: is called with each :class:`~portmapd.client.core.registrations.Group` that could
        not be registered again, and the exception that says why; None: it is logged.
    :param host: another machine, a name or an address, with its port if that is not 80: its
        services with a port are listed and connected to by what its ``--http`` tells. Nothing can
        be registered or watched there, and its users are uids. None: this machine.
    :raises TypeError: *reactor* lacks an interface, or *path* is not a path.
    :raises ValueError: *host* is none, or there is a *path*, too.
    """

    def __init__(
        self,
        reactor: IReactorTime | None = None,
        path: str | PathLike[str] | None = None,
        lost: Lost | None = None,
        *,
        host: str | None = None,
    ) -> None:
        self._runtime = ReactorRuntime(_installed() if reactor is None else reactor)
        super().__init__(self._runtime, path, lost, host)
        self._operations = Operations(self._runtime, self._connection.abandon)

    def _run(
        self, operation: Callable[[Session], Coroutine[Any, Any, T]], terminator: Terminator | None
    ) -> Deferred[T]:
        return self._operations.run(operation(self._connection), terminator)

    def connect(
        self,
        name: str,
        user: User | None,
        factory: IProtocolFactory,
        terminator: Terminator | None = None,
        where: str = ANYWHERE,
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP (127.0.0.1, then ::1) or UNIX
        sockets, until one accepts. Each address has 10 seconds for that.

        :param user: a uid, or a user's name; None: any.
        :param factory: makes the protocol, which is the result once it is connected.
        :param where: ``any``: on this machine, else on any other machine of the cluster that shares
            it, in random order; ``local``: on this machine alone; else the name of a machine of
            the cluster.
        :raises NotListed: none is registered.
        :raises NotAccepted: none of them accepts.
        """
        return self._run(
            lambda session: self._connect(session, name, user, factory, where), terminator
        )

    def connect_root(
        self, name: str, factory: IProtocolFactory, terminator: Terminator | None = None
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name that root registered; see :meth:`connect`."""
        return self.connect(name, 0, factory, terminator)

    def connect_any(
        self,
        name: str,
        factory: IProtocolFactory,
        terminator: Terminator | None = None,
        where: str = ANYWHERE,
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name, whoever registered it; see :meth:`connect`."""
        return self.connect(name, None, factory, terminator, where)

    async def _connect(
        self, session: Session, name: str, user: User | None, factory: IProtocolFactory, where: str
    ) -> IProtocol:
        dialer = _FactoryDialer(self._runtime, factory)
        try:
            return _hand_over(await connect(session, dialer, name, user, where), factory)
        finally:
            dialer.stop()

    def close(self) -> Deferred[None]:
        """Close the connection; everything that was registered through it is gone.

        Operations that wait, and later ones, fail with :exc:`~portmapd.errors.ClientClosed`;
        iterations over changes end.

        :return: fires once it is closed.
        """
        closed = self._connection.close()
        assert isinstance(closed, Deferred)
        self._watchers.close()
        self._operations.close(self._connection.closed)
        return closed


class _FactoryDialer:
    """Makes connections for a factory.

    The factory is started once for all attempts: it may log whenever it starts and stops.
    """

    left = math.inf

    def __init__(self, runtime: ReactorRuntime, factory: IProtocolFactory) -> None:
        self.time = runtime.time
        self.sleep = runtime.sleep
        self._runtime = runtime
        self._factory = factory
        self._is_started = False

    async def dial(self, target: Target, seconds: float) -> Dialled:
        if not self._is_started:
            self._is_started = True
            self._factory.doStart()
        return await self._runtime.dial(target, seconds, self._factory)

    def stop(self) -> None:
        """No attempt follows."""
        if self._is_started:
            self._factory.doStop()


def _hand_over(dialled: Dialled, factory: IProtocolFactory) -> IProtocol:
    """Connect the application's protocol; what its code raises ends the connection."""
    try:
        protocol = factory.buildProtocol(dialled.getpeername())
        if protocol is None:
            raise NoProtocol
        dialled.hand_over(protocol)
    except BaseException:
        dialled.close()
        raise
    return protocol


def _installed() -> IReactorTime:
    from twisted.internet import reactor

    return IReactorTime(reactor)
