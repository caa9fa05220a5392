"""Clients that register names and keep their connections: processes of the load generator."""

import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from attrs import frozen

from bench.errors import MeasureError
from bench.load import Load, command, read, where_names
from bench.process import ORDINARY, set_priority
from bench.servers import Running

SPARE = 2_000
"""Descriptors that a process needs besides those of its clients' connections."""


@frozen
class Names:
    """Names of the load generator: service-N for N from first on.

    connections: how many hold them; each: how many each of these holds.
    """

    connections: int
    each: int = 1
    first: int = 0

    def __str__(self) -> str:
        return f"{self.first}:{self.count}"

    @property
    def count(self) -> int:
        """How many names."""
        return self.connections * self.each

    def part(self, number: int, parts: int) -> "Names":
        """One of so many equal parts; the last has what is left over."""
        size, begin = self.connections // parts, number * (self.connections // parts)
        size = self.connections - begin if number == parts - 1 else size
        return Names(size, self.each, self.first + begin * self.each)


@frozen
class Crowd:
    """Processes that hold names.

    loads: what each saw while it registered them.
    """

    processes: Sequence[subprocess.Popen[str]]
    loads: Sequence[Load]

    @property
    def registered(self) -> int:
        """Names that the server took."""
        return sum(load.answered for load in self.loads)

    def kill(self) -> None:
        """End all of them at once (SIGKILL)."""
        for process in self.processes:
            process.kill()


@contextmanager
def holding(server: Running, names: Names, processes: int = 1) -> Iterator[Crowd]:
    """Have so many processes register these names, and yield once all are answered.

    Raises MeasureError when there are too few descriptors for that, or a process fails.
    """
    _require_descriptors(names.connections)
    with ExitStack() as started:
        crowd = [
            started.enter_context(_process(server, names.part(number, processes)))
            for number in range(processes)
        ]
        yield Crowd(crowd, [_registered(server, process) for process in crowd])


def hold_all(server: Running, names: Names, stack: ExitStack) -> None:
    """Hold these names until the stack is left; raises MeasureError unless all are taken."""
    crowd = stack.enter_context(holding(server, names))
    if crowd.registered != names.count:
        name = server.server.name
        raise MeasureError(f"{name} registered {crowd.registered} of {names.count} names")


@contextmanager
def _process(server: Running, names: Names) -> Iterator[subprocess.Popen[str]]:
    sizes = ("--connections", str(names.connections), "--each", str(names.each))
    line = command("hold", *where_names(server.server), "--names", str(names), *sizes)
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        set_priority(process.pid, ORDINARY)
        try:
            yield process
        finally:
            process.kill()


def _registered(server: Running, process: subprocess.Popen[str]) -> Load:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        raise MeasureError(f"{server.server.name}: {process.stderr.read().strip()}")
    return read(line)


def _require_descriptors(connections: int) -> None:
    """Portmapd takes as many connections as three quarters of its descriptors."""
    wanted = connections * 4 // 3 + SPARE
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < wanted:
        raise MeasureError(
            f"{connections:,} connections take a hard limit of {wanted:,} open files; "
            f"here it is {limit:,} (ulimit -Hn)"
        )
