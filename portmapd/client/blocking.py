"""The local channel for programs without a reactor: plain sockets, and no Twisted."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from portmapd.channel import commands as c
from portmapd.channel.socket_path import asking_socket
from portmapd.client.dial import dial_any
from portmapd.client.holding import Holding
from portmapd.client.operating import Operation
from portmapd.client.patience import Terminator
from portmapd.client.standing import Group, Lost
from portmapd.client.values import (
    Flags,
    RpcMapping,
    Service,
    mapping_of,
    names_of,
    pids_of,
    service_of,
    user_ids,
)

if TYPE_CHECKING:
    from portmapd.client.changes import Changes
    from portmapd.client.registration import MappingFields

__all__ = ["Flags", "Group", "Portmapper", "RpcMapping", "Service"]

#: How long an operation may take, in seconds, unless the program says otherwise.
TIMEOUT = 10.0

#: A listing; within the class, ``list`` is one of its methods.
Services = Sequence[Service]


class Portmapper:
    """Registers and finds named services of this machine.

    What is registered through it stands until it is deregistered, the client is closed, or the
    process ends. It connects to the daemon when it is first used. When the connection broke, for
    the daemon was restarted, the next operation connects again and first registers everything
    again, in the groups in which it was; :meth:`hold` does so while the program does nothing else
    with it.

    Every operation raises, beside what it documents itself,

    - :exc:`~portmapd.errors.Refusal` where a rule says no; the connection stays;
    - :exc:`~portmapd.errors.DaemonUnreachable` where there is no daemon, or the connection breaks
      while the operation waits: it may have been done or not, and is not registered again;
    - :exc:`~portmapd.errors.CallTimedOut` if it takes longer than *timeout*. Its connection is
      closed, for the answer may still come; so what was registered is gone until the next
      operation;
    - :exc:`~portmapd.errors.ClientClosed` after :meth:`close`, also if it waits meanwhile;
    - :exc:`~portmapd.errors.Terminated` if its *terminator*, a descriptor or what has
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
    :param timeout: how long an operation may take, in seconds; None: as long as it takes.
    :param lost: is called with each :class:`~portmapd.client.standing.Group` that could not be
        registered again, and the exception that says why, after the operation that connected. It
        may use the client; what it raises is logged. None: the logger ``portmapd`` of the logging
        module warns of the group.
    :raises ValueError: *timeout* is not positive.
    :raises OSError: the process may open no more descriptors.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        timeout: float | None = TIMEOUT,
        lost: Lost | None = None,
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout {timeout}: give seconds, more than 0")
        self._timeout = timeout
        self._holding = Holding(asking_socket(path), lost)

    def reg(
        self,
        name: Any,
        port: Any = None,
        flags: int = 0,
        terminator: Terminator | None = None,
        rpc: Any = None,
    ) -> None:
        """Register a name, all or nothing.

        :param name: the name; or a list of (name, port, flags), to register several at once.
        :param port: a number, the absolute path of a UNIX socket, a listening socket, or a list of
            these; the same port twice counts once.
        :param flags: :class:`~portmapd.client.values.Flags`. Of a list, those of its entries
            without.
        :param rpc: (program, version) or (program, version, netid): the ports become its RPC
            mappings, too, one for each netid; None: they do not.
        """
        # Here and below: a program that only asks starts without what it does not use.
        from portmapd.client.registration import registrations, rpc_mappings

        services = registrations(name, port, flags)
        mappings = rpc_mappings(rpc, port) if rpc is not None else ()
        self._register(Group(services, mappings), terminator)

    def _register(self, group: Group, terminator: Terminator | None) -> None:
        with self._operation(terminator) as operation:
            operation.register(group)
            operation.standing.add(group)

    def dereg(self, name: Any, port: Any = None, terminator: Terminator | None = None) -> None:
        """Undo a registration, and keep the others; arguments as of :meth:`reg`.

        An RPC mapping that came with it goes, too.
        """
        from portmapd.client.registration import registrations

        self._deregister([row[:2] for row in registrations(name, port)], terminator)

    def _deregister(self, keys: Sequence[tuple[str, str]], terminator: Terminator | None) -> None:
        with self._operation(terminator) as operation:
            operation.ask(c.DEREGISTER, {"services": keys})
            operation.unset(operation.standing.deregistered(keys))

    def list(
        self, name: Any = None, user: Any = None, pid: Any = None,
        terminator: Terminator | None = None,
    ) -> Services:  # fmt: skip
        """Every service that matches all arguments.

        :param name: a name, or several; None: any.
        :param user: a uid or a user's name, or several; None: any.
        :param pid: a process, or several; None: any.
        """
        wanted = _wanted(name, user, pid)
        with self._operation(terminator) as operation:
            return _services(operation, wanted)

    def connect(self, name: str, user: Any, terminator: Terminator | None = None) -> socket.socket:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP or UNIX sockets.

        :param user: a uid, or a user's name; None: any.
        :return: the connected socket, which blocks.
        :raises NotListed: none is registered.
        :raises NotAccepted: none of them accepts.
        """
        wanted = _wanted(name, user)
        with self._holding.waiting(self._timeout, terminator) as patience:
            with self._holding.asking(patience) as operation:
                services = _services(operation, wanted)
            # Other threads may ask meanwhile.
            return dial_any(name, services, patience)

    def connect_root(self, name: str, terminator: Terminator | None = None) -> socket.socket:
        """Connect to a service of that name that root registered; see :meth:`connect`."""
        return self.connect(name, 0, terminator)

    def connect_any(self, name: str, terminator: Terminator | None = None) -> socket.socket:
        """Connect to a service of that name, whoever registered it; see :meth:`connect`."""
        return self.connect(name, None, terminator)

    def regpid2exe(self, terminator: Terminator | None = None) -> None:
        """Announce the path of this process's executable."""
        announcement = (c.PID2EXE, c.ANY_PORT, int(Flags.PUBLIC))
        self._register(Group((announcement,)), terminator)

    def deregpid2exe(self, terminator: Terminator | None = None) -> None:
        """End what :meth:`regpid2exe` began."""
        self._deregister([(c.PID2EXE, c.ANY_PORT)], terminator)

    def pid2exe(self, pid: int, terminator: Terminator | None = None) -> str:
        """The path of the executable that process *pid* announces; empty if it is not known."""
        announcements = self.list(c.PID2EXE, pid=pid, terminator=terminator)
        return next((service.exe for service in announcements if service.exe), "")

    def set(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> None:
        """Map an RPC program's version on *netid* to a universal address (RFC 5665).

        :param program: 0 to 4294967295, but not the port mapper's own.
        :param version: 0 to 4294967295.
        :param netid: ``udp``, ``tcp``, ``udp6``, ``tcp6`` or ``local``.
        :param address: such as ``127.0.0.1.3.232`` for port 1000; a path for netid local.
        :raises InvalidMapping: an argument is none of these.
        :raises AlreadyRegistered: it is mapped, by whomever.
        :raises LimitExceeded: the process would hold more than the daemon lets it.
        """
        mapping = program, version, netid, address
        self._register(Group(mappings=(mapping,)), terminator)

    def unset(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> None:
        """Undo :meth:`set`; the arguments are the same.

        :raises NotRegistered: it is not set through this client.
        """
        mappings: Sequence[MappingFields] = [(program, version, netid, address)]
        with self._operation(terminator) as operation:
            operation.ask(c.UNSET_MAPPINGS, {"mappings": mappings})
            operation.standing.unset(mappings)

    def mappings(self, terminator: Terminator | None = None) -> Sequence[RpcMapping]:
        """Every RPC mapping, of whatever origin."""
        with self._operation(terminator) as operation:
            return _rows(operation.pages(c.LIST_MAPPINGS, "mappings", {}, mapping_of))

    def watch(
        self, names: str | Iterable[str] | None = None, terminator: Terminator | None = None
    ) -> Changes:
        """Changes, from what is registered now on, as an iterator.

        It has a connection of its own, and outlives the daemon's restarts; a daemon that stays
        away for longer than the timeout raises :exc:`~portmapd.errors.DaemonUnreachable`. It ends
        when it, or the client, is closed, by another thread too.

        :param names: the name, or the names, whose services are watched; None: all, and the RPC
            mappings.
        """
        from portmapd.client.changes import Changes

        return Changes(self._holding, names_of(names) or (), self._timeout, terminator)

    def hold(self, terminator: Terminator | None = None) -> None:
        """Wait, and keep everything registered over the daemon's restarts.

        It returns once another thread closes the client, and tries for ever where there is no
        daemon. Programs that are busy otherwise leave it to a thread.
        """
        self._holding.hold(self._timeout, terminator)

    def close(self) -> None:
        """Close the connection for good; everything that was registered through it is gone.

        It takes effect at once: operations of other threads that wait, and later ones, raise
        :exc:`~portmapd.errors.ClientClosed`; iterations over changes end, and :meth:`hold`
        returns.
        """
        self._holding.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _operation(self, terminator: Terminator | None) -> AbstractContextManager[Operation]:
        return self._holding.operation(self._timeout, terminator)


def _wanted(name: Any, user: Any, pid: Any = None) -> Mapping[str, Any]:
    return {"names": names_of(name), "users": user_ids(user), "pids": pids_of(pid)}


def _services(operation: Operation, wanted: Mapping[str, Any]) -> Services:
    return _rows(operation.pages(c.LIST, "services", wanted, service_of))


def _rows(pages: Iterator[Sequence[Any]]) -> Sequence[Any]:
    return [row for page in pages for row in page]
