"""What signals do to a daemon.

SIGTERM and SIGINT end it, SIGHUP reopens its log, SIGUSR2 restarts it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from twisted.internet.base import ReactorBase

#: Signals that tell of a fault of the process itself, or ask for a dump of its memory.
_FAULTS = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
#: Signals that nothing can catch, and those that end no process by default.
_HARMLESS = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGURG,
    signal.SIGWINCH,
}
_LEFT_ALONE = _FAULTS | _HARMLESS | {signal.SIGHUP, signal.SIGTERM, signal.SIGINT}


def handle_signals(
    reactor: ReactorBase, reopen: Callable[[], object], restart: Callable[[], object]
) -> None:
    """Have SIGTERM and SIGINT stop the reactor, and others do nothing.

    :param reopen: what SIGHUP does.
    :param restart: what SIGUSR2 does.

    The reactor handles the first two while it runs. They must not end the process before either:
    its sockets would stay. What has a handler keeps it.
    """
    signal.signal(signal.SIGTERM, reactor.sigTerm)
    signal.signal(signal.SIGINT, reactor.sigInt)
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reopen))
    signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(restart))
    for number in signal.valid_signals() - _LEFT_ALONE:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)
