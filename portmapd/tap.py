"""The options of ``twistd portmapd``."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from portmapd.channel.socket_path import SYSTEM_SOCKET, private_directory
from portmapd.config import (
    PORT,
    UNPRIVILEGED_PORT,
    Config,
    default_state,
    may_bind,
)
from portmapd.errors import ConfigurationError, InvalidState
from portmapd.options import CONFIG, OPTIONS, Option, Settings, settings
from portmapd.server.handed_in_sockets import (
    HandedInDescriptor,
    HandedInSockets,
    initial_environment,
    sort_sockets,
    take_descriptors,
)
from portmapd.server.handover.keeping import Keeping
from portmapd.server.handover.predecessor import CommandLine
from portmapd.server.handover.store import DescriptorStore, is_kept, take_kept
from portmapd.server.handover.successor import Successor
from portmapd.server.handover.taken_over import TakenOver
from portmapd.server.log_events import KEPT_NOT_USED, NO_CHANNEL
from portmapd.server.log_output import LogOutput
from portmapd.server.pid_file import prepare_pid_file
from portmapd.server.privileges import SYS_PTRACE, drop_privileges, keep_through_change
from portmapd.server.signals import handle_signals
from portmapd.server.socket_file import make_directory
from portmapd.server.state_file import give_directory
from portmapd.server.supervision import Supervision
from portmapd.service import PortmapperService
from portmapd.succession import Launch, Succession

#: twistd's pid file if none is given, in the current directory.
PID_FILE = "twistd.pid"

#: A garbage collection stops everything for a time in proportion to the number of objects, and
#: finds next to nothing, since connections and registrations are in no cycles. With the
#: interpreter's defaults, collections would grow more and longer with every registration. One of
#: the youngest looks at 2,000 objects, one of the middle at five times as many, which takes some
#: milliseconds; one of all is as good as never.
GC_THRESHOLDS = (2_000, 5, 10_000)


#: The fields whose defaults depend on the rights with which the process was started.
DEFAULTS = ("port", "rpc_socket", "local_socket", "state")


class CannotStart(Exception, SystemExit):
    """Ends the start with one line and status 1, in the foreground and in the background.

    As an Exception, it is passed on to the process that waits for a start in the background. As a
    SystemExit, it is printed without a traceback.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        # Exception.__init__ comes first and does not set it.
        self.code = line


class CannotStartInBackground(CannotStart):
    """The same, once the line has been printed: twistd would print the first 100 bytes of it."""

    def __str__(self) -> str:
        return "see above"


class TwistdPortmapper(PortmapperService):
    """The port mapper as twistd runs it.

    :param output: twistd's log; None: the log and the signals are left as they are.
    :param terminal: a descriptor for the line that says why it does not start in the background;
        None: it is in the foreground.
    :param handed_in: sockets that are bound already.
    :param uid: the user who serves once the sockets are bound; None: the one who binds them.
    :param kept: capabilities that a user other than root keeps then.
    :param launch: how another process can take its place; None: none can.
    :param taken_over: what the process has passed on whose place this one takes; its listening
        sockets are among *handed_in*. None: it takes nobody's place.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: IReactorTime,
        output: LogOutput | None = None,
        terminal: int | None = None,
        handed_in: HandedInSockets | None = None,
        uid: int | None = None,
        kept: Collection[int] = (),
        launch: Launch | None = None,
        taken_over: TakenOver | None = None,
    ) -> None:
        self._taken_over = taken_over
        super().__init__(config, reactor, handed_in=handed_in, uid=uid)
        self._uid = uid
        self._kept = kept
        self._has_reserved_port = False
        self._output = output
        self._observer = None if output is None else output.observer()
        self._terminal = terminal
        self._supervision = Supervision(reactor, self._engine.descriptors, self.status)
        if taken_over is None:
            self._supervision.setServiceParent(self)
        self._succession: Succession | None = None
        if launch is not None:
            self._succession = Succession(self, reactor, launch)
            self._succession.setServiceParent(self)
            self._restart = self._succession.begin
        self._store = DescriptorStore()
        if launch is not None and self._store.is_there and self.is_passable:
            Keeping(self._store, reactor, self, self.registry).setServiceParent(self)

    def setServiceParent(self, parent: object) -> None:
        """Have the application that twistd makes log there."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        if self._output is not None and isinstance(self._reactor, ReactorBase):
            handle_signals(self._reactor, self._output.reopen, self._restart or _nothing)
        with self._or_fail():
            self._bind()

    def _or_fail(self) -> AbstractContextManager[None]:
        """In the block, a process that takes another one's place fails as it has to."""
        return nullcontext() if self._succession is None else self._succession.or_fail()

    def _bind(self) -> None:
        """Bind every socket, or end the start."""
        try:
            super().privilegedStartService()
            self._has_reserved_port = may_bind(PORT)
            if self._uid is not None:
                _give_directory(self._uid)
                keep_through_change(self._kept)
        except ConfigurationError as error:
            raise self._cannot_start(f"portmapd: {error}") from None

    def _cannot_start(self, line: str) -> CannotStart:
        if self._terminal is None:
            return CannotStart(line)
        os.write(self._terminal, f"{line}\n".encode(errors="backslashreplace"))
        return CannotStartInBackground(line)

    def _drop_privileges(self) -> None:
        """Give up what was needed to bind the sockets.

        :raises CannotStart: it is still held.
        """
        try:
            held = drop_privileges(self._kept)
        except OSError as error:
            raise self._cannot_start(f"portmapd: privileges cannot be dropped: {error}") from None
        if held != set(self._kept):
            self._log.warn(
                "executables of other users cannot be read: start as root, or with CAP_SYS_PTRACE"
            )

    def startService(self) -> None:
        with self._or_fail():
            if self._output is not None and os.geteuid() != 0:
                self._drop_privileges()
            super().startService()
            if self._succession is not None and self._taken_over is not None:
                self._store.clear()
                self._succession.take_up(lambda: self._supervision.setServiceParent(self))
        if self._terminal is not None:
            # Whoever reads the command's output waits until everyone has closed it.
            os.close(self._terminal)
            self._terminal = None
        if self.port == UNPRIVILEGED_PORT and not self._has_reserved_port:
            self._log.info(
                "serving port {ours}, because port {usual} needs root or CAP_NET_BIND_SERVICE",
                ours=UNPRIVILEGED_PORT,
                usual=PORT,
            )

    def stopService(self) -> Deferred[Any]:
        """Stop; a service manager that keeps descriptors gets everything for the next process.

        If the service is not started again, the manager closes them.
        """
        if self._succession is None or not (self._store.is_there and self.is_passable):
            return super().stopService()
        self._answer_rest()
        return self._stop_children().addCallback(self._leave, self._succession)

    def _leave(self, _: object, succession: Succession) -> Deferred[Any]:
        succession.leave_to(self._store)
        return gatherResults([self._leave_cluster(), self._close()])


class Options(UsageOptions):
    """Options of ``twistd portmapd``: those of :data:`portmapd.options.OPTIONS`, and --config."""

    longdesc = "Serve RPC program 100000: portmap version 2, rpcbind versions 3 and 4."

    optParameters: ClassVar[list[Any]] = [
        [option.name, option.letter or None, None, option.description]
        for option in OPTIONS
        if not option.is_flag and not option.repeated
    ] + [["config", None, None, CONFIG]]
    optFlags: ClassVar[list[Any]] = [
        [option.name, None, option.description] for option in OPTIONS if option.is_flag
    ]
    compData: Any = None

    def __init__(self) -> None:
        super().__init__()
        #: The options that may be repeated, by their names.
        self.lists: dict[str, list[str]] = {}
        #: twistd's log, and how the process was started; None unless twistd is what reads the
        #: options.
        self.output: LogOutput | None = None
        self.command: CommandLine | None = None
        #: This process, if it takes the place of another one.
        self.successor: Successor | None = None
        self._descriptors: list[HandedInDescriptor] | None = None
        self._settings: Settings | None = None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise UsageError(f"portmapd takes options only, not {arguments[0]!r}")

    def postOptions(self) -> None:
        """Prepare what twistd does before it makes the service: its log and its pid file."""
        if self.parent is None or "pidfile" not in self.parent:
            return
        with _one_line():
            self.successor = Successor.find(os.environ)
            self.command = CommandLine.of_this_process()
            self.output = LogOutput(self.parent, self.settings().log_level)
            if self.successor is not None:
                # It is in the background already, and the pid file names the other one.
                self.parent.update(nodaemon=True, pidfile="")
                return
            _prepare(self.parent)
            if "state" not in self.settings().values and os.geteuid() == 0:
                _give_state_directory(self.parent["uid"])

    @property
    def uid(self) -> int | None:
        """The user who serves once the sockets are bound; None: the one who starts."""
        uid: int | None = None if self.parent is None else self.parent.get("uid")
        return None if uid == os.geteuid() else uid

    def settings(self) -> Settings:
        """What these options, the environment and the file of options say.

        :raises UsageError: an option cannot be used. The message says what to do.
        """
        if self._settings is None:
            flags = {o.name: True for o in OPTIONS if o.is_flag and self[o.name]}
            texts = {
                o.name: self[o.name]
                for o in OPTIONS
                if not o.is_flag and not o.repeated and self[o.name] is not None
            }
            try:
                self._settings = settings({**flags, **texts, **self.lists}, file=self["config"])
            except ConfigurationError as error:
                raise UsageError(f"portmapd: {error}") from None
        return self._settings

    def handed_in(self) -> HandedInSockets:
        """The sockets that a service manager has handed in.

        :raises ConfigurationError: one of them cannot be served.
        """
        fields = self.settings().fields
        paths = {name: fields[name] for name in ("rpc_socket", "local_socket") if name in fields}
        return sort_sockets([each for each in self._taken() if not is_kept(each)], **paths)

    def kept(self) -> TakenOver | None:
        """What a service manager has kept of the process before; None: nothing.

        :raises ConfigurationError: what it has handed in cannot be understood.
        """
        try:
            return take_kept(self._taken())
        except InvalidState as error:
            KEPT_NOT_USED.emit(TwistdPortmapper._log, why=error)
            return None

    def _taken(self) -> list[HandedInDescriptor]:
        """The descriptors that a service manager has handed in, which are taken once."""
        if self._descriptors is None:
            self._descriptors = take_descriptors(os.environ, initial_environment())
        return self._descriptors

    def config(
        self,
        handed_in: HandedInSockets | None = None,
        passed_on: Mapping[str, Any] | None = None,
    ) -> Config:
        """The configuration that the options describe.

        :param handed_in: what is served unless an option says otherwise.
        :param passed_on: further fields that count unless an option says otherwise.
        :raises UsageError: an option cannot be used. The message says what to do.
        """
        settings = self.settings()
        defaults = {"state": default_state(os.environ), **(passed_on or {})}
        if handed_in is not None:
            defaults |= handed_in.options
            if "interface" in settings.values:
                defaults.pop("loopback", None)
        try:
            config = settings.config(defaults)
            if handed_in is not None:
                handed_in.check(config)
            return config
        except ConfigurationError as error:
            raise UsageError(f"portmapd: {error}") from None


def _collecting(option: Option) -> Callable[[Options, str], None]:
    """The method that twistd calls for each value of an option that may be repeated."""

    def collect(options: Options, text: str) -> None:
        options.lists.setdefault(option.name, []).append(text)

    collect.__doc__ = option.description
    return collect


for _option in OPTIONS:
    if _option.repeated:
        setattr(Options, f"opt_{_option.name}", _collecting(_option))


def makeService(options: Options) -> IService:
    """Make the service that the options describe.

    :raises CannotStart: an option cannot be used.
    """
    _raise_descriptor_limit()
    gc.set_threshold(*GC_THRESHOLDS)
    successor = options.successor
    if successor is None:
        with _one_line():
            kept = options.kept()
        return _make_service(options, kept)
    with successor.or_fail():
        return _make_service(options, successor.receive())


def _make_service(options: Options, taken_over: TakenOver | None) -> IService:
    """Make the service.

    :param taken_over: what the process has passed on whose place this one takes.
    """
    from twisted.internet import reactor

    with _one_line():
        settings = options.settings()
        if options.successor is None or taken_over is None:
            handed_in = options.handed_in()
            config = options.config(handed_in)
        else:
            handed_in = taken_over.handed_in()
            config = options.config(handed_in, taken_over.data["defaults"])
        if taken_over is not None and taken_over.is_whole:
            taken_over.add_made(handed_in, config)
        if config.local_socket is None and "local-socket" not in settings.values:
            NO_CHANNEL.emit(TwistdPortmapper._log, folder=private_directory())
        service: IService = TwistdPortmapper(
            config,
            reactor,
            options.output,
            _terminal(options),
            handed_in,
            options.uid,
            (SYS_PTRACE,) if settings.values.get("read-executables") else (),
            _launch(options, config),
            taken_over,
        )
    return service


def _launch(options: Options, config: Config) -> Launch | None:
    """How the process was started; None if twistd has not started it."""
    if options.command is None or options.parent is None:
        return None
    given = options.settings().fields
    defaults = {name: getattr(config, name) for name in DEFAULTS if name not in given}
    return Launch(options.command, options.parent, defaults, options.successor)


def _nothing() -> None:
    """What a signal does that asks for what cannot be."""


def _terminal(options: Options) -> int | None:
    """A copy of the standard error, which twistd gives up in the background."""
    if options.output is None or options.parent is None:
        return None
    if options.parent["nodaemon"] or options.parent["debug"]:
        return None
    return os.dup(2)


@contextmanager
def _one_line() -> Iterator[None]:
    """End the start with one line if an option cannot be used."""
    try:
        yield
    except UsageError as error:
        raise CannotStart(str(error)) from None
    except ConfigurationError as error:
        raise CannotStart(f"portmapd: {error}") from None


def _prepare(twistd: MutableMapping[str, Any]) -> None:
    """Prepare the pid file, and what the user needs who serves in the end.

    :param twistd: the options of twistd itself.
    """
    uid = twistd["uid"]
    if uid not in (None, os.geteuid()):
        if twistd["euid"]:
            raise ConfigurationError("--euid keeps root's rights: leave it out")
        if os.geteuid() != 0:
            raise ConfigurationError("--uid may be given by root alone: start it as that user")
        with _explained(uid):
            make_directory(SYSTEM_SOCKET)
        if twistd["pidfile"] == PID_FILE:
            twistd["pidfile"] = os.path.join(os.path.dirname(SYSTEM_SOCKET), PID_FILE)
    if twistd["pidfile"] and not twistd["chroot"]:
        prepare_pid_file(os.path.abspath(twistd["pidfile"]))


def _give_directory(uid: int) -> None:
    """Have *uid* own the directory of the local channel: it removes its files in the end.

    Not before the sockets are bound, nor the pid file written: that user could replace them.
    """
    with _explained(uid):
        os.chown(os.path.dirname(SYSTEM_SOCKET), uid, -1)


@contextmanager
def _explained(uid: int) -> Iterator[None]:
    """In the block, say for which user the directory of the local channel cannot be made."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"the directory of {SYSTEM_SOCKET} cannot be made for uid {uid}: {error.strerror}"
        ) from error


def _give_state_directory(uid: int | None) -> None:
    """Have the user who serves in the end own the directory of the default state file.

    :param uid: that user; None: root.
    """
    path = default_state(os.environ)
    # What cannot be done is logged when the file is to be read.
    with suppress(OSError):
        if path is not None:
            give_directory(path, 0 if uid is None else uid)


def _raise_descriptor_limit() -> None:
    """Raise the limit on descriptors as far as allowed: every connection takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
