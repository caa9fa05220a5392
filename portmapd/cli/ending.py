"""How ``portmapctl`` ends: its exit status, and the line that says why and what to do."""

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
    PortmapdError,
    ReservedName,
)

DONE, REFUSED, USAGE, UNREACHABLE = range(4)


class Ending(Exception):
    """The end of ``portmapctl``.

    :param status: its exit status.
    :param why: the line that says why, and what to do; empty: there is nothing to say.
    """

    def __init__(self, status: int, why: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def ending_of(error: PortmapdError) -> Ending:
    """The end that *error* makes."""
    status = UNREACHABLE if isinstance(error, DaemonUnreachable | CallTimedOut) else REFUSED
    return Ending(status, _joined(str(error), _advice(error)))


def unwritten(error: OSError) -> Ending:
    """The end where standard output cannot be written; what is buffered for it is dropped.

    A reader who has gone had enough.
    """
    # Else the exit would try to write it once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, ConnectionError):
        return Ending(DONE)
    why = error.strerror or error
    return Ending(REFUSED, f"the output cannot be written ({why}); have it go somewhere else")


def _advice(error: PortmapdError) -> str:
    if isinstance(error.__cause__, PermissionError):
        return _FORBIDDEN
    return next((_ADVICE[kind] for kind in type(error).__mro__ if kind in _ADVICE), "")


def _joined(why: str, advice: str) -> str:
    between = " " if why.endswith("?") else "; "
    return f"{why}{between}{advice}" if advice else why


#: What to do where the daemon's socket is out of reach.
_FORBIDDEN = (
    "get the permission to enter its directory and to write to it, or give another with --socket"
)
#: What to do, where the error does not say it itself.
_ADVICE: dict[type, str] = {
    AlreadyRegistered: "end that process, or take another name or port",
    BadArguments: "give it as portmapctl --help says",
    CallTimedOut: "see in the daemon's log what it is busy with, or start it again",
    DaemonUnreachable: "start it with twistd portmapd, or give its socket with --socket",
    ExecutableUnknown: "leave out --public, or run it from a file that stays",
    InvalidMapping: "give --rpc PROGRAM:VERSION, and a port or a path",
    InvalidService: "see portmapctl run --help",
    LimitExceeded: "have the daemon started with a larger --max-services",
    ReservedName: "take another name",
}
