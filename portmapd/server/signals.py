"""What signals do to a daemon.

SIGTERM and SIGINT end it, SIGHUP reopens its log, SIGUSR2 restarts it.

After SIGTERM the exit status is 0: everything was closed in order, and nobody has to look for what
failed. SIGINT ends the process as it ends others, so that a shell ends the loop that it is in.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.base import ReactorBase
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

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
_log = Logger("portmapd")
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

    def end(number: int, frame: object | None = None) -> None:
        reactor.callFromThread(_stop, reactor)

    # The reactor sets its handlers again when it begins to run. With its own, which notes the
    # signal, twistd ends by the signal.
    reactor.sigTerm = end  # type: ignore[method-assign]
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, reactor.sigInt)
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reopen))
    signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(restart))
    for number in signal.valid_signals() - _LEFT_ALONE:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)


def _stop(reactor: ReactorBase) -> None:
    _log.info("Received SIGTERM, shutting down.")
    # Another signal may have come before.
    with suppress(ReactorNotRunning):
        reactor.stop()
