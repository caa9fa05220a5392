"""A daemon whose place another process takes again and again while everything is asked of it.

``python -m tests.support.handovers [--handovers N]`` prints what came of it, and ends with status 1
if a call was not answered, a connection was lost, or a watcher missed a change.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from attrs import define

from portmapd.channel import commands as c
from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.netid import format_address
from portmapd.oncrpc.program import Pmap, Rpcb, RpcbProcedure, encode_pmap, encode_rpcb
from portmapd.oncrpc.xdr import Reader
from tests.support.daemon import ERRORS, TWISTD
from tests.support.exchange import (
    PATIENCE,
    connect,
    connect_local,
    exchange,
    question,
    results,
)
from tests.support.host import served_port, start
from tests.support.namespace import eventually
from tests.support.report import Report
from tests.support.talk import Talk

#: After so many seconds a caller over UDP sends its call again.
RETRANSMIT = 1.0
#: A program, and a name, that are registered all the time; and a name that comes and goes.
PROGRAM, LASTING, COMING = 200_000, "lasting.example.com", "coming.example.com"
#: What GETPORT is asked for.
LOOKUP = encode_pmap(Pmap(PROGRAM, 1, 17))
#: So much of a log is shown, in characters.
_TAIL = 4_000
#: The signal that restarts the daemon.
RESTART = signal.SIGUSR2


class Dynasty:
    """A daemon, and those that take its place.

    :param folder: where its sockets, its log and its pid file are.
    :param options: further options of ``twistd portmapd``.
    :ivar rpc: the path of its rpcbind socket.
    :ivar channel: that of its local channel.
    :ivar port: the port that it serves.
    """

    def __init__(self, folder: Path, *options: str, twistd: tuple[str, ...] = (TWISTD,)) -> None:
        self._folder = folder
        self.rpc, self.channel = str(folder / "rpc.sock"), str(folder / "portmapd.sock")
        words = (
            "--port=0",
            f"--rpc-socket={self.rpc}",
            f"--local-socket={self.channel}",
            f"--state={folder}/mappings",
            *options,
        )
        with (folder / "log").open("wb") as log:
            self._first = start(log, *words, pid_file=f"{folder}/pid", twistd=twistd)
        eventually(self._serves, "the daemon serves")
        self.port = served_port(self.rpc)

    def _serves(self) -> bool:
        assert self._first.poll() is None, self.log
        return " serving port " in self.log

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self._folder / "log").read_text()

    @property
    def pid(self) -> int:
        """The process that serves."""
        return int((self._folder / "pid").read_text())

    def hand_over(self, ask: Callable[[int], object] | None = None) -> int:
        """Have another process take its place.

        :param ask: asks the process for it; None: a signal does.
        :return: the process that serves now.
        """
        pid = self.pid
        with watched(pid) as ended:
            (ask or (lambda pid: os.kill(pid, RESTART)))(pid)
            assert ended(), f"pid {pid} goes on:\n{self.log[-_TAIL:]}"
        if pid == self._first.pid:
            assert self._first.wait() == 0
        return self.pid

    def stop(self) -> None:
        """End it by SIGTERM, unless it has ended."""
        if (self._folder / "pid").exists():
            pid = self.pid
            with watched(pid) as ended:
                os.kill(pid, signal.SIGTERM)
                assert ended(), f"pid {pid} goes on:\n{self.log[-_TAIL:]}"
        self._first.wait(PATIENCE)
        said = self.log
        assert not any(error in said for error in ERRORS), said


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], bool]]:
    """In the block, have a function that waits for a process, and says whether it has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        yield lambda: bool(poll.poll(PATIENCE * 1000))
    finally:
        os.close(pidfd)


@contextmanager
def dynasty(*options: str, twistd: tuple[str, ...] = (TWISTD,)) -> Iterator[Dynasty]:
    """Run a daemon in the block that others may succeed."""
    with TemporaryDirectory(prefix="portmapd-") as name:
        running = Dynasty(Path(name), *options, twistd=twistd)
        try:
            yield running
        finally:
            running.stop()


@define
class HandoverReport(Report[str]):
    """What came of the hand-overs.

    :param calls: how many calls over UDP were answered, and how many of them were sent twice.
    :param records: how many calls were answered over one TCP stream.
    :param changes: how many changes a watcher was told of.
    :param longest: seconds that the slowest answer over UDP took.
    """

    handovers: int = 0
    calls: int = 0
    repeated: int = 0
    records: int = 0
    changes: int = 0
    longest: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.handovers} hand-overs; {self.calls} calls over UDP, {self.repeated} of them "
            f"sent twice, the slowest answered after {self.longest * 1000:.0f} ms; {self.records} "
            f"calls over one stream; {self.changes} changes watched; {len(self.faults)} faults"
        )


class Load:
    """Callers, clients and a watcher, each in a thread.

    :param host: the daemon.
    :param report: is told what comes of it.
    """

    def __init__(self, host: Dynasty, report: HandoverReport) -> None:
        self._host = host
        self._report = report
        self._end = Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have it in the block."""
        works = (self._datagrams, self._stream, self._changes)
        threads = [Thread(target=self._work, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (EOFError, OSError, AssertionError) as error:
            self._report.faults.append(f"{work.__name__}: {error!r}")

    def _datagrams(self) -> None:
        with connect(socket.SOCK_DGRAM, "127.0.0.1", self._host.port) as skt:
            skt.settimeout(RETRANSMIT)
            while not self._end.is_set():
                began = time.monotonic()
                call = question(2, 3, LOOKUP)
                try:
                    reply = exchange(skt, call)
                except TimeoutError:
                    self._report.repeated += 1
                    reply = exchange(skt, call)
                while reply[:4] != call[:4]:
                    reply = skt.recv(65_535)
                assert Reader(decode_reply(reply)).uint(), "the mapping is lost"
                self._report.longest = max(self._report.longest, time.monotonic() - began)
                self._report.calls += 1

    def _stream(self) -> None:
        with connect(socket.SOCK_STREAM, "127.0.0.1", self._host.port) as skt:
            while not self._end.is_set():
                assert results(skt, 2, 3, LOOKUP).uint(), "the mapping is lost"
                self._report.records += 1
                time.sleep(0.001)

    def _changes(self) -> None:
        """Have a name come and go, and compare what a watcher is told."""
        made: list[tuple[str, str]] = []
        with Talk(self._host.channel) as talk, Talk(self._host.channel) as watcher:
            watcher.ask(c.WATCH, names=[COMING])
            while not self._end.is_set():
                port = str(len(made) % 60_000 + 1)
                talk.register((COMING, port, 0))
                talk.deregister((COMING, port))
                made += [("registered", port), ("deregistered", port)]
                told = [watcher.event() for _ in range(2)]
                seen = [(event[0], event[4]) for event in told]
                assert seen == made[-2:], f"{seen} in place of {made[-2:]}"
                self._report.changes += len(told)
                time.sleep(0.001)


def run_handovers(count: int, *options: str) -> HandoverReport:
    """Hand a daemon over so many times."""
    report = HandoverReport()
    with ExitStack() as stack:
        host = stack.enter_context(dynasty(*options))
        service = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        service.bind(("127.0.0.1", 0))
        rpcb = Rpcb(PROGRAM, 1, "udp", format_address(*service.getsockname()))
        with connect_local(host.rpc) as skt:
            assert results(skt, 4, RpcbProcedure.RPCBPROC_SET, encode_rpcb(rpcb)).boolean()
        lasting = stack.enter_context(Talk(host.channel))
        lasting.register((LASTING, "1", 0))
        stack.enter_context(Load(host, report).running())
        while report.handovers < count and not report.faults:
            host.hand_over()
            report.handovers += 1
            if [row[2] for row in lasting.services(names=[LASTING])] != [os.getpid()]:
                report.faults.append(f"{LASTING} is not registered any more")
            report.show()
    return report


def main() -> int:
    """Read the options, and print the report."""
    parser = argparse.ArgumentParser(prog="handovers")
    parser.add_argument("--handovers", type=int, default=100)
    return run_handovers(parser.parse_args().handovers).conclude()


if __name__ == "__main__":
    sys.exit(main())
