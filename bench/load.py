"""The load generator: load.c and its parts, compiled and run against a server."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bench import MeasureError
from bench.servers import BUILD, HOST, TOP, Running

Figures = Mapping[str, float]
"""What a turn gave: figures by their names; see :func:`read` for those of the load generator."""

FIRST_PROGRAM = 0x20000000
"""The first program that the benchmark registers (RFC 5531, section 8.5: user-defined)."""

RUN_LIMIT = 900.0
"""Seconds after which a run is given up."""

_CC = ("cc", "-std=c11", "-O2", "-Wall", "-Wextra")
_PARTS = {
    "load": ("load", "window", "samples", "udp", "tcp", "names", "channel", "epmd"),
    "loop": ("loop",),
}
_CHANNEL_MODES = {"register", "enter", "lookup", "hold"}


def programs(count: int, *, random: bool = False) -> str:
    """So many programs, as the generator's option has them.

    :param random: they are called at random; otherwise in turn.
    """
    return f"{FIRST_PROGRAM}:{count}" + (":random" if random else "")


TEN = programs(10)


def build() -> None:
    """Compile the load generator and the C loop.

    :raises MeasureError: one does not compile; the compiler's first error.
    """
    BUILD.mkdir(exist_ok=True)
    for program, parts in _PARTS.items():
        sources = [str(TOP / "bench" / f"{part}.c") for part in parts]
        # Another run may execute the program meanwhile.
        new = BUILD / f"{program}.{os.getpid()}"
        command = [*_CC, "-o", str(new), *sources]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise MeasureError(f"{program} does not compile: {(errors or [done.stderr])[0]}")
        new.replace(BUILD / program)


def command(target: Running, mode: str, *options: str) -> list[str]:
    """The command line of the load generator against a server; see load.c."""
    server = target.server
    local = server.path if mode in _CHANNEL_MODES else None
    address = [local] if local else [HOST, str(server.port)]
    return [str(BUILD / "load"), mode, *address, *options]


def read(document: str, server_waited: float = 0.0) -> dict[str, float]:
    """The figures of one run of the load generator.

    :param server_waited: seconds that the server waited for a processor meanwhile.
    :return: ``rate`` (right answers a second), ``answered``, ``wrong``, ``lost`` (calls sent
        again), ``seconds``, ``busy`` (the share of them that the generator worked), ``ceiling``
        (the rate at which it would have worked all the time), ``waited`` (the share that generator
        or server, whichever longer, waited for a processor), latencies ``p50_us``, ``p99_us``,
        ``max_us``, and after a DUMP ``mappings``.
    """
    seen: dict[str, float] = json.loads(document)
    seen["waited"] = max(seen["waited"], server_waited) / seen["seconds"]
    seen["ceiling"] = seen["rate"] / max(seen["busy"], 1e-4)
    return seen


def run(target: Running, mode: str, *options: str) -> Figures:
    """Put load on a server.

    :raises MeasureError: an answer was wrong, or none came.
    """
    name, waited = target.server.name, target.waited_seconds()
    line = command(target, mode, *options)
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=RUN_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasureError(f"{name}: {mode} took over {RUN_LIMIT:g} s") from error
    if not done.stdout:
        raise MeasureError(f"{name}: {done.stderr.strip()}")
    figures = read(done.stdout, target.waited_seconds() - waited)
    if figures["wrong"] or not figures["answered"]:
        raise MeasureError(f"{name}: {figures['wrong']:.0f} wrong answers to {mode}")
    return figures


@contextmanager
def calling(
    target: Running, rate: float, seconds: float, *, lead: float = 0.0, in_flight: int = 1_000
) -> Iterator[dict[str, float]]:
    """Call GETPORT over UDP at a constant rate in the block, answered or not.

    :param rate: calls a second; a call's latency counts from when it was due.
    :param seconds: the longest time.
    :param lead: seconds of calls before the block.
    :param in_flight: calls that wait for their answers at most; others that are due are sent later.
    :return: gets the figures of the load generator at the end.
    :raises MeasureError: no call was answered for five seconds.
    """
    waited = target.waited_seconds()
    known = ("--programs", TEN, "--check-ports", "--seconds", str(seconds))
    paced = ("--rate", str(rate), "--in-flight", str(in_flight))
    line = command(target, "udp", *known, *paced)
    figures: dict[str, float] = {}
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(lead)
        try:
            yield figures
        finally:
            process.terminate()
        document = process.communicate()[0]
    if not document:
        raise MeasureError(f"{target.server.name}: GETPORT was not answered for five seconds")
    figures |= read(document, target.waited_seconds() - waited)


def register(target: Running, wanted: str, *options: str) -> Figures:
    """SET these programs, version 1, each at the port that load.c derives from its number."""
    return run(target, "set", "--programs", wanted, *options)
