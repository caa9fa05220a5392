"""The local channel for Twisted applications."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure

from portmapd.channel import command as c
from portmapd.channel.path import asking_socket
from portmapd.client.connecting import connect_to_any
from portmapd.client.lasting import LastingLink, Lost, register_once
from portmapd.client.operation import operate
from portmapd.client.registration import MappingFields, registrations, rpc_mappings
from portmapd.client.standing import Group
from portmapd.client.subscription import Subscriptions, Watching
from portmapd.client.terminator import Terminator
from portmapd.client.values import (
    Flags,
    RpcMapping,
    Service,
    mapping_of,
    service_of,
    user_ids,
)
from portmapd.client.watching import View
from portmapd.errors import PortmapdError

T = TypeVar("T")

#: A listing; within the class, ``list`` is one of its methods.
Services = Sequence[Service]


class Portmapper:
    """Registers and finds named services of this machine.

    What is registered through it stands until it is deregistered, the client is closed, or the
    process ends. When the connection to the daemon breaks, it is made again, and everything is
    registered again in the groups in which it was.

    Every operation returns a Deferred. It fails with a :exc:`~portmapd.errors.Refusal` where a
    rule says no, and with :exc:`~portmapd.errors.DaemonUnreachable` where there is no daemon.
    If it is cancelled, or its *terminator* becomes readable while it waits (then it fails with
    :exc:`~portmapd.errors.Terminated`), the connection to the daemon is closed, and everything
    that was registered through it is gone.

    :param reactor: the application's reactor; None: the one that is installed.
    :param path: the path of the daemon's socket; None: the user's own daemon's if there is one,
        else the system's.
    :param lost: is called with each :class:`~portmapd.client.standing.Group` that could not be
        registered again, and the exception that says why; None: the log tells.
    """

    def __init__(
        self, reactor: Any = None, path: str | None = None, lost: Lost | None = None
    ) -> None:
        self._reactor = _installed() if reactor is None else reactor
        self._subscriptions = Subscriptions()
        self._link = LastingLink(
            self._reactor,
            asking_socket() if path is None else path,
            lost,
            lambda link: Deferred.fromCoroutine(self._subscriptions.resume(link)),
            self._subscriptions.event,
            lambda: bool(self._subscriptions),
        )

    def reg(
        self,
        name: Any,
        port: Any = None,
        flags: int = 0,
        terminator: Terminator | None = None,
        rpc: Any = None,
    ) -> Deferred[None]:
        """Register a name, all or nothing.

        :param name: the name; or a list of (name, port, flags), to register several at once.
        :param port: a number, the absolute path of a UNIX socket, a listening socket, an
            ``IListeningPort``, or a list of these; the same port twice counts once.
        :param flags: :class:`~portmapd.client.values.Flags`.
        :param terminator: a descriptor, or what has ``fileno()``.
        :param rpc: (program, version) or (program, version, netid): the ports become its RPC
            mappings, too; None: they do not.
        """
        return self._operate(self._reg(name, port, flags, rpc), terminator)

    async def _reg(self, name: Any, port: Any, flags: int, rpc: Any) -> None:
        mappings = rpc_mappings(rpc, port) if rpc is not None else ()
        await self._register(Group(registrations(name, port, flags), mappings))

    async def _register(self, group: Group) -> None:
        await register_once(await self._link.open(), group)
        self._link.standing.add(group)

    def dereg(
        self, name: Any, port: Any = None, terminator: Terminator | None = None
    ) -> Deferred[None]:
        """Undo a registration, and keep the others; arguments as of :meth:`reg`."""
        return self._operate(self._dereg(name, port), terminator)

    async def _dereg(self, name: Any, port: Any) -> None:
        await self._deregister([service[:2] for service in registrations(name, port)])

    async def _deregister(self, keys: Sequence[tuple[str, str]]) -> None:
        await self._link.ask(c.DEREGISTER, {"services": keys})
        self._link.standing.deregistered(keys)

    def list(
        self, name: Any = None, user: Any = None, pid: Any = None,
        terminator: Terminator | None = None,
    ) -> Deferred[Services]:  # fmt: skip
        """Every service that matches all arguments.

        :param name: a name, or several; None: any.
        :param user: a uid or a user's name, or several; None: any.
        :param pid: a process, or several; None: any.
        """
        return self._operate(self._list(name, user, pid), terminator)

    async def _list(self, name: Any, user: Any = None, pid: Any = None) -> Services:
        wanted = {"names": _several(name), "users": user_ids(user), "pids": _several(pid)}
        return await self._pages(c.LIST, "services", wanted, service_of)

    async def _pages(
        self,
        command: c.Command,
        field: str,
        wanted: dict[str, Any],
        make: Callable[[tuple[Any, ...]], T],
    ) -> Sequence[T]:
        answer = await self._link.ask(command, wanted)
        rows = [make(row) for row in answer[field]]
        while answer["more"] is not None:
            answer = await self._link.ask(command, {**wanted, "after": answer["more"]})
            rows += [make(row) for row in answer[field]]
        return rows

    def connect(
        self,
        name: str,
        user: Any,
        factory: IProtocolFactory,
        terminator: Terminator | None = None,
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP or UNIX sockets.

        :param user: a uid, or a user's name; None: any.
        :param factory: makes the protocol; the Deferred fires with it once it is connected.
        :raises NotListed: (in the Deferred) none is registered.
        :raises NotAccepted: (in the Deferred) none of them accepts.
        """
        return self._operate(self._connect(name, user, factory), terminator)

    def connect_root(
        self, name: str, factory: IProtocolFactory, terminator: Terminator | None = None
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name that root registered; see :meth:`connect`."""
        return self.connect(name, 0, factory, terminator)

    def connect_any(
        self, name: str, factory: IProtocolFactory, terminator: Terminator | None = None
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name, whoever registered it; see :meth:`connect`."""
        return self.connect(name, None, factory, terminator)

    async def _connect(self, name: str, user: Any, factory: IProtocolFactory) -> IProtocol:
        services = await self._list(name, user)
        return await connect_to_any(self._reactor, name, services, factory)

    def regpid2exe(self, terminator: Terminator | None = None) -> Deferred[None]:
        """Announce the path of this process's executable."""
        announcement = (c.PID2EXE, c.ANY_PORT, int(Flags.PUBLIC))
        return self._operate(self._register(Group((announcement,))), terminator)

    def deregpid2exe(self, terminator: Terminator | None = None) -> Deferred[None]:
        """End what :meth:`regpid2exe` began."""
        return self._operate(self._deregister([(c.PID2EXE, c.ANY_PORT)]), terminator)

    def pid2exe(self, pid: int, terminator: Terminator | None = None) -> Deferred[str]:
        """The path of the executable that process *pid* announces; empty if it is not known."""
        return self._operate(self._pid2exe(pid), terminator)

    async def _pid2exe(self, pid: int) -> str:
        announcements = await self._list(c.PID2EXE, pid=pid)
        return next((service.exe for service in announcements if service.exe), "")

    def set(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> Deferred[None]:
        """Map an RPC program's version on *netid* to a universal address (RFC 5665)."""
        mapping = program, version, netid, address
        return self._operate(self._register(Group(mappings=(mapping,))), terminator)

    def unset(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> Deferred[None]:
        """Undo :meth:`set`."""
        return self._operate(self._unset([(program, version, netid, address)]), terminator)

    async def _unset(self, mappings: Sequence[MappingFields]) -> None:
        await self._link.ask(c.UNSET_MAPPINGS, {"mappings": mappings})
        self._link.standing.unset(mappings)

    def mappings(self, terminator: Terminator | None = None) -> Deferred[Sequence[RpcMapping]]:
        """Every RPC mapping, of whatever origin."""
        return self._operate(self._pages(c.LIST_MAPPINGS, "mappings", {}, mapping_of), terminator)

    def watch(self, names: Iterable[str] | None = None) -> Watching:
        """Changes, from what is registered now on, as an asynchronous iterator.

        :param names: the names whose services are watched; None: all, and the RPC mappings.
        :return: ``async for`` takes :class:`~portmapd.client.values.Change` values from it;
            ``close()`` ends it.
        """
        watching = Watching(View(frozenset(names or ())), self._subscriptions.discard)
        self._subscriptions.add(watching)
        beginning = Deferred.fromCoroutine(self._begin())
        beginning.addErrback(self._begin_later)
        return watching

    def _begin_later(self, failure: Failure) -> None:
        """Without a daemon, a watching begins once there is one."""
        failure.trap(PortmapdError)
        self._link.try_later()

    async def _begin(self) -> None:
        await self._subscriptions.resume(await self._link.open())

    def close(self) -> Deferred[None]:
        """Close the connection; everything that was registered through it is gone.

        :return: fires once it is closed.
        """
        self._subscriptions.close()
        return self._link.close()

    def _operate(
        self, work: Coroutine[Deferred[Any], Any, T], terminator: Terminator | None
    ) -> Deferred[T]:
        return operate(self._reactor, work, self._link.abandon, terminator)


def _several(value: Any) -> list[Any] | None:
    """One value or several, as a list; None for none."""
    if value is None:
        return None
    return [value] if isinstance(value, str | int) else list(value)


def _installed() -> Any:
    from twisted.internet import reactor

    return reactor
