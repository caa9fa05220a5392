"""The daemon under a service manager: it says when it serves, what it does, and that it lives."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.server.service_notification import (
    ALIVE,
    READY,
    STOPPING,
    main_pid,
    notify,
    status,
    watchdog_period,
)

#: Seconds between two looks whether the status line is still true.
STATUS_PERIOD = 5.0
#: How many times a watchdog's period this process says that it lives.
_TIMES = 3


class Supervision(Service):
    """Tells a service manager of the daemon while it runs.

    :param reactor: gives turns.
    :param descriptors: where sockets are served; None: nowhere but in timed calls.
    :param state: says in a sentence what the daemon does.
    :param send: sends lines to the manager.
    :param environ: says whether there is a watchdog.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        descriptors: IReactorFDSet | None,
        state: Callable[[], str],
        send: Callable[..., bool] = notify,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._reactor = reactor
        self._descriptors = descriptors
        self._state = state
        self._send = send
        self._environ = environ
        self._said = ""
        self._call: IDelayedCall | None = None
        self._heartbeat: Heartbeat | None = None

    def startService(self) -> None:
        """Say that the daemon serves, in the first turn in which it does."""
        super().startService()
        self._call = self._reactor.callLater(0, self._ready)

    def stopService(self) -> None:
        """Say that the daemon is about to end."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        self._send(STOPPING)

    def _ready(self) -> None:
        # The process id is that of the daemon: it may have gone into the background since it began.
        told = self._send(READY, main_pid(os.getpid()), self._status())
        self._call = self._reactor.callLater(STATUS_PERIOD, self._update) if told else None
        period = watchdog_period(self._environ)
        if period is not None:
            self._heartbeat = Heartbeat(
                self._reactor, self._descriptors, period / _TIMES, lambda: self._send(ALIVE)
            )
            self._heartbeat.start()

    def _update(self) -> None:
        said, line = self._said, self._status()
        if line != said:
            self._send(line)
        self._call = self._reactor.callLater(STATUS_PERIOD, self._update)

    def _status(self) -> str:
        self._said = status(self._state())
        return self._said


@implementer(IReadDescriptor)
@define(eq=False)
class Heartbeat:
    """Calls *beat* as long as the event loop serves descriptors.

    A timed call alone would not show that: each period, a descriptor becomes readable that is
    watched where the sockets of clients are, and *beat* is called when it is served.

    :param reactor: measures time.
    :param descriptors: where the descriptor is watched; None: timed calls have to do.
    :param period: seconds between two calls.
    """

    _reactor: IReactorTime
    _descriptors: IReactorFDSet | None
    _period: float
    _beat: Callable[[], object]
    _event: int = field(default=-1, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin; the first beat comes at once."""
        if self._descriptors is not None:
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._descriptors.addReader(cast("Any", self))
        self._ask()

    def stop(self) -> None:
        """End; there are no further beats."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._event >= 0:
            assert self._descriptors is not None
            self._descriptors.removeReader(cast("Any", self))
            os.close(self._event)
            self._event = -1

    def _ask(self) -> None:
        if self._event >= 0:
            os.eventfd_write(self._event, 1)
        else:
            self._beat()
        self._call = self._reactor.callLater(self._period, self._ask)

    # IReadDescriptor, for the reactor

    def fileno(self) -> int:
        return self._event

    def doRead(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
            self._beat()

    def logPrefix(self) -> str:
        return "portmapd"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
