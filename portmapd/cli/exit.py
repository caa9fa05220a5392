"""How ``portmapctl`` exits: its status, and one line that says why and what to do."""

from __future__ import annotations

import os
import sys

from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    CallTimedOut,
    DaemonUnreachable,
    ExecutableUnknown,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NotAllowed,
    PortmapdError,
    ReservedName,
    RestartFailed,
)

DONE, REFUSED, USAGE, UNREACHABLE = range(4)


class Exit(Exception):
    """``portmapctl`` exits.

    :param status: the exit status.
    :param why: one line that says why, and what to do; empty: nothing is printed.
    """

    def __init__(self, status: int, why: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def exit_for(error: PortmapdError) -> Exit:
    """The exit status and the line for *error*."""
    status = UNREACHABLE if isinstance(error, DaemonUnreachable | CallTimedOut) else REFUSED
    return Exit(status, _joined(str(error), _advice(error)))


def output_failed(error: OSError) -> Exit:
    """The exit for an error of standard output. Its buffer is dropped.

    A reader that closed the pipe is not an error.
    """
    # Otherwise the interpreter would flush the buffer again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, ConnectionError):
        return Exit(DONE)
    why = error.strerror or error
    return Exit(REFUSED, f"the output cannot be written ({why}); redirect it somewhere else")


def _advice(error: PortmapdError) -> str:
    if isinstance(error.__cause__, PermissionError):
        return _FORBIDDEN
    return next((_ADVICE[kind] for kind in type(error).__mro__ if kind in _ADVICE), "")


def _joined(why: str, advice: str) -> str:
    between = " " if why.endswith("?") else "; "
    return f"{why}{between}{advice}" if advice else why


#: What to do if the daemon's socket may not be connected to.
_FORBIDDEN = (
    "you need permission to enter its directory and to write to it; or name another with --socket"
)
#: What to do, for errors that do not say so themselves.
_ADVICE: dict[type, str] = {
    AlreadyRegistered: "end that process, or choose another name or port",
    BadArguments: "see portmapctl --help",
    CallTimedOut: "its log may say what it is busy with; otherwise restart it",
    DaemonUnreachable: "start it with twistd portmapd, or name its socket with --socket",
    ExecutableUnknown: "leave out --public, or run it from a file that is not replaced",
    InvalidMapping: "give --rpc PROGRAM:VERSION, and a port or a path",
    InvalidService: "see portmapctl run --help",
    LimitExceeded: "start the daemon with a larger --max-services",
    NotAllowed: "run it as one of them",
    ReservedName: "choose another name",
    RestartFailed: "the daemon goes on as it was",
}
