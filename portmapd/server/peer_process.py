"""The process at the other end of a connection, as the kernel knows it."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.registry.holder import Allowances, allowances

#: The connections of an ended process that are ended in one turn of the reactor.
BATCH = 16

#: Since Linux 6.5; the socket module has no name for it.
_SO_PEERPIDFD = 77
#: The pid that the kernel gives for a process of another pid namespace that is not below this one.
UNSEEN = 0


def open_pidfd(skt: socket.socket, pid: int) -> int | None:
    """A pidfd of the process that connected *skt*.

    :return: None if its pid is :data:`UNSEEN`, and the kernel gives no pidfd of a socket's peer.
    :raises OSError: it has ended, or there are no descriptors left.
    """
    try:
        return skt.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        # After any other error the pid proves nothing: the process may have ended, its child may
        # hold the socket, and another process may have the pid.
        if error.errno != errno.ENOPROTOOPT:
            raise
        return None if pid == UNSEEN else os.pidfd_open(pid)


def has_peer_pidfd() -> bool:
    """Does the kernel give a pidfd of a socket's peer, even when its pid is another's by then?"""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            return False
    return True


def has_ended(pidfd: int) -> bool:
    """Has the process ended?"""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def read_executable(pid: int, pidfd: int | None) -> str:
    """The path of the executable of a process; empty if it cannot be known.

    :param pidfd: None if the process cannot be seen from this pid namespace.

    It cannot be known if its file was deleted or replaced. The process must still run after the
    path was read: otherwise the path may be that of another process with the same pid.
    """
    link = f"/proc/{pid}/exe"
    try:
        path = os.readlink(link)
        there, running = os.stat(path), os.stat(link)
        path.encode()
    except (OSError, UnicodeEncodeError):
        return ""
    same = (there.st_dev, there.st_ino) == (running.st_dev, running.st_ino)
    return path if same and pidfd is not None and not has_ended(pidfd) else ""


class Connection(Protocol):
    """A connection that ends with its process."""

    def end(self) -> None:
        """Close it at once."""


@implementer(IReadDescriptor)
@define(eq=False)
class Process:
    """A process that has connections, as a descriptor of the reactor.

    :param key: its pid, and a number that another process with the same pid does not have.
    :param pidfd: becomes readable when the process ends; None: nothing tells when it does.
    :param allowances: what all its connections together may hold.
    :param ended: is called with it when it has ended.
    """

    key: tuple[int, int]
    pidfd: int | None
    allowances: Allowances
    ended: Callable[[Process], None]
    connections: dict[Connection, None] = field(factory=dict)

    def fileno(self) -> int:
        return -1 if self.pidfd is None else self.pidfd

    def doRead(self) -> None:
        """The process has ended."""
        self.ended(self)

    def connectionLost(self, reason: Failure) -> None:
        """The process has ended, and the reactor saw the hang-up first."""
        self.ended(self)

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, as far as that can be told."""
        return self.pidfd is not None and has_ended(self.pidfd)

    def logPrefix(self) -> str:
        return f"pid {self.key[0]}"


class Processes:
    """The processes that have connections.

    :param descriptors: where their pidfds are watched.
    :param clock: gives turns.
    :param max_services: the most services that one process may hold.
    :param max_mappings: the most RPC mappings that one process may hold.
    :ivar has_peer_pidfd: may a process be joined some time after it connected? If not, another
        process that has its pid by then would be taken for it.
    """

    def __init__(
        self,
        descriptors: IReactorFDSet,
        clock: IReactorTime,
        max_services: int,
        max_mappings: int,
    ) -> None:
        self._descriptors = descriptors
        self._clock = clock
        self.max_services = max_services
        self._max_mappings = max_mappings
        self.has_peer_pidfd = has_peer_pidfd()
        self._living: dict[tuple[int, int], Process] = {}
        #: The processes that have ended, and have connections still.
        self._ending: dict[Process, None] = {}

    def __len__(self) -> int:
        """How many processes there are; each takes a descriptor."""
        return len(self._living)

    def join(self, connection: Connection, skt: socket.socket, pid: int) -> Process:
        """The process that connected *skt*, with *connection* among its connections.

        A process that cannot be told from others has this connection only.

        :raises OSError: it has ended, or there are no descriptors left.
        """
        pidfd = open_pidfd(skt, pid)
        if pidfd is None:
            one = {connection: None}
            return Process((pid, 0), None, self._new_allowances(), self._end, one)
        if has_ended(pidfd):
            os.close(pidfd)
            raise ProcessLookupError(f"pid {pid} has ended")
        # Since Linux 6.9 the inode is the process's own. Before, all have the same.
        key = pid, os.fstat(pidfd).st_ino
        process = self._living.get(key)
        if process is not None and process.has_ended:
            self._end(process)
            process = None
        if process is None:
            process = Process(key, pidfd, self._new_allowances(), self._end)
            self._living[key] = process
            self._descriptors.addReader(process)
        else:
            os.close(pidfd)
        process.connections[connection] = None
        return process

    def take_over(self, pid: int, pidfd: int | None) -> Process:
        """A process that another process of ours has looked up; it has no connections yet.

        :param pidfd: its pidfd, which is this object's from now on; None: it has none.
        """
        if pidfd is None:
            return Process((pid, 0), None, self._new_allowances(), self._end)
        process = Process((pid, os.fstat(pidfd).st_ino), pidfd, self._new_allowances(), self._end)
        self._living[process.key] = process
        self._descriptors.addReader(process)
        return process

    def finish(self) -> None:
        """End all connections of processes that have ended, now."""
        while self._ending:
            self._end_some(next(iter(self._ending)))

    def _new_allowances(self) -> Allowances:
        return allowances(self.max_services, self._max_mappings)

    def leave(self, connection: Connection, process: Process) -> None:
        """*connection* of *process* has ended."""
        process.connections.pop(connection, None)
        if not process.connections:
            self._forget(process)

    def _end(self, process: Process) -> None:
        """End the connections of an ended process: a child may hold its sockets for ever."""
        self._forget(process)
        self._ending[process] = None
        self._end_some(process)

    def _end_some(self, process: Process) -> None:
        """End a batch of connections, and further ones in a later turn of the reactor."""
        for connection in tuple(islice(process.connections, BATCH)):
            connection.end()
            process.connections.pop(connection, None)
        if not process.connections:
            self._ending.pop(process, None)
        else:
            self._clock.callLater(0, self._end_some, process)

    def _forget(self, process: Process) -> None:
        if self._living.get(process.key) is process:
            del self._living[process.key]
            self._descriptors.removeReader(process)
            if process.pidfd is not None:
                os.close(process.pidfd)
