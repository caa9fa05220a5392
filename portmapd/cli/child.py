"""The command that ``portmapctl run`` runs, as the process that registers."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from types import TracebackType
from typing import NoReturn, Self

from attrs import frozen

from portmapd.cli.exit import Exit
from portmapd.client.blocking.connection import Dialer
from portmapd.client.blocking.deadline import Deadline
from portmapd.client.core.connecting import Target

#: The signals that are passed on to the command.
PASSED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
#: A terminal sends these to the whole foreground process group, so the command has them already.
_SENT_TO_BOTH = {signal.SIGINT, signal.SIGQUIT}
_AWAITED = PASSED_ON | {signal.SIGCHLD}

#: Exit statuses as shells use them: the command cannot be run; there is none of that name; and
#: what is added to the number of the signal that ended it.
CANNOT_RUN, NOT_THERE, SIGNALLED = 126, 127, 128

#: prctl(2): have a signal sent when the parent ends.
_PR_SET_PDEATHSIG = 1
#: What Python ignores, and the command should not.
_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ)
#: An errno as the child tells it.
_ERRNO = Struct("=i")
_GO = b"!"


class Child:
    """A process that connects to the daemon, and then becomes a command.

    The daemon takes the process that connects for the one that registers. So the child connects,
    and this process talks over that connection, before or after the child executes the command. As
    a context manager, it ends a child that still runs at the end of the block.

    The kernel sends it SIGTERM if this process is killed, so it does not outlive its registration.
    A set-user-id executable is not sent the signal.

    :param command: the program and its arguments.
    :param variables: what its environment has besides that of this process.
    :param path: the daemon's socket.
    :ivar is_connected: whether the connection that it makes was taken.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], path: str) -> None:
        self._command = command
        self._connection = socket.socket(socket.AF_UNIX)
        self.is_connected = False
        self._told, tell = os.pipe()
        waits, self._go = os.pipe()
        # While SIGCHLD is ignored, the kernel keeps no exit status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        parent = os.getpid()
        self._status: int | None = None
        # No other thread exists yet.
        self._pid = os.fork()
        if not self._pid:
            os.close(self._go)
            prepared = _Prepared(command, {**os.environ, **variables}, self._connection, tell)
            prepared.become(path, waits, parent)
        os.close(tell)
        os.close(waits)

    async def connected(self, deadline: Deadline) -> socket.socket:
        """The connection that the child makes, once.

        :raises OSError: it cannot be made.
        :raises CallTimedOut: it is not made in time.
        """
        connection, self.is_connected = self._connection, True
        try:
            deadline.wait(self._told, select.POLLIN)
            error = self._told_errno()
            if error != 0:
                error = error or errno.ECONNABORTED
                raise OSError(error, os.strerror(error))
        except BaseException:
            connection.close()
            raise
        connection.setblocking(False)
        return connection

    def permit(self) -> None:
        """Let the child execute the command; from here on, signals wait for :meth:`wait`."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        os.write(self._go, _GO)

    def check(self) -> None:
        """Wait until the child has executed the command.

        :raises Exit: it cannot be executed.
        """
        error = self._told_errno()
        if error is None:
            return
        status = NOT_THERE if error == errno.ENOENT else CANNOT_RUN
        why = os.strerror(error)
        raise Exit(status, f"{self._command[0]} cannot be run ({why}); give a program after --")

    def _told_errno(self) -> int | None:
        """What the child tells next; None if it tells nothing more."""
        data = os.read(self._told, _ERRNO.size)
        return int(_ERRNO.unpack(data)[0]) if data else None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended; another thread may wait for that."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._pid, options) is not None
        except ChildProcessError:
            return True

    def wait(self) -> int:
        """Pass signals on until the command ends, and return its exit status as a shell does."""
        while (status := self._poll()) is None:
            said = signal.sigwaitinfo(_AWAITED)
            # A positive code means that the kernel sent it, for the terminal.
            has_it = said.si_signo in _SENT_TO_BOTH and said.si_code > 0
            if said.si_signo in PASSED_ON and not has_it:
                os.kill(self._pid, said.si_signo)
        return status if status >= 0 else SIGNALLED - status

    def _poll(self) -> int | None:
        """Its exit status, once it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()
        # Without a word, it does not execute the command.
        os.close(self._go)
        if self._poll() is None:
            os.kill(self._pid, signal.SIGTERM)
        os.close(self._told)


@frozen
class _Prepared:
    """The child, until it becomes the command.

    :param connection: the socket that it connects.
    :param tell: where it writes the errno of connecting, then that of executing.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    connection: socket.socket
    tell: int

    def become(self, path: str, waits: int, parent: int) -> NoReturn:
        """Connect, wait until it may go on, and execute the command.

        :param waits: tells that it may.
        :param parent: the process that it ends with.
        """
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            for number in _DEFAULT:
                signal.signal(number, signal.SIG_DFL)
            is_connected = self._attempt(lambda: self.connection.connect(path))
            # The parent may have been killed before the prctl.
            if is_connected and os.getppid() == parent and os.read(waits, 1):
                words = [*self.command]
                self._attempt(lambda: os.execvpe(words[0], words, self.environment))
        finally:
            os._exit(CANNOT_RUN)

    def _attempt(self, work: Callable[[], object]) -> bool:
        """Do something, and tell how it went.

        :return: whether it went well.
        """
        error = 0
        try:
            work()
        except OSError as caught:
            error = caught.errno or errno.EINVAL
        except ValueError:
            error = errno.EINVAL
        os.write(self.tell, _ERRNO.pack(error))
        return not error


class ChildDialer(Dialer):
    """Has the child make the first connection. Later ones are this process's own.

    :param runs_first: whether the child executes its command as soon as it is connected. Nothing
        else may come between: the daemon soon looks at the executable.
    """

    def __init__(self, deadline: Deadline, child: Child, runs_first: bool) -> None:
        super().__init__(deadline)
        self._child = child
        self._runs_first = runs_first

    async def dial(self, target: Target, seconds: float) -> socket.socket:
        """Connect to *target*."""
        if not self._child.is_connected:
            return await self._first(self._deadline.within(seconds))
        if self._child.has_ended:
            # Its registration has ended with it.
            raise ConnectionAbortedError(errno.ECONNABORTED, "the command has ended")
        return await super().dial(target, seconds)

    async def _first(self, deadline: Deadline) -> socket.socket:
        if self._runs_first:
            self._child.permit()
        connection = await self._child.connected(deadline)
        if self._runs_first:
            self._child.check()
        return connection
