"""The process that takes the place of another one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet

from portmapd.errors import ConfigurationError, HandoverFailed, InvalidState
from portmapd.server.handover.image import READ, decode_image
from portmapd.server.handover.passed import Received
from portmapd.server.handover.readable import Readable
from portmapd.server.handover.taken_over import TakenOver
from portmapd.server.handover.talk import NO, Talk

#: The variable that tells a process whose place it takes: the descriptors of the talk, and of the
#: standard error that it gets when it serves.
VARIABLE = "PORTMAPD_PREDECESSOR"
#: Seconds within which everything has to be passed on. 100,000 mappings take some four of them; a
#: service manager's watchdog may bark after thirty.
PATIENCE = 20.0

_STDERR = 2
#: The most of what was written to the standard error before, in bytes.
_MAX_SAID = 65_536


class Successor:
    """This process, in place of another one.

    :param talk: with the other process.
    :param stderr: the descriptor that becomes the standard error.
    """

    def __init__(self, talk: Talk, stderr: int) -> None:
        self._talk = talk
        self._stderr = stderr

    @classmethod
    def find(cls, environ: MutableMapping[str, str]) -> Successor | None:
        """The role that another process has given to this one.

        :param environ: the variable is removed from it.
        :return: None: this process takes nobody's place.
        :raises ConfigurationError: the variable cannot be understood.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            talk, stderr = map(int, text.split())
            for each in (talk, stderr):
                os.set_inheritable(each, False)
            return cls(Talk(socket.socket(fileno=talk)), stderr)
        except (ValueError, OSError) as error:
            raise ConfigurationError(
                f"{VARIABLE}={text} is for a process that portmapd starts itself: {error}"
            ) from error

    def receive(self) -> TakenOver:
        """Say that this process is ready, and wait for what the other one passes on."""
        self._talk.limit(PATIENCE)
        self._talk.send("ready", " ".join(map(str, READ)).encode())
        data, descriptors = self._talk.expect("image")
        return TakenOver(decode_image(data), Received(descriptors))

    def prepared(self) -> None:
        """Say that everything is made anew, and wait until this process is to serve."""
        self._talk.limit(PATIENCE)
        self._talk.send("prepared")
        try:
            self._talk.expect("go")
        except HandoverFailed:
            if not self._talk.has_ended:
                raise
        self._speak()

    def serving(self, reactor: IReactorFDSet) -> Deferred[None]:
        """Say that this process serves.

        :return: fires when the other process has ended.
        """
        with suppress(HandoverFailed):
            self._talk.limit(PATIENCE)
            self._talk.send("serving")
        ended = Readable(self._talk.fileno(), reactor).wait()
        return ended.addCallback(lambda _: self._talk.close())

    def _speak(self) -> None:
        """From now on, what is said on the standard error is heard where the other one's was."""
        said = os.pread(_STDERR, _MAX_SAID, 0)
        os.dup2(self._stderr, _STDERR)
        os.close(self._stderr)
        with suppress(OSError):
            os.write(_STDERR, said)

    @contextmanager
    def or_fail(self) -> Iterator[None]:
        """In the block, end the process if anything fails, and leave all sockets as they are."""
        try:
            yield
        except (HandoverFailed, InvalidState, ConfigurationError, SystemExit) as error:
            self._fail(str(error))
        except BaseException as error:
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, why: str) -> NoReturn:
        """Say why this process does not serve, and end it at once.

        An end in order would shut down connections that the other process has, too.
        """
        with suppress(HandoverFailed):
            self._talk.send(NO, why.encode("utf-8", "replace"))
        os._exit(1)
