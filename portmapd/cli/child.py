"""The command that ``portmapctl run`` runs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence

from portmapd.cli.exit import Exit

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


class Child:
    """A running command.

    The kernel sends it SIGTERM if this process is killed, so it does not outlive its registration.
    A set-user-id executable is not sent the signal.

    :param command: the program and its arguments.
    :raises Exit: the program cannot be run.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # While SIGCHLD is ignored, the kernel keeps no exit status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        try:
            # No other thread exists yet, and our other descriptors are closed by the exec.
            self._process = subprocess.Popen(
                command,
                close_fds=False,
                preexec_fn=_end_with_parent(before),  # noqa: PLW1509
            )
        except OSError as error:
            status = NOT_THERE if isinstance(error, FileNotFoundError) else CANNOT_RUN
            raise Exit(
                status,
                f"{command[0]} cannot be run ({error.strerror}); give a program after --",
            ) from error

    def wait(self) -> int:
        """Pass signals on until the command ends, and return its exit status as a shell does."""
        while (status := self._process.poll()) is None:
            said = signal.sigwaitinfo(_AWAITED)
            # A positive code means that the kernel sent it, for the terminal.
            has_it = said.si_signo in _SENT_TO_BOTH and said.si_code > 0
            if said.si_signo in PASSED_ON and not has_it:
                self._process.send_signal(said.si_signo)
        return status if status >= 0 else SIGNALLED - status


def _end_with_parent(mask: set[int]) -> Callable[[], None]:
    """A function for the child to run before it executes the command."""
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if os.getppid() != parent:
            # The parent was killed before the prctl.
            os.kill(os.getpid(), signal.SIGTERM)

    return prepare
