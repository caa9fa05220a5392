"""Many connections that come, stay and go at once, and what GETPORT callers notice of it."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from attrs import evolve, field, frozen

from bench.errors import MeasureError
from bench.held import Crowd, Names, holding
from bench.listing import Listing, listing
from bench.load import TEN, Load, command, read, register
from bench.plan import Plan
from bench.probe import HOST
from bench.process import resident_bytes, waited_seconds
from bench.rows import Row, below, in_turn
from bench.servers import Running, portmapd, running
from bench.speed import known

EACH = 10
"""Names that each connection registers."""

PROCESSES = 10
"""That share the connections."""

RATE = 2_000
"""GETPORT calls a second meanwhile."""

SETTLE = 1.0
"""Seconds for a server to come to rest."""

LOOK_AGAIN = 0.005
"""Seconds from one listing to the next while names disappear."""

GONE_LIMIT = 30.0
"""Seconds after which names that stay are given up."""

SAMPLE = 20
"""Names that stand for all of them until they are gone; then everything is listed."""

_LEAD = 0.02


@frozen
class Storm:
    """One round.

    coming, going: GETPORT while the connections are made, and while they break.
    registering_seconds: until all are made and every name is registered.
    resident: bytes that a connection with its names added.
    gone_seconds: from the end of the clients to an empty listing.
    """

    coming: Load
    registering_seconds: float
    resident: float
    going: Load
    gone_seconds: float


@frozen
class Meanwhile:
    """GETPORT calls in a process of their own; seen has its result once they have ended."""

    seen: list[Load] = field(factory=list)

    @property
    def load(self) -> Load:
        """What they saw."""
        return self.seen[0]


def storm(plan: Plan) -> list[Row]:
    """Connections of many clients: made at once, held, and broken at once."""
    names = Names(plan.names // EACH, EACH)
    (rounds,) = in_turn(plan.storms, partial(_round, names))
    label = f"{names.connections:,} connections of {EACH} names"
    gone = f"{names.count:,} names gone after their clients were killed"
    return [
        _row(f"{label}: registered", "s", [each.registering_seconds for each in rounds]),
        _row(f"{label}: resident, each", "KB", [each.resident / 1024 for each in rounds], 8),
        _row(gone, "s", [each.gone_seconds for each in rounds], 0.5),
        *_calls("GETPORT while they register", [each.coming for each in rounds]),
        *_calls("GETPORT while they disappear", [each.going for each in rounds]),
    ]


def _round(names: Names) -> Storm:
    server_of_all = portmapd(211, "--max-services", str(names.count))
    with running(server_of_all) as server, ExitStack() as clients:
        register(server, TEN)
        before = resident_bytes(server.pid)
        with _getport(server) as coming:
            began = time.perf_counter()
            crowd = clients.enter_context(holding(server, names, PROCESSES))
            registering = time.perf_counter() - began
        _require_all(crowd, names)
        time.sleep(SETTLE)
        resident = (resident_bytes(server.pid) - before) / names.connections
        with listing(server) as registry, _getport(server) as going:
            gone = _kill(crowd, names, registry)
    return Storm(coming.load, registering, resident, going.load, gone)


@contextmanager
def _getport(server: Running) -> Iterator[Meanwhile]:
    """Call at a constant rate meanwhile."""
    before = waited_seconds(server.pid)
    options = ("--rate", str(RATE), "--in-flight", "1000", "--seconds", str(GONE_LIMIT))
    line = command("udp", HOST, str(server.port), *known(TEN), *options)
    meanwhile = Meanwhile()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(_LEAD)
        try:
            yield meanwhile
        finally:
            process.terminate()
        document = process.communicate()[0]
    if not document:
        raise MeasureError("portmapd: GETPORT was not answered for five seconds")
    waited = waited_seconds(server.pid) - before
    meanwhile.seen.append(evolve(read(document), waited=waited))


def _require_all(crowd: Crowd, names: Names) -> None:
    if crowd.registered != names.count:
        raise MeasureError(f"portmapd registered {crowd.registered} of {names.count} names")


def _kill(crowd: Crowd, names: Names, registry: Listing) -> float:
    """Kill the clients; seconds until nothing of them is listed."""
    sample = [f"service-{n:08}" for n in range(EACH - 1, names.count, names.count // SAMPLE)]
    if not registry.any_of(sample):
        raise MeasureError("portmapd does not list what was registered")
    began = time.perf_counter()
    crowd.kill()
    while registry.any_of(sample) or not registry.is_empty():
        if time.perf_counter() - began > GONE_LIMIT:
            raise MeasureError("names of killed clients are still listed")
        time.sleep(LOOK_AGAIN)
    return time.perf_counter() - began


def _row(what: str, unit: str, figures: Sequence[float], bound: float | None = None) -> Row:
    goal = None if bound is None else below(bound, unit)
    return Row(what, unit, median(figures), goal=goal, note=_spread(figures, unit))


def _spread(figures: Sequence[float], unit: str) -> str:
    return f"{min(figures):.2f} to {max(figures):.2f} {unit} in {len(figures)} rounds"


def _calls(what: str, loads: Sequence[Load]) -> list[Row]:
    """Rows of the calls' latency, and of those that were not answered at once."""
    lost = sum(load.lost for load in loads)
    asked = sum(load.answered for load in loads)
    p99 = _row(f"{what}: p99", "ms", [load.p99_us / 1000 for load in loads], 5)
    waited = _spread([load.waited / load.seconds * 100 for load in loads], "%")
    return [
        evolve(p99, note=f"{p99.note}; the server waited for a processor {waited}"),
        _row(f"{what}: slowest", "ms", [load.max_us / 1000 for load in loads]),
        Row(f"{what}: sent again, of {asked:,} calls", "", float(lost), goal=below(1, "")),
    ]
