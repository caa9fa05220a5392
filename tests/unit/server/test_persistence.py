"""Mappings in a file: written soon after each change, taken back at a start."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.program import PROGRAM
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Mapping, mapping
from portmapd.registry.registry import Registry
from portmapd.registry.snapshot import decode_snapshot
from portmapd.server.boot import Boot, this_boot
from portmapd.server.liveness import Liveness
from portmapd.server.persistence import DELAY, MIN_DELAY, PAUSE, RETRY, SLICE, Persistence
from portmapd.server.restoring import Restorer
from portmapd.server.state_file import SLOTS, StateFile
from tests.unit.server.test_bound_sockets import UDP, opened
from tests.unit.server.test_liveness import address, give

STATD = mapping(100024, 1, "udp", "0.0.0.0.182.50", "103")


class BusyClock(Clock):
    """A clock on which every look takes time."""

    taken = 0.0

    def seconds(self) -> float:
        self.rightNow += self.taken
        return super().seconds()


class Run:
    """A daemon from its start to its end, as far as mappings are kept.

    :param path: the state file.
    :param boot: the name of the boot.
    :param forget: seconds for which mappings are remembered; None: there is no liveness.
    """

    def __init__(self, path: Path, boot: str = "b0", forget: float | None = 60.0) -> None:
        self.clock = BusyClock()
        self.registry = Registry()
        self.liveness = None
        if forget is not None:
            self.liveness = Liveness(self.registry, self.clock, 1.0, forget)
        restorer = Restorer(self.registry, self.liveness, forget or 0.0)
        self.writes: list[tuple[Callable[[], None], Deferred[None]]] = []
        #: Whether threads wait for :meth:`end_write`.
        self.is_slow = False
        self.persistence = Persistence(
            StateFile(str(path)),
            self.registry,
            self.liveness,
            restorer,
            Boot(boot, self.clock.seconds),
            self.clock,
            self._in_thread,
        )

    def _in_thread(self, call: Callable[[], None]) -> Deferred[None]:
        if not self.is_slow:
            return execute(call)
        done: Deferred[None] = Deferred()
        self.writes.append((call, done))
        return done

    def end_write(self, number: int = 0) -> None:
        """Let a thread end."""
        call, done = self.writes.pop(number)
        call()
        done.callback(None)

    def start(self) -> "Run":
        """Start it."""
        self.persistence.startService()
        return self

    def stop(self) -> Deferred[None]:
        """Stop it."""
        return self.persistence.stopService()

    def is_waiting(self) -> bool:
        """Is there to be a write? A look at new mappings is due at once."""
        now = self.clock.seconds()
        return any(call.getTime() > now for call in self.clock.getDelayedCalls())

    def remembered(self) -> list[Mapping]:
        """What is suspended."""
        return list(self.registry.suspended.values())


class PersistenceTestCase(SynchronousTestCase):
    """A state file, and the daemons that use it one after the other."""

    def setUp(self) -> None:
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = Path(scratch.name, "state", "mappings")

    def run_(self, *arguments: Any, **named: Any) -> Run:
        """Start a daemon, which is stopped after the test at the latest."""
        run = Run(self.path, *arguments, **named).start()
        self.addCleanup(run.persistence._file.close)
        return run

    def block(self) -> None:
        """Have no new file be made."""
        for slot in SLOTS:
            Path(f"{self.path}{slot}").mkdir()

    def unblock(self) -> None:
        """Let new files be made again."""
        for slot in SLOTS:
            Path(f"{self.path}{slot}").rmdir()

    def file(self) -> list[Mapping]:
        """What the file has."""
        return [each.mapping for each in decode_snapshot(self.path.read_bytes()).saved]


class WritingTests(PersistenceTestCase):
    """When it is written, and what."""

    def test_soon_after_a_change(self) -> None:
        """A change is in the file a moment later; changes in that moment are written together."""
        run = self.run_()
        run.clock.advance(DELAY)
        run.registry.map(STATD)
        run.clock.advance(DELAY - 0.01)
        self.assertEqual(self.file(), [])
        other = mapping(7, 1, "tcp", "0.0.0.0.1.1")
        run.registry.map(other)
        run.clock.advance(0.01)
        self.assertCountEqual(self.file(), [STATD, other])
        run.registry.unmap(STATD)
        run.clock.advance(DELAY)
        self.assertEqual(self.file(), [other])
        run.registry.replace(other, STATD)
        run.clock.advance(DELAY)
        self.assertEqual(run.clock.getDelayedCalls(), [])

    def test_suspended(self) -> None:
        """A suspended mapping is in it with its time; one that is forgotten is not."""
        run = self.run_()
        run.registry.map(STATD)
        run.registry.suspend(STATD)
        run.clock.advance(DELAY)
        (saved,) = decode_snapshot(self.path.read_bytes()).saved
        self.assertEqual((saved.mapping, saved.left), (STATD, 60.0 - DELAY))
        run.registry.forget(STATD)
        run.clock.advance(DELAY)
        self.assertEqual(self.file(), [])

    def test_held(self) -> None:
        """What a connection holds ends with it: neither is it written nor does it cause a write."""
        run = self.run_()
        run.clock.advance(DELAY)
        holder = run.registry.open(Holder(0, 1))
        run.registry.map(mapping(7, 1, "udp", "0.0.0.0.1.1", holder=holder))
        self.assertFalse(run.is_waiting())
        run.registry.map(STATD)
        run.clock.advance(DELAY)
        self.assertEqual(self.file(), [STATD])

    def test_first_seen_bound(self) -> None:
        """So is what is seen of a service only later."""
        run = self.run_()
        assert run.liveness is not None
        with opened(UDP, "127.0.0.1") as skt:
            late = address("127.0.0.1", skt)
        run.registry.map(mapping(7, 1, "udp", late))
        run.clock.advance(DELAY)
        (saved,) = decode_snapshot(self.path.read_bytes()).saved
        self.assertEqual(saved.users, frozenset())
        with opened(UDP, "127.0.0.1") as skt:
            run.registry.replace(saved.mapping, mapping(7, 1, "udp", address("127.0.0.1", skt)))
            run.clock.advance(DELAY)
            run.liveness.look()
            run.clock.advance(DELAY)
            (saved,) = decode_snapshot(self.path.read_bytes()).saved
            self.assertEqual(saved.users, frozenset({os.geteuid(), 0}))

    def test_slices(self) -> None:
        """Text of many mappings is made in slices; a change meanwhile is in the next write."""
        run = self.run_(forget=None)
        run.clock.advance(DELAY)
        run.registry.map(*[mapping(n, 1, "udp", "0.0.0.0.1.1") for n in range(1_000)])
        run.clock.taken = SLICE / 2
        run.clock.advance(DELAY)
        before = self.path.read_bytes()
        run.clock.advance(0)
        run.registry.unmap(*[m for m in run.registry.mappings if m.program < 10])
        run.registry.map(STATD)
        self.assertEqual(self.path.read_bytes(), before)
        run.clock.taken = 0.0
        run.clock.pump([PAUSE] * 100)
        self.assertGreaterEqual(len(self.file()), 990)
        run.clock.advance(DELAY)
        self.assertCountEqual(self.file(), run.registry.mappings)

    def test_changes_between_slices(self) -> None:
        """What is moved, suspended or resumed between two slices is in the file all the same."""
        run = self.run_()
        run.clock.advance(DELAY)
        many = [mapping(n, 1, "udp", "0.0.0.0.1.1") for n in range(1_000)]
        run.registry.map(*many)
        run.registry.suspend(*many[:500])
        run.clock.taken = SLICE
        run.clock.advance(DELAY)
        run.registry.resume(*many[100:500])
        moved = [mapping(n, 1, "udp", "0.0.0.0.2.2") for n in range(600, 1_000)]
        for new in moved:
            run.registry.replace(many[new.program], new)
        run.registry.suspend(*many[500:600], *moved[:100])
        is_written = self.path.stat().st_ino
        while self.path.stat().st_ino == is_written:
            run.clock.advance(PAUSE)
        self.assertEqual({each.program for each in self.file()}, set(range(1_000)))

    def test_soon_enough(self) -> None:
        """The more time a write takes, the earlier the next one begins."""
        run = self.run_()
        run.clock.advance(DELAY)
        run.is_slow = True
        run.registry.map(STATD)
        run.clock.advance(DELAY)
        run.registry.unmap(STATD)
        run.clock.advance(0.3)
        run.end_write()
        self.assertEqual(len(run.writes), 1)
        run.clock.advance(DELAY - 0.6 + MIN_DELAY)
        self.assertEqual(len(run.writes), 2)

    def test_one_write_at_a_time(self) -> None:
        """While a write is slow, there is no other, and nothing is missed."""
        run = self.run_()
        run.clock.advance(DELAY)
        run.is_slow = True
        run.registry.map(STATD)
        run.clock.advance(DELAY)
        run.registry.unmap(STATD)
        run.clock.advance(10 * DELAY)
        self.assertEqual(len(run.writes), 1)
        self.assertAlmostEqual(run.persistence.behind, 10 * DELAY)
        run.is_slow = False
        run.end_write()
        self.assertEqual(self.file(), [STATD])
        run.clock.advance(DELAY)
        self.assertEqual(self.file(), [])
        self.assertEqual(run.persistence.behind, 0)

    def test_slow_disk(self) -> None:
        """However slow the disk is, what was written survives the process, the newest of it."""
        run = self.run_()
        run.clock.advance(DELAY)
        run.is_slow = True
        rows = [mapping(7, version, "tcp", "0.0.0.0.1.1") for version in range(5)]
        for number, row in enumerate(rows):
            run.registry.map(row)
            run.clock.advance(DELAY)
            # The first one is on its way to the disk all the time.
            run.end_write(min(number, 1))
            self.assertEqual((len(run.writes), self.file()), (1, []))
        run.persistence._file.close()
        run = self.run_()
        self.assertEqual(list(run.registry.mappings), rows)
        self.assertEqual(self.file(), [])
        run.clock.advance(DELAY)
        self.assertEqual(self.file(), rows)
        self.successResultOf(run.stop())
        self.assertEqual(sorted(os.listdir(self.path.parent)), ["mappings", "mappings.lock"])

    def test_half_written(self) -> None:
        """What a killed process had not written to its end is no fault, and no loss."""
        self.killed_with(STATD)
        whole = self.path.read_bytes()
        for slot, data in zip(SLOTS, (whole[:-1], b"", whole.replace(b" 1 ", b" 2 ")), strict=True):
            Path(f"{self.path}{slot}").write_bytes(data)
        with capturedLogs() as events:
            run = self.run_()
        self.assertEqual([e["event"] for e in events], ["state-restored"])
        self.assertEqual(list(run.registry.mappings), [STATD])

    def killed_with(self, *rows: Mapping) -> None:
        """Have a run end whose file has these mappings."""
        run = self.run_()
        run.registry.map(*rows)
        run.clock.advance(DELAY)
        run.persistence._file.close()


class FailureTests(PersistenceTestCase):
    """What cannot be written or read."""

    def test_tried_again(self) -> None:
        """A failure is one warning, however often there is another try; so is its end."""
        run = self.run_()
        run.clock.advance(DELAY)
        self.block()
        with capturedLogs() as events:
            run.registry.map(STATD)
            run.clock.pump([DELAY, RETRY, RETRY])
        self.assertEqual([e["event"] for e in events], ["state-not-written"])
        self.assertEqual((self.file(), events[0]["path"]), ([], str(self.path)))
        self.unblock()
        with capturedLogs() as events:
            run.clock.pump([RETRY, RETRY])
        self.assertEqual([e["event"] for e in events], ["state-written"])
        self.assertEqual(self.file(), [STATD])

    def test_unread(self) -> None:
        """A file that could not be read at the start is set aside before another one is written."""
        run = self.run_()
        run.registry.map(STATD)
        self.successResultOf(run.stop())
        folder, away = self.path.parent, self.path.parent.with_name("away")
        folder.rename(away)
        folder.touch()
        later = self.run_()
        folder.unlink()
        away.rename(folder)
        with capturedLogs() as events:
            later.registry.map(mapping(7, 1, "udp", "0.0.0.0.1.1", "103"))
            later.clock.pump([DELAY, RETRY])
        self.assertEqual([e["event"] for e in events], ["state-set-aside", "state-written"])
        self.assertEqual([m.program for m in self.file()], [7])
        (name,) = self.path.parent.glob("*bad*")
        self.assertIn(b"100024", name.read_bytes())

    def test_no_directory(self) -> None:
        """A start without a directory is a warning; mappings are kept once it is there."""
        with capturedLogs() as events:
            run = Run(self.path / "deep" / "mappings").start()
            self.addCleanup(run.persistence._file.close)
            run.registry.map(STATD)
            run.clock.advance(DELAY)
        self.assertEqual([e["event"] for e in events], ["state-not-written"])
        self.path.parent.mkdir(0o700)
        self.path.mkdir(0o700)
        run.clock.advance(RETRY)
        self.path = self.path / "deep" / "mappings"
        self.assertEqual(self.file(), [STATD])

    def test_another_process(self) -> None:
        """Of two daemons with one path, the second keeps nothing, and says why."""
        self.run_().clock.advance(DELAY)
        with capturedLogs() as events:
            second = self.run_()
        self.assertEqual([e["event"] for e in events], ["state-off"])
        second.registry.map(STATD)
        second.clock.advance(DELAY)
        self.successResultOf(second.stop())
        self.assertEqual(self.file(), [])

    def test_unexpected_failure(self) -> None:
        """When there is no memory for it, say, that is logged, and tried again."""
        run = self.run_()
        run.clock.advance(DELAY)
        run.is_slow = True
        run.registry.map(STATD)
        run.clock.advance(DELAY)
        _, done = run.writes.pop()
        done.errback(MemoryError())
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        run.is_slow = False
        run.clock.advance(RETRY)
        self.assertEqual(self.file(), [STATD])

    def test_set_aside(self) -> None:
        """CVE-2010-2061: what cannot be trusted is set aside with one line, and a new one made."""
        run = self.run_()
        run.clock.advance(DELAY)
        whole = self.path.read_bytes()
        for number, bad in enumerate(
            (b"", whole[:-1], b"\0" * 9_999, whole.replace(b" 1 ", b" 9 ")), 1
        ):
            run.persistence._file.close()
            self.path.write_bytes(bad)
            with capturedLogs() as events:
                run = self.run_()
                run.clock.advance(DELAY)
            (event,) = events
            self.assertEqual((event["event"], event["path"]), ("state-set-aside", str(self.path)))
            self.assertEqual(event["name"], f"{self.path}.bad-{number}")
            self.assertEqual(Path(event["name"]).read_bytes(), bad)
            self.assertEqual((list(run.registry.mappings), self.file()), ([], []))


class PauseTests(PersistenceTestCase):
    """Another process is about to take this one's place."""

    def test_nothing_is_written(self) -> None:
        """Nothing is written until the pause ends; then, what changed meanwhile is."""
        run = self.run_()
        run.clock.advance(DELAY)
        self.successResultOf(run.persistence.pause())
        run.registry.map(STATD)
        run.clock.advance(2 * DELAY)
        self.assertEqual(self.file(), [])
        run.persistence.resume()
        run.clock.advance(DELAY)
        self.assertEqual(self.file(), [STATD])

    def test_waits_for_the_disk(self) -> None:
        """What is on its way to the disk is waited for."""
        run = self.run_()
        run.is_slow = True
        run.clock.advance(DELAY)
        paused = run.persistence.pause()
        run.end_write()
        self.assertNoResult(paused)
        run.end_write()
        self.successResultOf(paused)
        self.assertEqual(self.file(), [])


class StopTests(PersistenceTestCase):
    """The last write."""

    def test_last_write(self) -> None:
        """A stop writes what the file lacks, and lets another process have it."""
        run = self.run_()
        run.registry.map(STATD)
        self.successResultOf(run.stop())
        self.assertEqual(self.file(), [STATD])
        self.assertFalse(run.is_waiting())
        run.registry.unmap(STATD)
        self.assertEqual(list(self.run_().registry.suspended), [])

    def test_nothing_new(self) -> None:
        """A file that is as it should be is left alone."""
        run = self.run_()
        run.clock.advance(DELAY)
        before = self.path.stat()
        self.successResultOf(run.stop())
        self.assertEqual(self.path.stat().st_ino, before.st_ino)

    def test_while_text_is_made(self) -> None:
        """A write that is under way gives way to the last one."""
        run = self.run_(forget=None)
        run.clock.advance(DELAY)
        run.registry.map(*[mapping(n, 1, "udp", "0.0.0.0.1.1") for n in range(1_000)])
        run.clock.taken = SLICE
        run.clock.advance(DELAY)
        run.registry.map(STATD)
        self.successResultOf(run.stop())
        self.assertEqual(len(self.file()), 1_001)
        self.assertEqual(run.clock.getDelayedCalls(), [])

    def test_while_the_disk_is_waited_for(self) -> None:
        """One that waits for the disk is waited for, and so is the last one."""
        run = self.run_()
        run.clock.advance(DELAY)
        run.is_slow = True
        run.registry.map(STATD)
        run.clock.advance(DELAY)
        run.registry.unmap(STATD)
        stopped = run.stop()
        for _ in range(4):
            self.assertNoResult(stopped)
            run.end_write()
        self.successResultOf(stopped)
        self.assertEqual((self.file(), run.is_waiting()), ([], False))

    def test_again(self) -> None:
        """A service may be started again; the registry knows better than the file."""
        run = self.run_()
        run.registry.map(STATD)
        self.successResultOf(run.stop())
        run.registry.unmap(STATD)
        other = mapping(100024, 1, "udp", "0.0.0.0.1.1", "103")
        run.registry.map(other)
        run.start()
        run.clock.advance(DELAY)
        self.assertEqual((list(run.registry.mappings), self.file()), ([other], [other]))


class RestoringTests(PersistenceTestCase):
    """What the next start makes of it."""

    def killed(self, *saved: Mapping, looks: bool = True) -> None:
        """Have a run end at once that had these mappings."""
        run = self.run_()
        run.registry.map(*saved)
        if looks and run.liveness is not None:
            run.liveness.look_at_new()
        run.clock.advance(DELAY)
        run.persistence._file.close()

    def test_bound(self) -> None:
        """A mapping whose service is there is registered at once, with its owner."""
        with opened(UDP, "127.0.0.1") as skt:
            statd = mapping(100024, 1, "udp", address("127.0.0.1", skt), "103")
            self.killed(statd)
            with capturedLogs() as events:
                run = self.run_()
            self.assertEqual((list(run.registry.mappings), run.remembered()), ([statd], []))
            self.assertEqual((events[0]["registered"], events[0]["remembered"]), (1, 0))
            assert run.liveness is not None
            run.liveness.look()
            self.assertEqual(len(run.registry.mappings), 1)
            skt.close()
            run.liveness.look()
            self.assertEqual(run.remembered(), [statd])

    def test_gone(self) -> None:
        """One whose service is gone is remembered as long as that of one that pauses."""
        with opened(UDP, "127.0.0.1") as skt:
            statd = mapping(100024, 1, "udp", address("127.0.0.1", skt), "103")
            self.killed(statd)
        run = self.run_()
        self.assertEqual((list(run.registry.mappings), run.remembered()), ([], [statd]))
        assert run.liveness is not None
        run.clock.advance(59)
        run.liveness.look()
        self.assertEqual(run.remembered(), [statd])
        run.clock.advance(2)
        run.liveness.look()
        self.assertEqual(run.remembered(), [])

    def test_of_another_user(self) -> None:
        """A port that another user has by now does not make the mapping that user's."""
        if os.geteuid() != 0:
            return
        with opened(UDP, "127.0.0.1") as skt:
            give(skt, 103)
            statd = mapping(100024, 1, "udp", address("127.0.0.1", skt), "103")
            self.killed(statd)
            give(skt, 1_000)
            run = self.run_()
            self.assertEqual((list(run.registry.mappings), run.remembered()), ([], [statd]))
            give(skt, 103)
            assert run.liveness is not None
            run.liveness.look()
            self.assertEqual(list(run.registry.mappings), [statd])

    def test_another_boot(self) -> None:
        """After a boot it is remembered, and registered when its user is seen there."""
        with opened(UDP, "127.0.0.1") as skt:
            statd = mapping(100024, 1, "udp", address("127.0.0.1", skt), "103")
            self.killed(statd)
            run = self.run_("b1")
            self.assertEqual((list(run.registry.mappings), run.remembered()), ([], [statd]))

    def test_without_liveness(self) -> None:
        """Where services are not watched, nothing can be remembered; the rest stays."""
        with opened(UDP, "127.0.0.1") as skt:
            gone = mapping(7, 1, "udp", address("127.0.0.1", skt))
            self.killed(gone)
        self.killed(STATD, gone, looks=False)
        self.assertEqual(len(self.run_(forget=None).registry.mappings), 2)

    def test_own_program(self) -> None:
        """The port mapper's own program is never taken from a file."""
        self.killed(mapping(PROGRAM, 2, "udp", "0.0.0.0.0.111"), looks=False)
        self.assertEqual(len(self.file()), 1)
        self.assertEqual(list(self.run_().registry.mappings), [])

    def test_paused(self) -> None:
        """What was suspended goes on to be, in the order of the ends."""
        first, second = (mapping(7, n, "udp", f"127.0.0.1.{n}.1", "103") for n in (1, 2))
        run = self.run_()
        for each in (first, second):
            run.registry.map(each)
            run.registry.suspend(each)
            run.clock.advance(10)
        run.clock.advance(DELAY)
        self.successResultOf(run.stop())
        run = Run(self.path)
        run.clock.advance(30)
        run.start()
        self.addCleanup(run.persistence._file.close)
        assert run.liveness is not None
        self.assertCountEqual(run.remembered(), [first, second])
        run.clock.advance(35)
        run.liveness.look()
        self.assertEqual(run.remembered(), [second])


class BootTests(SynchronousTestCase):
    """The boot of this kernel."""

    def test_this_boot(self) -> None:
        """It has one name, and its clock runs."""
        first, second = this_boot(), this_boot()
        self.assertEqual(first.name, second.name)
        self.assertGreater(second.seconds(), 0)
