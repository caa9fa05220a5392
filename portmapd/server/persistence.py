"""Keeps the mappings that no connection holds in a file, so that they outlive the process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from portmapd.errors import ConfigurationError, InvalidState
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import NOBODY, Mapping
from portmapd.registry.registry import Registry
from portmapd.registry.snapshot import (
    Snapshot,
    decode_snapshot,
    encode_lines,
    encode_mapping,
    encode_snapshot,
)
from portmapd.server.boot import Boot
from portmapd.server.liveness import Liveness
from portmapd.server.log_events import (
    STATE_NOT_WRITTEN,
    STATE_OFF,
    STATE_RESTORED,
    STATE_SET_ASIDE,
    STATE_WRITTEN,
)
from portmapd.server.restoring import Restorer
from portmapd.server.state_file import SLOTS, StateFile

#: Seconds from a change until it is written: the write begins earlier by the time that the last one
#: took, but not at once, for changes come in groups. It need not reach the disk in that time, which
#: matters to the end of the machine, not to that of the process.
DELAY, MIN_DELAY = 0.6, 0.05
#: Seconds until a write that failed is tried again.
RETRY = 5.0
#: Mappings become text for so many seconds at a time, so many between two looks at the clock. Then
#: others have the processor for so many seconds.
SLICE, PAUSE, _BATCH = 0.001, 0.002, 50
#: More mappings than there may be by default would take too much of it: they have longer pauses, so
#: that they take a twentieth, and the file is further behind.
MANY, LONG_PAUSE = 100_000, 0.019

#: What changes the file.
_KINDS = (
    ChangeKind.MAPPED,
    ChangeKind.UNMAPPED,
    ChangeKind.SUSPENDED,
    ChangeKind.RELEASED,
    ChangeKind.CONFIRMED,
    ChangeKind.SEEN,
)

#: Calls a function in a thread of its own; the Deferred fires with what it returns.
InThread = Callable[[Callable[[], None]], "Deferred[None]"]


class Persistence(Service):
    """Takes mappings back from a file, and writes it after each change.

    Text is made in slices, and the disk is waited for in a thread, so no reply waits for either.

    :param file: where they are kept.
    :param registry: whose mappings are kept.
    :param liveness: what is known of their services; None: nothing.
    :param restorer: takes them back.
    :param boot: the boot of the kernel.
    :param clock: measures time.
    :param in_thread: how the file is written.
    :param is_read: whether mappings are taken back at the start; not if another process has passed
        them on.
    """

    _log = Logger()

    def __init__(
        self,
        file: StateFile,
        registry: Registry,
        liveness: Liveness | None,
        restorer: Restorer,
        boot: Boot,
        clock: IReactorTime,
        in_thread: InThread,
        *,
        is_read: bool = True,
    ) -> None:
        self._file = file
        self._registry = registry
        self._liveness = liveness
        self._restorer = restorer
        self._boot = boot
        self._clock = clock
        self._in_thread = in_thread
        self._is_read = is_read
        #: Whether no write may begin.
        self._is_paused = False
        self._ends: list[Callable[[], None]] = []
        #: Why the file could not be read at the start; None: it was.
        self._unread: InvalidState | None = None
        #: Whether the registry has changed since the file's contents were made.
        self._is_behind = False
        self._is_failing = False
        #: Since when it has; when the last write began, and how long it took, in seconds.
        self._since = self._began = self._duration = 0.0
        self._next: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None
        #: The slot with the newest contents, unless the file has them; the one that is on its way
        #: to the disk.
        self._newest: str | None = None
        self._kept: str | None = None
        self._keeping: Deferred[None] | None = None
        #: Whether text is being made, which may be broken off.
        self._is_encoding = False

    def startService(self) -> None:
        """Take the mappings back, and follow the registry.

        It is called before anything is served. Nothing that the file or its directory is like
        keeps it from returning.
        """
        super().startService()
        try:
            self._file.open()
        except ConfigurationError as why:
            STATE_OFF.emit(self._log, why=why)
            return
        except OSError as error:
            self._fail_to_read(error)
        self._ends = [self._registry.follow(self._changed, *_KINDS)]
        snapshot = self._read() if self._is_read else None
        if snapshot is not None:
            result = self._restorer.restore(snapshot, self._boot)
            STATE_RESTORED.emit(
                self._log,
                registered=result.registered,
                remembered=result.remembered,
                path=self._file.path,
            )
        self._mark()

    @property
    def age(self) -> float:
        """Seconds since the file got its contents, by the clock; infinity if there is no file."""
        modified = self._file.modified()
        return self._clock.seconds() - modified if modified else math.inf

    def stopService(self) -> Deferred[None]:
        """Write the file a last time; the Deferred fires when that is done."""
        super().stopService()
        ends, self._ends = self._ends, []
        for end in ends:
            end()
        self._cancel_next()
        if self._writing is not None and self._is_encoding:
            self._writing.cancel()
        return Deferred.fromCoroutine(self._finish(is_on=bool(ends)))

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    async def _settle(self) -> None:
        if self._writing is not None:
            await self._writing
        if self._keeping is not None:
            await self._keeping

    async def _finish(self, *, is_on: bool) -> None:
        await self._settle()
        if is_on:
            await self._write_last()
        self._file.close()

    async def _write_last(self) -> None:
        if self._is_behind:
            moment = self._boot.seconds()
            pieces = list(self._pieces())
            self._is_behind = False
            await self._put(moment, pieces)
            if self._keeping is not None:
                await self._keeping
        if not self._is_failing:
            with suppress(OSError):
                self._file.remove_new()

    def pause(self) -> Deferred[None]:
        """Begin no further write until :meth:`resume`; fires when none is under way."""
        self._is_paused = True
        self._cancel_next()
        if self._writing is not None and self._is_encoding:
            self._writing.cancel()
        return Deferred.fromCoroutine(self._settle())

    def resume(self) -> None:
        """Write again."""
        self._is_paused = False
        self._schedule()

    # At the start

    def _read(self) -> Snapshot | None:
        """The newest mappings of an earlier run."""
        try:
            return self._newer(self._read_kept())
        except OSError as error:
            self._fail_to_read(error)
        return None

    def _read_kept(self) -> Snapshot | None:
        try:
            data = self._file.read()
            return None if data is None else decode_snapshot(data)
        except InvalidState as why:
            self._set_aside(why)
        return None

    def _newer(self, newest: Snapshot | None) -> Snapshot | None:
        """What was written in this boot and has not become the file, if it is newer than that."""
        for slot, data in self._file.read_new().items():
            # What a killed process had not written to its end is no fault.
            with suppress(InvalidState):
                found = decode_snapshot(data)
                if found.boot == self._boot.name and _is_newer(found, newest):
                    newest, self._newest = found, slot
        return newest

    def _fail_to_read(self, error: OSError) -> None:
        self._unread = InvalidState(f"they could not be read at the start: {error.strerror}")
        self._fail(error)

    def _set_aside(self, why: InvalidState) -> None:
        try:
            name = self._file.set_aside()
        except FileNotFoundError:
            return
        except OSError as error:
            name = f"where it was: {error.strerror}"
        STATE_SET_ASIDE.emit(self._log, path=self._file.path, why=why, name=name)

    @property
    def behind(self) -> float:
        """The seconds for which the newest changes have not been written; 0 if they are."""
        return self._clock.seconds() - self._since if self._is_behind else 0.0

    # After changes

    def _changed(self, changes: Sequence[ChangeRecord]) -> None:
        if not self._is_behind and any(map(_is_unheld, changes)):
            self._mark()

    def _mark(self) -> None:
        """Have the file written in a moment."""
        self._is_behind = True
        self._since = self._clock.seconds()
        self._schedule()

    def _schedule(self) -> None:
        """Have the next write begin in time for the first change that it is for."""
        is_due = self._is_behind and bool(self._ends) and not self._is_paused
        if not is_due or self._writing is not None or self._next is not None:
            return
        ends = self._since + DELAY - self._duration
        delay = RETRY if self._is_failing else max(ends - self._clock.seconds(), MIN_DELAY)
        self._next = self._clock.callLater(delay, self._begin)

    def _begin(self) -> None:
        self._next = None
        self._began = self._clock.seconds()
        self._writing = writing = Deferred.fromCoroutine(self._write())
        writing.addBoth(self._written)

    def _written(self, result: object) -> None:
        """A write has ended, somehow."""
        self._writing = None
        self._duration = self._clock.seconds() - self._began
        self._log_unexpected(result)
        self._schedule()

    def _log_unexpected(self, result: object) -> None:
        if isinstance(result, Failure):
            # There is no memory left, say.
            self._log.failure("the mappings could not be written; trying again", result)
            self._is_behind = self._is_failing = True

    async def _write(self) -> None:
        self._is_encoding = True
        moment = self._boot.seconds()
        try:
            pieces = await self._encode()
        except CancelledError:
            self._is_behind = True
            return
        finally:
            self._is_encoding = False
        await self._put(moment, pieces)

    async def _encode(self) -> list[bytes]:
        """The lines of all mappings, made in slices.

        Changes that come meanwhile may be in it or not; they are in the next write.
        """
        self._is_behind = False
        pause = PAUSE if len(self._registry.mappings) <= MANY else LONG_PAUSE
        made: list[bytes] = []
        ends = self._clock.seconds() + SLICE
        for piece in self._pieces():
            made.append(piece)
            if self._clock.seconds() >= ends:
                await deferLater(self._clock, pause)
                ends = self._clock.seconds() + SLICE
        return made

    def _pieces(self) -> Iterator[bytes]:
        lines = self._lines()
        while piece := encode_lines(islice(lines, _BATCH)):
            yield piece

    def _lines(self) -> Iterator[str]:
        """What is to be kept."""
        if self._liveness is not None:
            return (encode_mapping(*fields) for fields in self._liveness.saved())
        mappings = self._registry.mappings
        return (encode_mapping(mapping, NOBODY) for mapping in mappings if mapping.holder is None)

    async def _put(self, moment: float, lines: list[bytes]) -> None:
        """Write new contents; a failure is logged once, and there will be another try.

        :param moment: when the lines were begun, in seconds since the boot.
        """
        slot = next(slot for slot in SLOTS if slot not in (self._newest, self._kept))

        def write() -> None:
            self._file.open()
            if self._unread is not None:
                self._set_aside(self._unread)
                self._unread = None
            self._file.write(slot, encode_snapshot(self._boot.name, moment, lines))

        try:
            await self._in_thread(write)
        except (OSError, ConfigurationError) as error:
            self._fail(error)
            return
        self._newest = slot
        if self._keeping is None:
            self._keeping = keeping = Deferred.fromCoroutine(self._keep())
            keeping.addBoth(self._ended_keeping)

    async def _keep(self) -> None:
        """Have the newest contents become the file, until it has them."""
        while self._newest is not None:
            self._kept = slot = self._newest
            try:
                await self._in_thread(partial(self._file.keep, slot))
            except OSError as error:
                self._fail(error)
                return
            if self._newest == slot:
                self._newest = None
            if self._is_failing:
                self._is_failing = False
                STATE_WRITTEN.emit(self._log, path=self._file.path)

    def _ended_keeping(self, result: object) -> None:
        self._keeping = self._kept = None
        self._log_unexpected(result)
        self._schedule()

    def _fail(self, error: OSError | ConfigurationError) -> None:
        self._is_behind = True
        if not self._is_failing:
            self._is_failing = True
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            STATE_NOT_WRITTEN.emit(self._log, path=self._file.path, error=why)


def _is_newer(found: Snapshot, than: Snapshot | None) -> bool:
    return than is None or than.boot != found.boot or found.moment > than.moment


def _is_unheld(change: ChangeRecord) -> bool:
    return isinstance(change.subject, Mapping) and change.subject.holder is None
