"""How ``portmapctl`` exits: its status, and one line that says why and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from portmapd.errors import (
    AlreadyRegistered,
    AuthRefused,
    BadArguments,
    CallTimedOut,
    ClusterUnreachable,
    DaemonUnreachable,
    ExecutableUnknown,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NotAccepted,
    NotAllowed,
    NotListed,
    PeerFault,
    PortmapdError,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    ReservedName,
    RestartFailed,
    SystemFailure,
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


def exit_for(error: PortmapdError, advice: Mapping[type, str] | None = None) -> Exit:
    """The exit status and the line for *error*.

    :param advice: what to do, by the class of the error; None: that for the local channel.
    """
    status = UNREACHABLE if isinstance(error, _UNREACHABLE) else REFUSED
    return Exit(status, _joined(str(error)[:_SHOWN], _advice(error, advice or _ADVICE)))


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


def _advice(error: PortmapdError, advice: Mapping[type, str]) -> str:
    if isinstance(error.__cause__, PermissionError):
        return advice[PermissionError]
    return next((advice[kind] for kind in type(error).__mro__ if kind in advice), "")


def _joined(why: str, advice: str) -> str:
    between = " " if why.endswith("?") else "; "
    return f"{why}{between}{advice}" if advice else why


#: Errors that mean that no server answered; what breaks the protocol counts as none.
_UNREACHABLE = (ClusterUnreachable, DaemonUnreachable, CallTimedOut, NotAccepted, PeerFault)
#: How much of an error is shown: a peer may send much.
_SHOWN = 1_000
#: What to do, for errors that do not say so themselves.
_ADVICE: dict[type, str] = {
    AlreadyRegistered: "end that process, or choose another name or port",
    BadArguments: "see portmapctl --help",
    CallTimedOut: "its log may say what it is busy with; otherwise restart it",
    DaemonUnreachable: "start it with portmapd, or name its socket with --socket",
    ExecutableUnknown: "leave out --public, or run it from a file that is not replaced",
    InvalidMapping: "give --rpc PROGRAM:VERSION, and a port or a path",
    InvalidService: "see portmapctl run --help",
    LimitExceeded: "start the daemon with a larger --max-services",
    PermissionError: "you need permission to enter its directory and to write to it; or name "
    "another with --socket",
    NotAccepted: "start the service again, or see portmapctl services",
    NotListed: "portmapctl services lists all",
    PeerFault: "check the path of its socket",
    NotAllowed: "run it as one of them",
    ReservedName: "choose another name",
    RestartFailed: "the daemon goes on as it was",
}

#: What to do, for errors of the port mappers that ``portmapctl rpc`` asks.
RPC_ADVICE: dict[type, str] = {
    AuthRefused: "it does not let you ask that",
    CallTimedOut: "it may be down, or a firewall drops the call; give it longer with --timeout",
    DaemonUnreachable: "check the host, and that a port mapper runs there",
    InvalidMapping: "the port mapper sent a malformed address",
    PermissionError: "name its address instead of its socket, such as 127.0.0.1",
    PeerFault: "what answers there is no port mapper",
    ProcedureUnavailable: "it is an older port mapper",
    ProgramMismatch: "ask for one of these",
    ProgramUnavailable: "what answers there is no port mapper, or an older one",
    SystemFailure: "its log may say why; a long list needs --tcp",
}
