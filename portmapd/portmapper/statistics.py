"""What was asked, counted for RPCBPROC_GETSTAT (RFC 1833, 2.1)."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from attrs import astuple, evolve, frozen

from portmapd.errors import InvalidState
from portmapd.oncrpc.program import (
    PMAP_VERS,
    RPCBVERS,
    RPCBVERS4,
    RpcbProcedure,
    RpcbsAddr,
    RpcbsRmtcall,
    RpcbStat,
    encode_rpcb_stat,
)
from portmapd.portmapper.traffic import Traffic

#: Versions in the order of RPCBPROC_GETSTAT, and how many procedures each has a count for.
VERSIONS = (PMAP_VERS, RPCBVERS, RPCBVERS4)
PROCEDURES = max(RpcbProcedure) + 1

#: The most look-ups, and the most forwarded calls, that are counted by their subject in each
#: version. Callers choose the subjects, and could fill the memory with them.
MAX_SUBJECTS = 128
#: How many of them may be ones that failed. What succeeds is registered here; what fails may be
#: anything, and must not take the place of that.
MAX_FAILED = 32

S = TypeVar("S")


@frozen
class Lookup:
    """An address that was asked for, by GETPORT, GETADDR or GETVERSADDR."""

    program: int
    version: int
    netid: str


@frozen
class Remote:
    """A call that was to be forwarded, by CALLIT, BCAST or INDIRECT."""

    program: int
    version: int
    procedure: int
    netid: str
    indirect: bool


@frozen
class Tally:
    """What a call of program 100000 counts as.

    :param subject: what was looked up or called; None for the other procedures.
    :param success: whether that succeeded.
    :param transport: the netid over which the call came.
    """

    version: int
    procedure: int
    subject: Lookup | Remote | None = None
    success: bool = True
    transport: str = ""


class Count:
    """How often something happened since the start."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Statistics:
    """The counts since the start, in bounded memory.

    :ivar malformed: messages that were no call, or could not be decoded.
    :ivar refusals: what was refused, by the code of the refusal.
    :ivar traffics: how many bytes came and went, by the netid of the transport.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.refusals: Counter[str] = Counter()
        self.traffics: dict[str, Traffic] = {}
        self._counts: dict[Tally, Count] = {}
        #: The subjects that have counts of their own, whatever the transport; and how many there
        #: are of each version, kind and success.
        self._admitted: set[Tally] = set()
        self._subjects: Counter[tuple[int, type, bool]] = Counter()
        #: The version and program of every look-up that has a count of its own.
        self._looked_up: set[tuple[int, int]] = set()

    def count_of(self, tally: Tally) -> Count:
        """The count of everything that is tallied alike; it stays the same object.

        When too many subjects have a count of their own, further ones share one.
        """
        count = self._counts.get(tally)
        if count is None:
            if tally.subject is not None and not self._admits(tally, tally.subject):
                return self.count_of(evolve(tally, subject=None))
            count = self._counts[tally] = Count()
        return count

    def _admits(self, tally: Tally, subject: Lookup | Remote) -> bool:
        """Whether a subject gets counts of its own."""
        anywhere = evolve(tally, transport="")
        if anywhere in self._admitted:
            return True
        kind = tally.version, type(subject), tally.success
        if self._is_full(*kind):
            return False
        self._admitted.add(anywhere)
        self._subjects[kind] += 1
        if isinstance(subject, Lookup):
            self._looked_up.add((tally.version, subject.program))
        return True

    def _is_full(self, version: int, kind: type, success: bool) -> bool:
        failed = self._subjects[version, kind, False]
        if not success and failed >= MAX_FAILED:
            return True
        return failed + self._subjects[version, kind, True] >= MAX_SUBJECTS

    def shares_count(self, version: int, program: int, success: bool) -> bool:
        """Whether look-ups of *program* with that outcome all share one count, now and later."""
        full = self._is_full(version, Lookup, success)
        return full and (version, program) not in self._looked_up

    def calls(self, version: int, procedure: int) -> int:
        """How often that procedure was called."""
        return sum(
            count.value
            for tally, count in self._counts.items()
            if (tally.version, tally.procedure) == (version, procedure)
        )

    def totals(self) -> Counter[Tally]:
        """How often there was what, whatever its subject."""
        totals = Counter[tuple[int, int, bool, str]]()
        # Subjects may be thousands, and a tally takes long to make.
        for t, count in self._counts.items():
            totals[t.version, t.procedure, t.success, t.transport] += count.value
        return Counter({Tally(v, p, None, s, t): n for (v, p, s, t), n in totals.items()})

    def rows(self) -> dict[str, Any]:
        """All counts, as a value of JSON with which another process goes on."""
        counts = [[*_row(tally), count.value] for tally, count in self._counts.items()]
        traffics = {netid: [t.received, t.sent] for netid, t in self.traffics.items()}
        return {
            "malformed": self.malformed,
            "refusals": self.refusals,
            "counts": counts,
            "traffics": traffics,
        }

    def take_over(self, rows: Mapping[str, Any]) -> None:
        """Go on counting where another process was.

        :param rows: what :meth:`rows` gave there.
        :raises InvalidState: it is malformed.
        """
        try:
            self.malformed = rows["malformed"]
            self.refusals.update(rows["refusals"])
            for kind, version, procedure, fields, success, transport, value in rows["counts"]:
                tally = Tally(version, procedure, _SUBJECTS[kind](*fields), success, transport)
                self.count_of(tally).value += value
            for netid, (received, sent) in rows["traffics"].items():
                traffic = self.traffics.setdefault(netid, Traffic())
                traffic.received += received
                traffic.sent += sent
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidState(f"the statistics cannot be read: {error!r}") from error

    @property
    def least_size(self) -> int:
        """The size of what :meth:`encode` gives if nothing was counted, in bytes."""
        return 4 * len(VERSIONS) * (PROCEDURES + 4)

    def encode(self) -> bytes:
        """The ``rpcb_stat_byvers`` of now."""
        return b"".join(encode_rpcb_stat(self._stat(version)) for version in VERSIONS)

    def _stat(self, version: int) -> RpcbStat:
        counts = [(t, c.value) for t, c in self._counts.items() if t.version == version]
        calls = Counter[int]()
        succeeded = Counter[int]()
        for tally, value in counts:
            calls[tally.procedure] += value
            succeeded[tally.procedure] += value * tally.success
        return RpcbStat(
            tuple(calls[procedure] for procedure in range(PROCEDURES)),
            succeeded[RpcbProcedure.RPCBPROC_SET],
            succeeded[RpcbProcedure.RPCBPROC_UNSET],
            tuple(
                RpcbsAddr(s.program, s.version, by[True], by[False], s.netid)
                for s, by in _by_subject(counts, Lookup)
            ),
            tuple(
                RpcbsRmtcall(
                    s.program, s.version, s.procedure, by[True], by[False], s.indirect, s.netid
                )
                for s, by in _by_subject(counts, Remote)
            ),
        )


#: The kinds of subjects, by their names.
_SUBJECTS: dict[str, Callable[..., Lookup | Remote | None]] = {
    "none": lambda: None,
    "lookup": Lookup,
    "remote": Remote,
}


def _row(tally: Tally) -> tuple[Any, ...]:
    subject = tally.subject
    fields: tuple[object, ...] = () if subject is None else astuple(subject)
    kind = "none" if subject is None else type(subject).__name__.lower()
    return kind, tally.version, tally.procedure, fields, tally.success, tally.transport


def _by_subject(
    counts: Iterable[tuple[Tally, int]], kind: type[S]
) -> Iterable[tuple[S, list[int]]]:
    """The counts of failure and of success, for each subject of that kind."""
    found: dict[S, list[int]] = {}
    for tally, value in counts:
        if isinstance(tally.subject, kind):
            found.setdefault(tally.subject, [0, 0])[tally.success] += value
    return found.items()
