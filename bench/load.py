"""Runs of the load generator (load.c)."""

import json
import subprocess

from attrs import evolve, frozen

from bench.errors import MeasureError
from bench.probe import HOST
from bench.process import waited_seconds
from bench.programs import LOAD
from bench.servers import Running, Server

FIRST_PROGRAM = 0x20000000
"""The first of the programs that the benchmark registers (RFC 5531, section 8.5: user-defined)."""

DISTURBED = 0.05
"""The share of a run that a process waits for a processor; on a calm machine it is 0 to 0.02."""

_LIMIT = 900.0
"""Seconds after which a run is given up."""


@frozen
class Load:
    """What one run of the load generator saw.

    answered, wrong: calls with a right and with another answer.
    lost: calls that had to be sent again.
    seconds: how long it ran.
    rate: right answers a second.
    busy: the share of the time (0 to 1) that the generator worked; the rest it waited.
    waited: seconds that the generator or the server, whichever longer, waited for a processor.
    p50_us, p99_us, max_us: latency in microseconds.
    mappings: in the last DUMP; 0 if there was none.
    """

    answered: int
    lost: int
    wrong: int
    seconds: float
    rate: float
    busy: float
    waited: float
    p50_us: float
    p99_us: float
    max_us: float
    mappings: int = 0

    @property
    def disturbed(self) -> bool:
        """Whether other work on the machine took part in the result."""
        return self.waited > DISTURBED * self.seconds


@frozen
class Programs:
    """Programs FIRST_PROGRAM and on.

    count: how many.
    random: asked for at random; otherwise in turn.
    """

    count: int
    random: bool = False

    def __str__(self) -> str:
        return f"{FIRST_PROGRAM}:{self.count}" + (":random" if self.random else "")


TEN = Programs(10)


def ask(server: Running, mode: str, *options: str) -> Load:
    """Run the load generator against a server.

    mode: udp, tcp, dump or set; options: see load.c.

    Raises MeasureError for a wrong answer, no answer, or none at all.
    """
    return _run(server, command(mode, HOST, str(server.port), *options))


def ask_names(server: Running, mode: str, *options: str) -> Load:
    """Run it against a server of named services: portmapd's local channel, or epmd.

    mode: register, enter or lookup; the rest as for ask().
    """
    return _run(server, command(mode, *where_names(server.server), *options))


def where_names(server: Server) -> tuple[str, ...]:
    """The load generator's arguments for a server of named services."""
    return (server.path,) if server.path else (HOST, str(server.port))


def command(mode: str, *arguments: str) -> list[str]:
    """The load generator's command line."""
    return [str(LOAD), mode, *arguments]


def read(document: str) -> Load:
    """What a run of the load generator printed."""
    return Load(**json.loads(document))


def _run(server: Running, command: list[str]) -> Load:
    name, mode = server.server.name, command[1]
    before = waited_seconds(server.pid)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasureError(f"{name}: {mode} took over {_LIMIT:g} s") from error
    if not done.stdout:
        raise MeasureError(f"{name}: {done.stderr.strip()}")
    seen = read(done.stdout)
    seen = evolve(seen, waited=max(seen.waited, waited_seconds(server.pid) - before))
    if seen.wrong or not seen.answered:
        raise MeasureError(f"{name}: {seen.wrong} wrong answers to {mode}")
    return seen


def register(server: Running, programs: Programs, *options: str) -> Load:
    """SET the programs, version 1; each at the port that load.c derives from its number."""
    return ask(server, "set", "--programs", str(programs), *options)
