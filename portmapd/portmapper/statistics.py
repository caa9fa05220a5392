"""What was asked, as RPCBPROC_GETSTAT tells it (RFC 1833, 2.2.1)."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from attrs import frozen

from portmapd.oncrpc import xdr

#: Versions in the order of RPCBPROC_GETSTAT, and the procedures each row has room for.
VERSIONS = (2, 3, 4)
PROCEDURES = 13

#: The most programs that look-ups, and calls, are counted apart for: who asks chooses them.
MAX_PROGRAMS = 256

K = TypeVar("K")
S = TypeVar("S")


@frozen
class Lookup:
    """An address was asked for, by GETPORT or GETADDR."""

    program: int
    version: int
    netid: str


@frozen
class Remote:
    """A call was to be forwarded."""

    program: int
    version: int
    procedure: int
    netid: str
    indirect: bool


@frozen
class Tally:
    """What one call counts as.

    :param subject: what was looked up or called, for the procedures that do; else None.
    :param success: did that succeed?
    """

    version: int
    procedure: int
    subject: Lookup | Remote | None = None
    success: bool = True


class Statistics:
    """Counts since the start, in bounded memory."""

    def __init__(self) -> None:
        self._calls: Counter[tuple[int, int]] = Counter()
        self._changes: Counter[tuple[int, int]] = Counter()
        self._lookups: dict[int, Counter[tuple[Lookup, bool]]] = {v: Counter() for v in VERSIONS}
        self._remotes: dict[int, Counter[tuple[Remote, bool]]] = {v: Counter() for v in VERSIONS}
        self._programs: dict[int, set[int]] = {v: set() for v in VERSIONS}
        #: Messages that were no call, or could not be decoded.
        self.malformed = 0
        #: Is called before the counts are read: whoever counts apart brings them up to date.
        self.settle: Callable[[], None] = lambda: None

    def count(self, tally: Tally, times: int = 1) -> None:
        """Count a call of program 100000, *times* times."""
        self._calls[tally.version, tally.procedure] += times
        if tally.procedure in (1, 2) and tally.success:
            self._changes[tally.version, tally.procedure] += times
        if isinstance(tally.subject, Lookup):
            if _bounded(self._lookups[tally.version], (tally.subject, tally.success), times):
                self._programs[tally.version].add(tally.subject.program)
        elif tally.subject is not None:
            _bounded(self._remotes[tally.version], (tally.subject, tally.success), times)

    def counts_apart(self, version: int, program: int) -> bool:
        """Is a look-up of that program, by that version, counted by its subject?"""
        full = len(self._lookups[version]) >= MAX_PROGRAMS
        return not full or program in self._programs[version]

    def calls(self, version: int, procedure: int) -> int:
        """How often that procedure was called."""
        self.settle()
        return self._calls[version, procedure]

    def encode(self) -> bytes:
        """The ``rpcb_stat_byvers`` of now."""
        self.settle()
        return b"".join(self._version(version) for version in VERSIONS)

    def _version(self, version: int) -> bytes:
        calls = [xdr.uint(_wrap(self._calls[version, p])) for p in range(PROCEDURES)]
        changes = [xdr.uint(_wrap(self._changes[version, p])) for p in (1, 2)]
        lookups = _pairs(self._lookups[version])
        remotes = _pairs(self._remotes[version])
        return b"".join(
            [
                *calls,
                *changes,
                xdr.sequence([_lookup(subject, *counts) for subject, counts in lookups]),
                xdr.sequence([_remote(subject, *counts) for subject, counts in remotes]),
            ]
        )


def _bounded(counter: Counter[K], key: K, times: int) -> bool:
    """Count *key*, unless there are too many already; was it counted?"""
    counted = key in counter or len(counter) < MAX_PROGRAMS
    if counted:
        counter[key] += times
    return counted


def _pairs(counter: Counter[tuple[S, bool]]) -> Iterable[tuple[S, tuple[int, int]]]:
    subjects = dict.fromkeys(subject for subject, _ in counter)
    return ((s, (counter[s, True], counter[s, False])) for s in subjects)


def _lookup(subject: Lookup, success: int, failure: int) -> bytes:
    numbers = (subject.program, subject.version, _wrap(success), _wrap(failure))
    return b"".join(map(xdr.uint, numbers)) + xdr.string(subject.netid)


def _remote(subject: Remote, success: int, failure: int) -> bytes:
    numbers = (
        subject.program,
        subject.version,
        subject.procedure,
        _wrap(success),
        _wrap(failure),
        subject.indirect,
    )
    return b"".join(map(xdr.uint, numbers)) + xdr.string(subject.netid)


def _wrap(count: int) -> int:
    """Counters on the wire have 32 bits."""
    return count & 0xFFFF_FFFF
