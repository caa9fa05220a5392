"""The local channel for Twisted applications."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from os import PathLike
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory

from portmapd.channel import commands as c
from portmapd.channel.socket_path import asking_socket
from portmapd.client.asking import Asking
from portmapd.client.connecting import connect_to_any
from portmapd.client.lasting import LastingLink
from portmapd.client.operation import Operations
from portmapd.client.patience import Terminator
from portmapd.client.standing import Group, Lost
from portmapd.client.subscription import Subscriptions, Watching
from portmapd.client.values import Flags, RpcMapping, Service, names_of
from portmapd.client.watching import View

T = TypeVar("T")

#: A listing; within the class, ``list`` is one of its methods.
Services = Sequence[Service]


class Portmapper:
    """Registers and finds named services of this machine.

    What is registered through it stands until it is deregistered, the client is closed, or the
    process ends. When the connection to the daemon breaks, it is made again, and everything is
    registered again in the groups in which it was.

    Every operation returns a Deferred. Whatever the operation, it fails with

    - a :exc:`~portmapd.errors.Refusal` where a rule says no; the message names the field. Those
      that tell of something else than a wrong argument are named with the methods.
    - :exc:`~portmapd.errors.DaemonUnreachable` where there is no daemon, or the connection breaks
      before it answers; nothing is tried again then, and what was to be registered is not. It is
      :exc:`~portmapd.errors.ClientClosed` after :meth:`close`.
    - :exc:`~portmapd.errors.Terminated` if its *terminator*, a descriptor or what has
      ``fileno()``, becomes readable while it waits (None: there is none). Then the connection to
      the daemon is closed, and everything that was registered through it is gone. Cancelling the
      Deferred does the same.

    An operation without a connection waits 10 seconds at most for the daemon to take one, and 10
    more for its greeting; then it fails with :exc:`~portmapd.errors.DaemonUnreachable`. On a
    connection there is no limit to how long it waits for a daemon that does not answer; give it
    one with ``addTimeout``, which cancels.

    :param reactor: the application's reactor; None: the one that is installed.
    :param path: the path of the daemon's socket; None: the user's own daemon's if there is one,
        else the system's.
    :param lost: is called with each :class:`~portmapd.client.standing.Group` that could not be
        registered again, and the exception that says why; None: the log tells.
    """

    def __init__(
        self, reactor: Any = None, path: str | PathLike[str] | None = None, lost: Lost | None = None
    ) -> None:
        self._reactor = _installed() if reactor is None else reactor
        self._subscriptions = subscriptions = Subscriptions()
        self._link = LastingLink(
            self._reactor,
            asking_socket(path),
            lost,
            subscriptions.resume,
            subscriptions.event,
            lambda: bool(subscriptions),
        )
        self._asking = Asking(self._link)
        self._operations = Operations(self._reactor, self._link.abandon)

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
        :param flags: :class:`~portmapd.client.values.Flags`; 0: none. Of a list, those of its
            entries without.
        :param rpc: (program, version) or (program, version, netid): the ports become its RPC
            mappings, too, one for each netid; None: they do not.
        :raises AlreadyRegistered: the name is taken, or the program's version on that netid.
        :raises LimitExceeded: the process would hold more than the daemon lets it.
        :raises ExecutableUnknown: it is to be public, and this process's executable is not known.
        """
        return self._run(self._asking.reg(name, port, flags, rpc), terminator)

    def dereg(
        self, name: Any, port: Any = None, terminator: Terminator | None = None
    ) -> Deferred[None]:
        """Undo a registration, and keep the others.

        The RPC mappings that :meth:`reg` made with it go, too.

        :param name: as of :meth:`reg`; or a list of (name, port).
        :param port: as of :meth:`reg`.
        :raises NotRegistered: it is not registered through this client.
        """
        return self._run(self._asking.dereg(name, port), terminator)

    def list(
        self, name: Any = None, user: Any = None, pid: Any = None,
        terminator: Terminator | None = None,
    ) -> Deferred[Services]:  # fmt: skip
        """Every :class:`~portmapd.client.values.Service` that matches all arguments.

        :param name: a name, or several; None: any.
        :param user: a uid or a user's name, or several; None: any.
        :param pid: a process, or several; None: any.
        """
        return self._run(self._asking.list(name, user, pid), terminator)

    def connect(
        self,
        name: str,
        user: Any,
        factory: IProtocolFactory,
        terminator: Terminator | None = None,
    ) -> Deferred[IProtocol]:
        """Connect to a service of that name and user.

        Its registrations are tried in random order, over TCP (127.0.0.1, then ::1) or UNIX
        sockets, until one accepts. Each address has 10 seconds for that.

        :param user: a uid, or a user's name; None: any.
        :param factory: makes the protocol; the Deferred fires with it once it is connected.
        :raises NotListed: none is registered.
        :raises NotAccepted: none of them accepts.
        """
        return self._run(self._connect(name, user, factory), terminator)

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
        services = await self._asking.list(name, user)
        return await connect_to_any(self._reactor, name, services, factory)

    def regpid2exe(self, terminator: Terminator | None = None) -> Deferred[None]:
        """Announce the path of this process's executable.

        :raises ExecutableUnknown: it is not known: deleted, replaced, or not to be read.
        """
        announcement = (c.PID2EXE, c.ANY_PORT, int(Flags.PUBLIC))
        return self._run(self._asking.register(Group((announcement,))), terminator)

    def deregpid2exe(self, terminator: Terminator | None = None) -> Deferred[None]:
        """End what :meth:`regpid2exe` began.

        :raises NotRegistered: this client announces none.
        """
        return self._run(self._asking.deregister([(c.PID2EXE, c.ANY_PORT)]), terminator)

    def pid2exe(self, pid: int, terminator: Terminator | None = None) -> Deferred[str]:
        """The path of the executable that process *pid* announces; empty if it is not known."""
        return self._run(self._asking.pid2exe(pid), terminator)

    def set(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> Deferred[None]:
        """Map an RPC program's version on *netid* to a universal address (RFC 5665).

        :param program: 0 to 4294967295, but not the port mapper's own.
        :param version: 0 to 4294967295.
        :param netid: ``udp``, ``tcp``, ``udp6``, ``tcp6`` or ``local``.
        :param address: such as ``127.0.0.1.3.232`` for port 1000; a path for netid local.
        :raises AlreadyRegistered: it is mapped, by whomever.
        :raises LimitExceeded: the process would hold more than the daemon lets it.
        """
        group = Group(mappings=((program, version, netid, address),))
        return self._run(self._asking.register(group), terminator)

    def unset(
        self,
        program: int,
        version: int,
        netid: str,
        address: str,
        terminator: Terminator | None = None,
    ) -> Deferred[None]:
        """Undo :meth:`set`; the arguments are the same.

        :raises NotRegistered: it is not set through this client.
        """
        return self._run(self._asking.unset((program, version, netid, address)), terminator)

    def mappings(self, terminator: Terminator | None = None) -> Deferred[Sequence[RpcMapping]]:
        """Every :class:`~portmapd.client.values.RpcMapping`, of whatever origin."""
        return self._run(self._asking.mappings(), terminator)

    def watch(self, names: str | Iterable[str] | None = None) -> Watching:
        """Changes, from what is registered now on, as an asynchronous iterator.

        Without a daemon, it begins once there is one. What comes and goes before it is taken may
        be left out if there is very much of it.

        :param names: the name, or the names, whose services are watched; None: all services, and
            the RPC mappings.
        :return: ``async for`` takes :class:`~portmapd.client.values.Change` values from it;
            ``close()`` ends it, and must be called when it is not read any more.
        :raises BadArguments: they are no names.
        :raises ClientClosed: after :meth:`close`.
        """
        if self._link.is_closed:
            raise self._link.closed()
        view = View(frozenset(names_of(names) or ()))
        watching = Watching(view, self._subscriptions.discard)
        self._subscriptions.add(watching)
        # Without a connection it is tried again, and what fails otherwise is logged there.
        Deferred.fromCoroutine(self._begin()).addErrback(lambda failure: None)
        return watching

    async def _begin(self) -> None:
        self._subscriptions.begin(await self._link.open())

    def close(self) -> Deferred[None]:
        """Close the connection; everything that was registered through it is gone.

        Operations that wait, and later ones, fail with :exc:`~portmapd.errors.ClientClosed`;
        iterations over changes end.

        :return: fires once it is closed.
        """
        closed = self._link.close()
        self._subscriptions.close()
        self._operations.close(self._link.closed)
        return closed

    def _run(
        self, work: Coroutine[Deferred[Any], Any, T], terminator: Terminator | None
    ) -> Deferred[T]:
        return self._operations.run(work, terminator)


def _installed() -> Any:
    from twisted.internet import reactor

    return reactor
