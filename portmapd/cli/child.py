"""A command that runs under ``portmapctl run``."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence

from portmapd.cli.ending import Ending

#: The signals that the command gets when portmapctl gets them.
HANDED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
#: Those that a terminal sends to the command as well, for it does to all that run in front; but
#: when it hangs up, it tells the leader of its session alone.
_SENT_TO_BOTH = {signal.SIGINT, signal.SIGQUIT}
_AWAITED = HANDED_ON | {signal.SIGCHLD}

#: Statuses that shells give to commands that cannot be run, or are not there; and what they add to
#: the number of the signal that ended one.
CANNOT_RUN, NOT_THERE, SIGNALLED = 126, 127, 128

#: prctl(2): have a signal sent when the parent ends.
_PR_SET_PDEATHSIG = 1


class Child:
    """A command that was started.

    It gets SIGTERM if this process is killed, so that it does not live on without what was
    registered for it; but not if its executable gives it another user.

    :param command: the program, and its arguments.
    :raises Ending: it cannot be run.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # Ignored children would leave no status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        try:
            # There is one thread yet, and what we have open besides is closed by the exec.
            self._process = subprocess.Popen(
                command,
                close_fds=False,
                preexec_fn=_end_with_us(before),  # noqa: PLW1509
            )
        except OSError as error:
            status = NOT_THERE if isinstance(error, FileNotFoundError) else CANNOT_RUN
            raise Ending(
                status,
                f"{command[0]} cannot be run ({error.strerror}); give a program behind --",
            ) from error

    def wait(self) -> int:
        """Hand signals on until the command ends; its exit status, as a shell gives it."""
        while (status := self._process.poll()) is None:
            said = signal.sigwaitinfo(_AWAITED)
            # The code is the kernel's.
            has_it = said.si_signo in _SENT_TO_BOTH and said.si_code > 0
            if said.si_signo in HANDED_ON and not has_it:
                self._process.send_signal(said.si_signo)
        return status if status >= 0 else SIGNALLED - status


def _end_with_us(mask: set[int]) -> Callable[[], None]:
    """What the child does before it becomes the command."""
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if os.getppid() != parent:
            # It was killed before.
            os.kill(os.getpid(), signal.SIGTERM)

    return prepare
