"""The process whose place another one takes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from attrs import define, frozen
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.logger import Logger

from portmapd.errors import HandoverFailed
from portmapd.server.handover.image import VERSION, encode_image
from portmapd.server.handover.passed import Descriptors
from portmapd.server.handover.readable import Readable
from portmapd.server.handover.successor import PATIENCE, VARIABLE
from portmapd.server.handover.talk import Talk
from portmapd.server.privileges import inherited_privileges

#: Seconds within which a new process has to be ready.
START = 10.0

#: Where a service manager says whose watchdog it is; the new process has another number.
_WATCHDOG = "WATCHDOG_PID"
#: The most of what a new process said that is read, in bytes.
_MAX_SAID = 65_536
#: Signals that end the daemon; the one that serves in the end gets them.
_ENDING = (signal.SIGTERM, signal.SIGINT)


class IHandoverReactor(IReactorFDSet, IReactorTime):
    """What a hand-over asks of the reactor."""


class Host(Protocol):
    """What is handed over."""

    def settle(self) -> Deferred[None]:
        """Begin nothing that takes longer than a turn; fires when nothing of that is under way."""
        raise NotImplementedError

    def pass_on(self, descriptors: Descriptors) -> Mapping[str, Any]:
        """All that another process needs to go on, as a value of JSON."""
        raise NotImplementedError

    def go_on(self, why: str) -> None:
        """No other process takes the place of this one."""
        raise NotImplementedError

    def leave(self, process: subprocess.Popen[bytes]) -> None:
        """That process serves: end this one, and nothing that both have."""
        raise NotImplementedError


@frozen
class CommandLine:
    """How a process was started.

    :param words: the program and its arguments.
    :param folder: the directory in which it was started; None: it has no name.
    """

    words: tuple[str, ...]
    folder: str | None

    @classmethod
    def of_this_process(cls) -> CommandLine:
        """The command line of this process, which has not changed its directory yet."""
        return cls((sys.executable, *sys.orig_argv[1:]), _folder())

    def start(self, environ: Mapping[str, str]) -> Child:
        """Start another process like it.

        :raises HandoverFailed: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        said = os.memfd_create("stderr")
        try:
            with theirs:
                return self._start(Talk(ours), theirs.fileno(), said, environ)
        except OSError as error:
            ours.close()
            os.close(said)
            raise HandoverFailed(f"{self.words[0]} cannot be started: {error}") from error

    def _start(self, talk: Talk, theirs: int, said: int, environ: Mapping[str, str]) -> Child:
        stderr = os.dup(2)
        try:
            with inherited_privileges():
                process = subprocess.Popen(
                    self.words,
                    # To stay there takes no right to go there.
                    cwd=None if self.folder == _folder() else self.folder,
                    env={
                        **{name: text for name, text in environ.items() if name != _WATCHDOG},
                        VARIABLE: f"{theirs} {stderr}",
                    },
                    pass_fds=(theirs, stderr),
                    stderr=said,
                )
        finally:
            os.close(stderr)
        return Child(process, talk, said)


@define
class Child:
    """A process that was started.

    :param process: the process.
    :param talk: with it.
    :param said: the file that is its standard error until it serves.
    """

    process: subprocess.Popen[bytes]
    talk: Talk
    said: int

    def end(self) -> str:
        """Kill it, before it can see the end of the talk.

        :return: the last line that it said; empty if it said none.
        """
        self.process.kill()
        self.process.wait()
        self.talk.close()
        said = os.pread(self.said, _MAX_SAID, 0).decode("utf-8", "replace").strip()
        os.close(self.said)
        return said.rpartition("\n")[2]


class Predecessor:
    """This process, whose place another one may take.

    :param reactor: watches the talk, and measures time.
    :param command: starts another process.
    :param host: what is handed over.
    :param environ: the environment of the other process.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IHandoverReactor,
        command: CommandLine,
        host: Host,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._reactor = reactor
        self._command = command
        self._host = host
        self._environ = environ
        self._under_way: Deferred[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a hand-over has begun, and not ended yet."""
        return self._under_way is not None

    def begin(self) -> None:
        """Begin a hand-over; none must be under way."""
        self._under_way = under_way = Deferred.fromCoroutine(self._hand_over())
        under_way.addBoth(self._ended)

    def abandon(self) -> None:
        """End a hand-over that is under way: this process is about to end."""
        if self._under_way is not None:
            self._under_way.cancel()

    def _ended(self, result: object) -> None:
        self._under_way = None

    async def _hand_over(self) -> None:
        try:
            child = self._command.start(self._environ)
        except HandoverFailed as error:
            self._host.go_on(str(error))
            return
        try:
            await self._wait_until_ready(child.talk)
            await self._host.settle()
            with _kept(_ENDING) as came:
                self._exchange(child.talk)
                for number in came:
                    child.process.send_signal(number)
                self._host.leave(child.process)
        except CancelledError:
            child.end()
            self._host.go_on("this process is about to end")
        except HandoverFailed as error:
            said = child.end()
            self._host.go_on(f"{error}: {said}" if said else str(error))
        except Exception:
            child.end()
            self._log.failure("the hand-over failed")
            self._host.go_on("an unexpected failure, which the log describes")

    async def _wait_until_ready(self, talk: Talk) -> None:
        waiting = Readable(talk.fileno(), self._reactor).wait()
        try:
            await waiting.addTimeout(START, self._reactor)
        except defer.TimeoutError:
            raise HandoverFailed(f"the new process is not ready after {START:.0f} s") from None
        talk.limit(PATIENCE)
        data, _ = talk.expect("ready")
        if str(VERSION).encode() not in data.split():
            raise HandoverFailed(
                f"the new process reads images of version {data.decode()}, and this one writes "
                f"version {VERSION}: stop this one, and start it again"
            )

    def _exchange(self, talk: Talk) -> None:
        """Pass everything on; nobody is served meanwhile."""
        talk.limit(PATIENCE)
        descriptors = Descriptors()
        image = encode_image(self._host.pass_on(descriptors))
        talk.send("image", image, descriptors.numbers)
        talk.expect("prepared")
        talk.send("go")
        talk.expect("serving")


def _folder() -> str | None:
    """The current directory; None if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


@contextmanager
def _kept(signals: Iterable[int]) -> Iterator[list[int]]:
    """In the block, keep signals: whoever serves after it gets them.

    :return: those that came.
    """
    came: list[int] = []
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
