"""Clients that register names and keep their connections: processes of the load generator."""

import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from attrs import frozen

from bench import MeasureError
from bench.load import command, read
from bench.servers import Running

SPARE = 2_000
"""Descriptors that a server needs besides those of its clients' connections."""

#: Back to the ordinary priority: only servers and load come first.
_ORDINARY = ("nice", "-n", "20")


@frozen
class Names:
    """The load generator's names, ``service-N`` for N from ``first`` on.

    :param connections: how many register them.
    :param each: names on each connection.
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

    def parts(self, number: int) -> list["Names"]:
        """Equal parts; ``number`` divides the connections."""
        size = self.connections // number
        return [Names(size, self.each, n * size * self.each) for n in range(number)]


@frozen
class Holders:
    """Processes that hold names.

    :param registered: how many names the server took.
    """

    processes: Sequence[subprocess.Popen[str]]
    registered: int

    def kill(self) -> None:
        """Kill all of them at once (SIGKILL)."""
        for process in self.processes:
            process.kill()


@contextmanager
def holding(
    target: Running, names: Names, processes: int = 1, *, some: bool = False
) -> Iterator[Holders]:
    """Have processes register these names; yield once every registration is answered.

    :param some: the server may refuse some of them.
    :raises MeasureError: a process has too few descriptors for that, or fails, or is refused.
    """
    _require_descriptors(names.connections)
    with ExitStack() as stack:
        started = [_start(stack, target, part) for part in names.parts(processes)]
        holders = Holders(started, sum(_registered(target, process) for process in started))
        if holders.registered != names.count and not some:
            took = f"registered {holders.registered} of {names.count} names"
            raise MeasureError(f"{target.server.name} {took}")
        yield holders


def _start(stack: ExitStack, target: Running, names: Names) -> subprocess.Popen[str]:
    sizes = ("--connections", str(names.connections), "--each", str(names.each))
    line = (*_ORDINARY, *command(target, "hold", "--names", str(names), *sizes))
    pipe = subprocess.PIPE
    process = stack.enter_context(subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True))
    stack.callback(process.kill)
    return process


def _registered(target: Running, process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    assert process.stderr is not None
    if line := process.stdout.readline():
        return int(read(line)["answered"])
    raise MeasureError(f"{target.server.name}: {process.stderr.read().strip()}")


def _require_descriptors(connections: int) -> None:
    """portmapd takes as many connections as three quarters of its descriptors."""
    wanted = connections * 4 // 3 + SPARE
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < wanted:
        raise MeasureError(
            f"{connections:,} connections take a hard limit of {wanted:,} open files; "
            f"here it is {limit:,} (ulimit -Hn)"
        )
