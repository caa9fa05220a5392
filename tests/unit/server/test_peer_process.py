"""The process at the other end, as the kernel knows it."""

import errno
import os
import socket
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.peer_process import (
    UNSEEN,
    Processes,
    has_ended,
    open_pidfd,
    read_executable,
)
from tests.support.stepped_reactor import Turns


class OldKernel:
    """A socket as a kernel has it that does not tell a peer's pidfd.

    :param number: the error of its getsockopt.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def getsockopt(self, level: int, option: int) -> int:
        """Fail."""
        raise OSError(self._number, os.strerror(self._number))


class PidfdTests(SynchronousTestCase):
    """Processes by descriptor."""

    def opened(self, skt: Any, pid: int) -> int:
        """A pidfd."""
        pidfd = open_pidfd(skt, pid)
        assert pidfd is not None
        self.addCleanup(os.close, pidfd)
        return pidfd

    def test_of_a_socket(self) -> None:
        """The peer's process, or, where the kernel cannot tell, that of its pid."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        for skt in (ours, OldKernel(errno.ENOPROTOOPT)):
            pidfd = self.opened(skt, os.getpid())
            self.assertFalse(has_ended(pidfd))
            self.assertFalse(os.get_inheritable(pidfd))
            self.assertEqual(
                read_executable(os.getpid(), pidfd), os.path.realpath("/proc/self/exe")
            )

    def test_gone(self) -> None:
        """If the peer has ended, its pid may be another process's."""
        for number in (errno.ESRCH, errno.EINVAL, errno.ENODATA):
            self.assertRaises(OSError, open_pidfd, OldKernel(number), os.getpid())

    def test_no_descriptor_left(self) -> None:
        """Nothing is tried without a descriptor for it."""
        self.assertRaises(OSError, open_pidfd, OldKernel(errno.EMFILE), os.getpid())


class UnseenTests(SynchronousTestCase):
    """Processes of other pid namespaces, where the kernel gives no pidfd of a socket's peer."""

    def test_no_pidfd(self) -> None:
        """There is no descriptor of one, and its executable is not known."""
        self.assertIsNone(open_pidfd(cast("Any", OldKernel(errno.ENOPROTOOPT)), UNSEEN))
        self.assertEqual(read_executable(UNSEEN, None), "")
        self.assertRaises(OSError, open_pidfd, OldKernel(errno.EMFILE), UNSEEN)

    def test_join(self) -> None:
        """Each connection counts as a process, and takes no descriptor of one."""
        turns = Turns()
        processes = Processes(turns.epoll_group, turns.reactor, 3, 64)
        old = cast("Any", OldKernel(errno.ENOPROTOOPT))
        connections = [Connection() for _ in range(2)]
        joined = [processes.join(connection, old, UNSEEN) for connection in connections]
        self.assertIsNot(joined[0].allowances, joined[1].allowances)
        self.assertEqual((len(processes), joined[0].has_ended), (0, False))
        for connection, process in zip(connections, joined, strict=True):
            processes.leave(connection, process)


class EndedTests(SynchronousTestCase):
    """Processes that have ended."""

    def test_join(self) -> None:
        """A process that has ended is not joined, though its child may hold the socket."""
        with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{folder}/s")
            listening.listen()
            code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
            child = subprocess.Popen([sys.executable, "-c", code, f"{folder}/s"])
            child.wait()
            ours, _ = listening.accept()
        self.addCleanup(ours.close)
        turns = Turns()
        processes = Processes(turns.epoll_group, turns.reactor, 3, 64)
        before = set(os.listdir("/proc/self/fd"))
        self.assertRaises(OSError, processes.join, Connection(), ours, child.pid)
        self.assertEqual(len(processes), 0)
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)


class Connection:
    """A connection that can be ended."""

    def end(self) -> None:
        """End."""


class ProcessesTests(SynchronousTestCase):
    """Processes that have connections."""

    def test_shared(self) -> None:
        """All connections of a process share its descriptor and its allowance."""
        turns = Turns()
        processes = Processes(turns.epoll_group, turns.reactor, 3, 64)
        before = set(os.listdir("/proc/self/fd"))
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        connections = [Connection() for _ in range(5)]
        joined = [processes.join(each, ours, os.getpid()) for each in connections]
        self.assertEqual(len({id(process) for process in joined}), 1)
        self.assertEqual((len(processes), joined[0].allowances.services.limit), (1, 3))
        for connection in connections:
            processes.leave(connection, joined[0])
            processes.leave(connection, joined[0])
        self.assertEqual(len(processes), 0)
        ours.close()
        theirs.close()
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)
        self.assertEqual(turns.reactor.getReaders(), [])
