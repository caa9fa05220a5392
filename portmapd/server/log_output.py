"""Where twistd's log goes: a file that can be opened again, and the least urgent level."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogLevel,
    PredicateResult,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile
from twisted.python.reflect import namedAny
from twisted.python.syslog import SyslogObserver
from zope.interface import implementer

from portmapd.errors import ConfigurationError
from portmapd.server.directories import check_mode
from portmapd.server.log_events import LOG_NOT_REOPENED, LOG_REOPENED, OMITTED

#: The names of the levels, least urgent first.
LEVELS = tuple(level.name for level in LogLevel.iterconstants())
LEVEL = "info"

#: The most events in a second that are not portmapd's own.
MAX_OTHERS = 5

#: Twisted's own lines without a level, about each of its sockets. They are for its developers.
_LEGACY = "log_legacy"


class ReopenedLogFile(LogFile):
    """A log file that goes on with the old file if the new one cannot be opened."""

    _log = Logger()

    def _openFile(self) -> None:
        super()._openFile()
        # Another process may write to it, which takes the place of this one.
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)

    def reopen(self) -> None:
        """Open the file at the path again: a program for log rotation has moved the old one."""
        try:
            open(self.path, "a").close()
        except OSError as error:
            LOG_NOT_REOPENED.emit(self._log, path=self.path, error=str(error))
        else:
            super().reopen()


def _json_lines(output: TextIO) -> ILogObserver:
    """One JSON object a line."""
    observer: ILogObserver = jsonFileLogObserver(output, recordSeparator="")
    return observer


#: Factories of observers that ``--logger`` may name and twistd itself has no file for.
_FORMATS: dict[object, Callable[[TextIO], ILogObserver]] = {
    jsonFileLogObserver: _json_lines,
    textFileLogObserver: textFileLogObserver,
    None: textFileLogObserver,
}


@implementer(ILogFilterPredicate)
class _Urgent:
    """Passes events of a level or more.

    :param level: the level.
    """

    def __init__(self, level: Any) -> None:
        self._level = level

    def __call__(self, event: LogEvent) -> Any:
        level = event.get("log_level", LogLevel.info)
        if event.get("log_namespace") == _LEGACY and level is LogLevel.info:
            level = LogLevel.debug
        return PredicateResult.maybe if level >= self._level else PredicateResult.no


@implementer(ILogObserver)
class BoundedObserver:
    """Passes events on, of those that are not portmapd's own so many in a second.

    Twisted logs each connection that it cannot accept, and a failure may be one of very many. The
    events of portmapd are bounded where they are made.

    :param observer: gets the events, and how many of them were left out with the next one.
    :param clock: the time in seconds.
    """

    def __init__(
        self, observer: Callable[[LogEvent], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._omitted = 0

    def __call__(self, event: LogEvent) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
            self._tell_omitted(event)
        if "event" not in event:
            self._lines += 1
            if self._lines > MAX_OTHERS:
                self._omitted += 1
                return
        self._observer(event)

    def _tell_omitted(self, event: LogEvent) -> None:
        """Pass on how many were left out."""
        if self._omitted:
            fields: LogEvent = {"count": self._omitted, "kind": "other", "what": "other events"}
            self._omitted = 0
            name, text = OMITTED.name, OMITTED.text
            times: LogEvent = {
                key: event[key] for key in ("log_time", "log_system") if key in event
            }
            source: LogEvent = {"log_namespace": "portmapd", "log_level": OMITTED.urgency}
            self._observer({**times, **source, "log_format": text, "event": name, **fields})


class LogOutput:
    """The log as the options of twistd describe it.

    :param options: those of twistd itself. ``logger`` is taken out of them: twistd gets
        :meth:`observer` as a component of the application.
    :param level: the name of the least urgent level that is written.
    :raises ConfigurationError: ``logger`` names nothing that can be imported.
    """

    _log = Logger()

    def __init__(self, options: MutableMapping[str, Any], level: str) -> None:
        self._level = LogLevel.levelWithName(level)
        self._path: str = options["logfile"] or ""
        self._is_daemon = not options["nodaemon"]
        self._is_syslog = bool(options.get("syslog"))
        self._prefix = options.get("prefix")
        self._factory = _imported(options["logger"])
        self._file: ReopenedLogFile | None = None
        options["logger"] = None

    def observer(self) -> ILogObserver:
        """The observer, without the events below the level.

        :raises ConfigurationError: the log file cannot be opened.
        """
        bounded = BoundedObserver(self._unfiltered())
        return FilteringLogObserver(bounded, [_Urgent(self._level)])

    def reopen(self) -> None:
        """Open the log file again, if there is one."""
        if self._file is not None:
            self._file.reopen()
        LOG_REOPENED.emit(self._log)

    def _unfiltered(self) -> ILogObserver:
        if self._factory is None and self._is_syslog:
            return _modern(SyslogObserver(self._prefix).emit)
        in_file = _FORMATS.get(self._factory)
        return in_file(self._output()) if in_file else _modern(self._factory())

    def _output(self) -> Any:
        if self._path == "-" or (not self._path and not self._is_daemon):
            if self._is_daemon:
                raise ConfigurationError(
                    "there is no terminal in the background: give --logfile a path, or -n"
                )
            return sys.stdout
        path = os.path.abspath(self._path or "twistd.log")
        try:
            folder = os.path.dirname(path)
            check_mode(folder, os.stat(folder).st_mode)
            self._file = file = ReopenedLogFile.fromFullPath(path)
        except OSError as error:
            raise ConfigurationError(
                f"the log file {path} cannot be opened: {error.strerror or error}; choose another "
                "one with --logfile"
            ) from error
        signal.signal(signal.SIGUSR1, lambda *_: _later(file.rotate))
        return file


def _imported(name: str | None) -> Any:
    """The factory of observers that ``--logger`` names; None if it names none."""
    if name is None:
        return None
    try:
        return namedAny(name)
    except Exception as error:
        raise ConfigurationError(
            f"--logger {name!r} cannot be imported: {error}; give a factory of observers, such as "
            "twisted.logger.jsonFileLogObserver"
        ) from error


def _modern(observer: Any) -> ILogObserver:
    return observer if ILogObserver.providedBy(observer) else LegacyLogObserverWrapper(observer)


def _later(call: Callable[[], object]) -> None:
    from twisted.internet import reactor

    IReactorFromThreads(reactor).callFromThread(call)
