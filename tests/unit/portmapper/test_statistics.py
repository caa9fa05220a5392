"""What was asked, counted and encoded."""

import json
from typing import Any

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidState
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.statistics import (
    MAX_FAILED,
    MAX_SUBJECTS,
    PROCEDURES,
    VERSIONS,
    Lookup,
    Remote,
    Statistics,
    Tally,
)
from portmapd.portmapper.traffic import Traffic
from tests.support.rpc_samples import PROPERTY


@frozen
class Counts:
    """One version's row of GETSTAT, decoded: calls, SETs, UNSETs, look-ups and forwarded calls.

    The latter by what they were for, with how many succeeded and failed.
    """

    calls: tuple[int, ...]
    sets: int
    unsets: int
    lookups: dict[Lookup, tuple[int, int]]
    remotes: dict[Remote, tuple[int, int]]


def read_counts(reader: Reader) -> Counts:
    """Take one version's row off *reader* (RFC 1833, 2.2.1: ``rpcb_stat``)."""
    calls = tuple(reader.uint() for _ in range(PROCEDURES))
    sets, unsets = reader.uint(), reader.uint()
    lookups = dict(reader.sequence(_read_lookup))
    return Counts(calls, sets, unsets, lookups, dict(reader.sequence(_read_remote)))


def _read_lookup(reader: Reader) -> tuple[Lookup, tuple[int, int]]:
    program, version, success, failure = (reader.uint() for _ in range(4))
    return Lookup(program, version, reader.string()), (success, failure)


def _read_remote(reader: Reader) -> tuple[Remote, tuple[int, int]]:
    program, version, procedure, success, failure, indirect = (reader.uint() for _ in range(6))
    subject = Remote(program, version, procedure, reader.string(), bool(indirect))
    return subject, (success, failure)


def decode(data: bytes) -> dict[int, Counts]:
    """All versions' rows."""
    reader = Reader(data)
    rows = {version: read_counts(reader) for version in VERSIONS}
    assert reader.rest() == b""
    return rows


NFS = Lookup(100003, 3, "udp")
ECHO = Remote(7, 1, 2, "udp", indirect=False)
NOTHING = Counts((0,) * PROCEDURES, 0, 0, {}, {})


class StatisticsTests(SynchronousTestCase):
    """Counting."""

    def setUp(self) -> None:
        self.statistics = Statistics()

    def count(self, tally: Tally, times: int = 1) -> None:
        """Count a call so many times."""
        self.statistics.count_of(tally).value += times

    def rows(self) -> dict[int, Counts]:
        """What GETSTAT would tell."""
        return decode(self.statistics.encode())

    def test_empty(self) -> None:
        """At the start, all counts are zero."""
        self.assertEqual(self.rows(), dict.fromkeys(VERSIONS, NOTHING))
        self.assertEqual(self.statistics.encode(), bytes(3 * 4 * (PROCEDURES + 4)))

    def test_calls(self) -> None:
        """Calls are counted by version and procedure, whether they succeed or not."""
        self.count(Tally(2, 0))
        self.count(Tally(2, 0, success=False), 4)
        self.count(Tally(4, 12))
        self.assertEqual(self.rows()[2].calls, (5, *[0] * 12))
        self.assertEqual(self.rows()[3].calls, (0,) * 13)
        self.assertEqual(self.rows()[4].calls, (*[0] * 12, 1))
        self.assertEqual(self.statistics.calls(2, 0), 5)
        self.assertEqual(self.statistics.calls(3, 0), 0)

    def test_changes(self) -> None:
        """Of SET and UNSET, the successful ones are counted apart."""
        for procedure, success in ((1, True), (1, True), (1, False), (2, True), (2, False)):
            self.count(Tally(3, procedure, success=success))
        row = self.rows()[3]
        self.assertEqual((row.calls[1:3], row.sets, row.unsets), ((3, 2), 2, 1))

    def test_lookups(self) -> None:
        """Look-ups are counted by what was sought, and whether it was found."""
        self.count(Tally(2, 3, NFS), 3)
        self.count(Tally(2, 3, NFS, success=False), 2)
        self.count(Tally(2, 3, Lookup(1, 2, "tcp"), success=False))
        lookups = {NFS: (3, 2), Lookup(1, 2, "tcp"): (0, 1)}
        self.assertEqual(self.rows()[2].lookups, lookups)
        self.assertEqual(self.rows()[4].lookups, {})

    def test_remotes(self) -> None:
        """So are forwarded calls, direct and indirect ones apart."""
        indirect = Remote(7, 1, 2, "udp", indirect=True)
        self.count(Tally(4, 5, ECHO))
        self.count(Tally(4, 10, indirect, success=False), 2)
        self.assertEqual(self.rows()[4].remotes, {ECHO: (1, 0), indirect: (0, 2)})

    def test_bytes(self) -> None:
        """A look-up and a forwarded call travel as RFC 1833 has them."""
        self.count(Tally(4, 3, Lookup(1, 2, "tcp")))
        self.count(Tally(4, 10, Remote(3, 4, 5, "udp", indirect=True), success=False))
        tail = (
            "00000001 00000001 00000002 00000001 00000000 00000003 74637000 00000000"
            "00000001 00000003 00000004 00000005 00000000 00000001 00000001 00000003 75647000"
            "00000000"
        )
        self.assertTrue(self.statistics.encode().endswith(bytes.fromhex(tail)))

    def test_bounded(self) -> None:
        """Callers choose what they look up: only so many programs are told apart."""
        for program in range(MAX_SUBJECTS + 10):
            self.count(Tally(3, 3, Lookup(program, 1, "udp")))
            self.count(Tally(3, 5, Remote(program, 1, 0, "udp", indirect=False)))
        row = self.rows()[3]
        self.assertEqual((len(row.lookups), len(row.remotes)), (MAX_SUBJECTS, MAX_SUBJECTS))
        self.assertEqual(row.calls[3], MAX_SUBJECTS + 10)
        self.count(Tally(3, 3, Lookup(0, 1, "udp")))
        self.assertEqual(self.rows()[3].lookups[Lookup(0, 1, "udp")], (2, 0))

    def test_wraps(self) -> None:
        """Counts have 32 bits on the wire."""
        self.count(Tally(2, 1, NFS), (1 << 32) + 5)
        self.count(Tally(2, 5, ECHO), (1 << 32) + 6)
        row = self.rows()[2]
        self.assertEqual((row.calls[1], row.sets, row.lookups[NFS]), (5, 5, (5, 0)))
        self.assertEqual(row.remotes[ECHO], (6, 0))

    def test_one_count(self) -> None:
        """What is tallied alike has one count; adding to it counts without another look-up."""
        count = self.statistics.count_of(Tally(2, 3, NFS))
        self.assertIs(self.statistics.count_of(Tally(2, 3, NFS)), count)
        self.assertIsNot(self.statistics.count_of(Tally(2, 3, NFS, success=False)), count)
        count.value += 1
        self.assertEqual(self.rows()[2].calls[3], 1)
        self.assertEqual(self.statistics.calls(2, 3), 1)
        count.value += 1
        self.assertEqual(self.rows()[2].lookups[NFS], (2, 0))

    def test_failed_subjects(self) -> None:
        """What is not registered takes a few counts, and none of those that succeed."""
        for program in range(MAX_FAILED + 10):
            self.count(Tally(3, 3, Lookup(program, 1, "udp"), success=False))
        for program in range(1_000, 1_000 + MAX_SUBJECTS - MAX_FAILED):
            self.count(Tally(3, 3, Lookup(program, 1, "udp")))
        row = self.rows()[3]
        self.assertEqual(sum(failed for _, failed in row.lookups.values()), MAX_FAILED)
        self.assertEqual(len(row.lookups), MAX_SUBJECTS)
        self.assertEqual(row.calls[3], MAX_SUBJECTS + 10)

    def test_transports(self) -> None:
        """A subject has a count for each transport, takes one place, and is one row for callers."""
        for program in range(MAX_SUBJECTS):
            for transport in ("udp", "tcp"):
                self.count(Tally(3, 3, Lookup(program, 1, "udp"), transport=transport))
        lookups = self.rows()[3].lookups
        self.assertEqual(len(lookups), MAX_SUBJECTS)
        self.assertEqual(set(lookups.values()), {(2, 0)})
        self.count(Tally(3, 0, transport="tcp"), 3)
        self.assertEqual(
            self.statistics.totals(),
            {
                Tally(3, 3, transport="udp"): MAX_SUBJECTS,
                Tally(3, 3, transport="tcp"): MAX_SUBJECTS,
                Tally(3, 0, transport="tcp"): 3,
            },
        )

    def test_least_size(self) -> None:
        """The least size is that of no counts."""
        self.assertEqual(self.statistics.least_size, len(self.statistics.encode()))

    def test_shared_count(self) -> None:
        """Once too many subjects have a count, look-ups of further programs share one."""
        shares = self.statistics.shares_count
        for program in range(MAX_SUBJECTS):
            self.assertFalse(shares(2, MAX_SUBJECTS, success=True))
            self.count(Tally(2, 3, Lookup(program, 1, "udp")))
        self.assertTrue(shares(2, MAX_SUBJECTS, success=True))
        self.assertTrue(shares(2, MAX_SUBJECTS, success=False))
        self.assertFalse(shares(2, 0, success=True))
        self.assertFalse(shares(3, MAX_SUBJECTS, success=True))
        shared = self.statistics.count_of(Tally(2, 3))
        further = Lookup(MAX_SUBJECTS, 1, "udp")
        self.assertIs(self.statistics.count_of(Tally(2, 3, further)), shared)

    def test_failed_share_a_count(self) -> None:
        """Failed look-ups share one sooner."""
        for program in range(MAX_FAILED):
            self.count(Tally(2, 3, Lookup(program, 1, "udp"), success=False))
        self.assertTrue(self.statistics.shares_count(2, MAX_FAILED, success=False))
        self.assertFalse(self.statistics.shares_count(2, MAX_FAILED, success=True))


TALLIES = st.builds(
    Tally,
    st.sampled_from(VERSIONS),
    st.integers(0, PROCEDURES - 1),
    st.none() | st.just(NFS) | st.just(ECHO),
    st.booleans(),
)


class StatisticsProperties(SynchronousTestCase):
    """What holds for all counts."""

    @PROPERTY
    @given(st.lists(st.tuples(TALLIES, st.integers(1, 9))))
    def test_another_process(self, counted: list[tuple[Tally, int]]) -> None:
        """Another process goes on with the same counts."""
        old, new = Statistics(), Statistics()
        old.malformed = len(counted)
        old.traffics["udp"] = traffic = Traffic()
        traffic.received, traffic.sent = 56 * len(counted), 28 * len(counted)
        for tally, times in counted:
            old.count_of(tally).value += times
        new.take_over(json.loads(json.dumps(old.rows())))
        self.assertEqual(new.rows(), old.rows())

    def test_malformed_rows(self) -> None:
        """Rows of another form are refused."""
        empty = Statistics().rows()
        Statistics().take_over(empty)
        good: list[Any] = ["lookup", 2, 3, [1, 1, "udp"], True, "udp", 1]
        Statistics().take_over({**empty, "counts": [good]})
        counts = [[*good[:3], [1], *good[4:]], ["other", *good[1:]], good[:1]]
        rows = [{**empty, "counts": [row]} for row in counts]
        for malformed in ({}, {**empty, "traffics": {"udp": [1]}}, *rows):
            with self.assertRaises(InvalidState):
                Statistics().take_over(malformed)

    @PROPERTY
    @given(st.lists(st.tuples(TALLIES, st.integers(1, 9))))
    def test_sums(self, counted: list[tuple[Tally, int]]) -> None:
        """Nothing is lost: the sums of what is told are the sums of what was counted."""
        statistics = Statistics()
        for tally, times in counted:
            statistics.count_of(tally).value += times
        rows = decode(statistics.encode())
        for version in VERSIONS:
            here = [(t, times) for t, times in counted if t.version == version]
            self.assertEqual(sum(rows[version].calls), sum(times for _, times in here))
            row = rows[version]
            found: dict[object, object] = dict([*row.lookups.items(), *row.remotes.items()])
            for subject in (NFS, ECHO):
                counts = tuple(
                    sum(n for t, n in here if t.subject == subject and t.success is success)
                    for success in (True, False)
                )
                self.assertEqual(found.get(subject, (0, 0)), counts)
