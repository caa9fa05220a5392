"""A restart of the daemon: another process takes its place, and nobody notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn, cast

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.logger import Logger

from portmapd.channel.commands import RESTART, encode_refusal
from portmapd.errors import RestartFailed
from portmapd.server.handover.marks import Marks
from portmapd.server.handover.passed import Descriptors
from portmapd.server.handover.predecessor import CommandLine, IHandoverReactor, Predecessor
from portmapd.server.handover.store import DescriptorStore
from portmapd.server.handover.successor import Successor
from portmapd.server.log_events import (
    HANDED_OVER,
    NOT_HANDED_OVER,
    PID_FILE_NOT_WRITTEN,
    RESTARTING,
)
from portmapd.server.pid_file import write_pid_file
from portmapd.server.service_notification import READY, main_pid, notify, reloading
from portmapd.service import PortmapperService

#: The process whose end is that of its container, or of the whole machine.
_INIT = 1


@frozen
class Launch:
    """How this process was started, and another one like it can be.

    :param command: its command line.
    :param twistd: the options of twistd; the pid file among them names the process that serves.
    :param defaults: fields of the configuration that no option says, and that depend on the rights
        with which the first process was started.
    :param successor: this process, if it takes the place of another one.
    """

    command: CommandLine
    twistd: MutableMapping[str, Any]
    defaults: Mapping[str, Any]
    successor: Successor | None = None


class Succession(Service):
    """Who serves: this process in place of another one, or another one in its place.

    :param service: what is handed over.
    :param reactor: the daemon's.
    :param launch: how the daemon was started.
    """

    _log = Logger()

    def __init__(self, service: PortmapperService, reactor: IReactorTime, launch: Launch) -> None:
        self._service = service
        self._reactor = reactor
        self._launch = launch
        self._predecessor = Predecessor(cast("IHandoverReactor", reactor), launch.command, self)

    def or_fail(self) -> AbstractContextManager[None]:
        """In the block, end a process that takes another one's place if anything fails."""
        successor = self._launch.successor
        return nullcontext() if successor is None else successor.or_fail()

    def begin(self) -> None:
        """Have another process take the place of this one, unless one does so already."""
        if self._predecessor.is_under_way:
            return
        RESTARTING.emit(self._log)
        notify(*reloading())
        why = self._obstacle()
        if why:
            self.go_on(why)
        else:
            self._predecessor.begin()

    def stopService(self) -> None:
        """The daemon ends, and so does a hand-over that is under way."""
        super().stopService()
        self._predecessor.abandon()

    def _obstacle(self) -> str:
        """Why no other process can take the place of this one; empty if one can."""
        if os.getpid() == _INIT:
            return "pid 1 cannot be replaced: start it below another process"
        if self._launch.twistd["chroot"]:
            return "another process cannot be started in --chroot"
        return "" if self._service.is_passable else "the reactor has no sockets to pass on"

    # The host of a hand-over to another process

    def settle(self) -> Deferred[None]:
        return self._service.settle()

    def pass_on(self, descriptors: Descriptors) -> Mapping[str, Any]:
        pid_file = self._launch.twistd["pidfile"]
        return {
            **self._service.pass_on(descriptors),
            "defaults": dict(self._launch.defaults),
            "pid_file": pid_file and os.path.abspath(pid_file),
        }

    def go_on(self, why: str) -> None:
        NOT_HANDED_OVER.emit(self._log, why=why)
        self._service.resume()
        self._service.answer_restarts(partial(encode_refusal, refusal=RestartFailed(why)))
        if self.running:
            notify(READY)

    def leave(self, process: subprocess.Popen[bytes]) -> NoReturn:
        HANDED_OVER.emit(self._log, pid=process.pid)
        # What is kept of this process is not true any more, and the manager hears its main process.
        DescriptorStore().clear()
        notify(main_pid(process.pid))
        sys.stdout.flush()
        # An end in order would close connections that the other process has, too.
        os._exit(0)

    def leave_to(self, store: DescriptorStore) -> bool:
        """End, and leave all that this process has to the next one, in a service manager's store.

        :return: False: the store does not take it.
        """
        descriptors, marks = Descriptors(), Marks(0)
        image = self._service.pass_on(descriptors, has_manager=True)
        if not store.keep(image, descriptors, marks):
            return False
        sys.stdout.flush()
        # As above.
        os._exit(0)

    # In place of another process

    def take_up(self, then: Callable[[], object]) -> None:
        """Serve in place of another process, once the reactor runs.

        :param then: is called when that one has ended, and this one serves.
        """
        successor = self._launch.successor
        reactor = cast("ReactorBase", self._reactor)
        if successor is None:
            reactor.callWhenRunning(self._resume, then)
        else:
            successor.prepared()
            reactor.callWhenRunning(self._serve, successor, then)

    def _resume(self, then: Callable[[], object]) -> None:
        """Serve what a process has left that has ended."""
        self._service.go_on()
        then()

    def _serve(self, successor: Successor, then: Callable[[], object]) -> None:
        with successor.or_fail():
            self._service.go_on()
        self._write_pid_file()
        ended = successor.serving(cast("IReactorFDSet", self._reactor))
        self._service.answer_restarts(lambda tag: RESTART.reply(tag, {}))
        ended.addCallback(lambda _: then())

    def _write_pid_file(self) -> None:
        """Have the pid file name this process; twistd removes it in the end."""
        path = self._service.passed_on["pid_file"]
        if not path:
            return
        self._launch.twistd["pidfile"] = path
        try:
            write_pid_file(path, os.getpid())
        except OSError as error:
            PID_FILE_NOT_WRITTEN.emit(self._log, path=path, why=error.strerror or error)
