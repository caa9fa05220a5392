"""A daemon that is killed again and again while mappings are set and unset.

``python -m tests.support.kills [--kills N] [--seconds S] [--folder PATH] [--seed N]`` prints what
came of it, and ends with status 1 if a mapping was lost, resurrected or invented that was answered
more than a second before a kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from attrs import define, field, frozen

from portmapd.errors import InvalidState
from portmapd.oncrpc.netid import format_address
from portmapd.oncrpc.program import (
    PROGRAM,
    RPCBVERS4,
    Rpcb,
    RpcbProcedure,
    encode_rpcb,
    read_rpcb,
)
from portmapd.oncrpc.record import mark
from portmapd.oncrpc.xdr import Reader
from portmapd.registry.snapshot import decode_snapshot
from portmapd.server.state_file import SLOTS
from tests.support.exchange import PATIENCE, connect_local, question, results
from tests.support.host import serves, start
from tests.support.namespace import eventually
from tests.support.report import Report

#: What was answered longer ago than this is in the file, in seconds.
BEHIND = 1.0
#: How many programs are set and unset, and the services that have them.
PROGRAMS, SERVICES = 200, 8
FIRST = 200_000
#: Of so many kills, one is while the daemon starts.
STARTS = 8
#: A start takes about so many seconds.
START = 0.6

#: Where a program is registered, and by whom; None: it is not.
Place = tuple[str, str] | None


@define
class History:
    """What a program's mapping was.

    :param before: at the last start of the daemon.
    :param changes: since then, each with the time of its answer.
    """

    before: Place = None
    changes: list[tuple[float, Place]] = field(factory=list)

    def possible(self, moment: float) -> list[Place]:
        """What it may be after a kill: what it was at *moment*, and all that it was since."""
        at = [place for when, place in self.changes if when <= moment]
        return [(at or [self.before])[-1], *(p for when, p in self.changes if when > moment)]

    def behind(self, found: Place, killed: float) -> float:
        """For how many seconds before the kill something was answered that was not kept."""
        lost = 0.0
        for when, place in reversed(self.changes):
            if place == found:
                break
            lost = killed - when
        return lost


@frozen
class Fault:
    """A mapping that is not what it may be.

    :param kind: lost, resurrected, or invented.
    """

    kind: str
    program: int
    found: Place
    possible: list[Place]


@define
class KillReport(Report[Fault]):
    """What came of the kills.

    :param changes: how many SETs and UNSETs were answered.
    :param behind: seconds before a kill, at most, since when something was not kept.
    :param disk: seconds, at most, for which the disk was waited for meanwhile.
    """

    kills: int = 0
    at_starts: int = 0
    changes: int = 0
    taken_back: int = 0
    behind: float = 0.0
    disk: float = 0.0

    def __str__(self) -> str:
        kinds = [fault.kind for fault in self.faults]
        counts = ", ".join(f"{kinds.count(k)} {k}" for k in ("lost", "resurrected", "invented"))
        return (
            f"{self.kills} kills, {self.at_starts} of them while it started; {self.changes} SETs "
            f"and UNSETs; {self.taken_back} mappings taken back; at most {self.behind:.2f} s "
            f"behind, with a disk that takes up to {self.disk:.2f} s; {counts}"
        )


class Victim:
    """The daemon.

    :param folder: where its sockets and its log are.
    :param state: its state file.
    :param options: further options of ``twistd portmapd``.
    """

    def __init__(self, folder: Path, state: Path, *options: str) -> None:
        self._path = str(folder / "rpc.sock")
        self._log = folder / "log"
        self._output = self._log.open("wb")
        self._state = state
        self._options = (f"--state={state}", *options)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def spawn(self) -> None:
        """Start it, and do not wait until it serves."""
        words = ("--port=0", f"--rpc-socket={self._path}", "--local-socket=none")
        self._process = start(self._output, *words, *self._options)

    def connect(self) -> None:
        """Wait until it serves."""
        process = self._process
        assert process is not None
        eventually(lambda: serves(process, self._path, self._log), "it serves")
        self._socket = connect_local(self._path)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Have it end by that signal."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def moment(self) -> float:
        """When the newest contents of its state file were made, in seconds since the boot."""
        moments: list[float] = []
        for slot in ("", *SLOTS):
            # A kill may have come while one was written.
            with suppress(FileNotFoundError, InvalidState):
                moments.append(decode_snapshot(Path(f"{self._state}{slot}").read_bytes()).moment)
        return max(moments)

    def close(self) -> None:
        """End it."""
        self.kill()
        self._output.close()

    def ask(self, procedure: RpcbProcedure, arguments: bytes = b"") -> Reader:
        """The results of a call of version 4."""
        assert self._socket is not None
        return results(self._socket, RPCBVERS4, procedure, arguments)

    def send(self, procedure: RpcbProcedure, arguments: bytes = b"") -> None:
        """Send a call of version 4."""
        assert self._socket is not None
        self._socket.sendall(mark(question(RPCBVERS4, procedure, arguments)))

    def table(self) -> dict[int, Place]:
        """What it has registered but for itself, by program."""
        rows = self.ask(RpcbProcedure.RPCBPROC_DUMP).sequence(read_rpcb)
        return {r.program: (r.address, r.owner) for r in rows if r.program != PROGRAM}


class Killing:
    """Kills, with changes between them.

    :param seconds: the longest time from a start to a kill.
    :param is_patient: whether a slow machine is no fault: then the file must have what was answered
        before it was made, whenever that was.
    """

    def __init__(
        self,
        victim: Victim,
        services: list[str],
        seconds: float,
        seed: int,
        *,
        is_patient: bool = False,
    ) -> None:
        self._is_patient = is_patient
        self._victim = victim
        self._services = services
        self._seconds = seconds
        self._random = random.Random(seed)
        self._histories = {FIRST + number: History() for number in range(PROGRAMS)}
        self._owner = ""
        self.report = KillReport()

    def start(self) -> None:
        """Start the daemon for the first time, and learn who it takes this user for."""
        self._victim.spawn()
        self._victim.connect()
        rpcb = Rpcb(FIRST, 1, "udp", self._services[0])
        self._victim.ask(RpcbProcedure.RPCBPROC_SET, encode_rpcb(rpcb))
        (place,) = self._victim.table().values()
        assert place is not None
        self._owner = place[1]
        self._histories[FIRST] = History(place)
        # It is to be in the file, like everything that a History has at its beginning.
        time.sleep(BEHIND)

    def kill(self) -> None:
        """Have changes made until a random moment, kill, start, and compare."""
        ends = now() + self._random.uniform(0, self._seconds)
        while now() < ends:
            self._change()
        # One call may be under way.
        under_way = self._random.random() < 0.5
        if under_way:
            self._change(answered=False)
        killed = now()
        self._victim.kill()
        kept = killed - BEHIND
        if self._is_patient:
            kept = min(kept, self._victim.moment)
        self.report.kills += 1
        self._victim.spawn()
        while not self._random.randrange(STARTS):
            time.sleep(self._random.uniform(0, START))
            self._victim.kill()
            self.report.kills += 1
            self.report.at_starts += 1
            self._victim.spawn()
        self._victim.connect()
        self._compare(self._victim.table(), killed, kept)

    def _change(self, *, answered: bool = True) -> None:
        program = self._random.choice(list(self._histories))
        history = self._histories[program]
        old = history.changes[-1][1] if history.changes else history.before
        new: Place = None if old else (self._random.choice(self._services), self._owner)
        rpcb = Rpcb(program, 1, "udp", new[0] if new else "")
        procedure = RpcbProcedure.RPCBPROC_SET if new else RpcbProcedure.RPCBPROC_UNSET
        if not answered:
            self._victim.send(procedure, encode_rpcb(rpcb))
        elif not self._victim.ask(procedure, encode_rpcb(rpcb)).boolean():
            raise AssertionError(f"{procedure.name} of {rpcb} was refused")
        history.changes.append((now(), new))
        self.report.changes += answered

    def _compare(self, table: dict[int, Place], killed: float, kept: float) -> None:
        for program in table.keys() - self._histories.keys():
            self.report.faults.append(Fault("invented", program, table[program], []))
        for program, history in self._histories.items():
            found, possible = table.get(program), history.possible(kept)
            if found not in possible:
                was = found in [history.before, *(place for _, place in history.changes)]
                kind = "lost" if found is None else "resurrected" if was else "invented"
                self.report.faults.append(Fault(kind, program, found, possible))
            self.report.behind = max(self.report.behind, history.behind(found, killed))
            self._histories[program] = History(found)
        self.report.taken_back += len(table)


def now() -> float:
    """The time, in seconds since the boot, as the file has it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def watch_disk(folder: Path, report: KillReport, end: Event) -> None:
    """Measure for how long the disk is waited for, until the end."""
    while not end.wait(0.2):
        began = now()
        with (folder / "probe").open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        report.disk = max(report.disk, now() - began)


def bound_services() -> Iterator[socket.socket]:
    """Sockets of services."""
    for _ in range(SERVICES):
        skt = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        skt.bind(("127.0.0.1", 0))
        yield skt


def run_kills(
    folder: Path, state: Path, kills: int, seconds: float, seed: int, *, is_patient: bool = False
) -> KillReport:
    """Kill a daemon so many times.

    :param folder: where its sockets are.
    :param state: its state file.
    :param seconds: the longest time from a start to a kill.
    :param is_patient: whether a slow machine is no fault.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(skt) for skt in bound_services()]
        # One address is bound by nobody: such a mapping is not the port mapper's to judge.
        services = [format_address(*skt.getsockname()) for skt in sockets] + ["127.0.0.1.0.9"]
        victim = Victim(folder, state)
        stack.callback(victim.close)
        killing = Killing(victim, services, seconds, seed, is_patient=is_patient)
        killing.start()
        end = Event()
        watch = Thread(target=watch_disk, args=(state.parent, killing.report, end))
        stack.callback(watch.join)
        stack.callback(end.set)
        watch.start()
        while killing.report.kills < kills and not killing.report.faults:
            killing.kill()
            killing.report.show()
    return killing.report


def main() -> int:
    """Read the options, and print the report."""
    parser = argparse.ArgumentParser(prog="kills")
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    with TemporaryDirectory() as scratch, TemporaryDirectory(dir=options.folder) as state:
        print(f"seed {options.seed}", flush=True)
        report = run_kills(
            Path(scratch), Path(state, "mappings"), options.kills, options.seconds, options.seed
        )
    return report.conclude()


if __name__ == "__main__":
    sys.exit(main())
