"""A role as a process of its own."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from types import FrameType
from typing import NoReturn

from attrs import define, frozen

from bench import MeasureError
from bench.soak.role import Role, Target, Unserved
from portmapd.errors import PortmapdError

#: Seconds until a role is taken up again that failed.
AGAIN = 0.01

#: Seconds in which a process has done its first round, and in which it tells what it saw.
PATIENCE = 30.0

#: Back to the ordinary priority: only the server and the calls that are measured come first.
ORDINARY = 20


@frozen
class Seen:
    """What a role's process tells at its end.

    :param rounds: how many were done.
    :param failures: how many failed.
    :param slowest: the longest that was done, in milliseconds.
    :param why: what the last failure was.
    """

    rounds: int
    failures: int
    slowest: float
    why: str

    def __str__(self) -> str:
        failed = f", {self.failures:,} failed, at last by {self.why}" if self.failures else ""
        return f"{self.rounds:,} rounds, the slowest {self.slowest:.0f} ms{failed}"


@contextmanager
def playing(
    name: str, role: Role, target: Target, *, is_prepared: bool = False
) -> Iterator[list[Seen]]:
    """Have a process play a role in the block.

    :param is_prepared: whether its first round is done before.
    :return: gets what the process has seen at its end.
    :raises MeasureError: it failed.
    """
    # This process has all the modules, and no other thread.
    forking = multiprocessing.get_context("fork")
    here, there = forking.Pipe(duplex=False)
    prepared = forking.Event()
    process = forking.Process(target=_play, args=(role, target, there, prepared))
    process.start()
    there.close()
    try:
        if is_prepared and not prepared.wait(PATIENCE):
            raise MeasureError(f"{name}: nothing was done in {PATIENCE:.0f} s")
        seen: list[Seen] = []
        yield seen
        process.terminate()
        if not here.poll(PATIENCE):
            raise MeasureError(f"{name}: the process that plays it does not end")
        seen.append(here.recv())
    except EOFError as error:
        raise MeasureError(f"{name}: the process that plays it failed") from error
    finally:
        process.kill()
        process.join()


def _play(role: Role, target: Target, told: Connection, prepared: Event) -> None:
    """Play a role until SIGTERM, and tell what was seen."""
    play = _Play(role, target, prepared)

    def end(number: int, frame: FrameType | None) -> NoReturn:
        told.send(play.seen)
        # It may have come amid anything.
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    _become(role.uid)
    play.go_on()


def _become(uid: int) -> None:
    """Be an ordinary process of that user, with all descriptors that it may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.nice(ORDINARY)
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


@define
class _Play:
    """Rounds of a role, counted."""

    _role: Role
    _target: Target
    _prepared: Event
    _rounds: int = 0
    _failures: int = 0
    _slowest: float = 0.0
    _why: str = ""

    @property
    def seen(self) -> Seen:
        """What was seen so far."""
        return Seen(self._rounds, self._failures, 1_000 * self._slowest, self._why)

    def go_on(self) -> None:
        """Do rounds for ever."""
        while True:
            try:
                self._do_rounds()
            except (OSError, EOFError, PortmapdError, Unserved) as error:
                self._failures += 1
                self._why = f"{type(error).__name__}: {error}"
                time.sleep(AGAIN)

    def _do_rounds(self) -> None:
        rounds = self._role.rounds(self._target)
        # The first one also prepares what the others find.
        next(rounds)
        self._rounds += 1
        self._prepared.set()
        due = time.monotonic()
        while True:
            due = max(due + self._role.period, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            next(rounds)
            self._rounds += 1
            self._slowest = max(self._slowest, time.monotonic() - began)
