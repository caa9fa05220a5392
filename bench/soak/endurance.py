"""Load that lasts: is the server at its end what it was at its beginning?"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median
from types import MappingProxyType

from attrs import evolve, frozen

from bench.load import TEN, calling, register, run
from bench.servers import THIS, Running, running
from bench.soak.fairness import DELAY, require_no_error
from bench.soak.hostile import MIXED
from bench.soak.ordinary import BYSTANDERS, CLIENTS, CROWD
from bench.soak.process import Seen, playing
from bench.soak.role import Target

SHARE = 0.8
"""The share of the highest rate at which GETPORT is called."""

HOSTILE_SHARE = 0.01
"""How many hostile acts there are for each call."""

QUARTERS = 4

SLICE = 10.0
"""Seconds of load, at most, that are measured in one piece."""

LOOK = 0.25
"""Seconds from one look at memory and descriptors to the next."""

FLAT = 0.02
"""The share by which memory and descriptors may grow from the second to the last quarter."""

IN_FLIGHT = 200
"""Calls that wait for their answers at most. The queue of a UDP socket has room for some 270."""

LOST = 1e-4
"""The share of datagrams that may have to be sent again: a machine that does something else for
a moment drops them."""

HEADS = (
    *("quarter", "calls", "wrong", "sent again", "p50", "p99", "max", "MB", "descriptors"),
    *("CPU", "waited"),
)
LEFT = {0}


@frozen
class Slice:
    """What was measured in a piece of the time, or in several of them.

    :param p50: of GETPORT, in milliseconds, as `p99` and `slowest`.
    :param lost: calls that were sent again.
    :param resident: bytes of memory, at an average.
    :param descriptors: at an average.
    :param share: the share of a processor that the daemon had, and `waited` that it wanted.
    """

    answered: float
    wrong: float
    lost: float
    p50: float
    p99: float
    slowest: float
    resident: float
    descriptors: float
    share: float
    waited: float

    def cells(self) -> Iterator[str]:
        """Its row of the table."""
        yield from (f"{value:,.0f}" for value in (self.answered, self.wrong, self.lost))
        yield from (f"{value:.2f}" for value in (self.p50, self.p99, self.slowest))
        yield f"{self.resident / 1e6:.2f}"
        yield f"{self.descriptors:,.1f}"
        yield from (f"{100 * value:.0f} %" for value in (self.share, self.waited))


#: How a field is made of those of several pieces.
_OVER: Mapping[str, Callable[[Sequence[float]], float]] = MappingProxyType(
    {
        "answered": sum,
        "wrong": sum,
        "lost": sum,
        "p50": median,
        "p99": median,
        "slowest": max,
        "resident": fmean,
        "descriptors": fmean,
        "share": fmean,
        "waited": fmean,
    }
)


def together(slices: Sequence[Slice]) -> Slice:
    """What was measured in several pieces."""
    values = {name: [getattr(each, name) for each in slices] for name in _OVER}
    return Slice(**{name: over(values[name]) for name, over in _OVER.items()})


@frozen
class Promise:
    """What is promised.

    :param figure: what was measured.
    """

    what: str
    figure: str
    is_kept: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.figure}: {'kept' if self.is_kept else 'BROKEN'}"


@frozen
class Endurance:
    """What came of load that lasted.

    :param rate: GETPORT calls a second over UDP.
    :param quarters: what was measured in each quarter of the time.
    :param crowd: what the streams, the local clients and the caller of forwarded calls saw.
    :param hostile: what the hostile peer saw.
    """

    rate: float
    quarters: Sequence[Slice]
    crowd: dict[str, Seen]
    hostile: Seen

    def promises(self, flat: float, *, is_timed: bool) -> Iterator[Promise]:
        """What was promised.

        :param flat: the share by which memory and descriptors may grow.
        :param is_timed: whether times are promised, too.
        """
        whole, (_, second, _, last) = together(self.quarters), self.quarters
        errors = whole.wrong + sum(seen.failures for seen in self.crowd.values())
        yield Promise("no error", f"{errors:.0f}", not errors)
        for what in ("resident", "descriptors"):
            grown = getattr(last, what) / getattr(second, what) - 1
            yield Promise(f"{what} flat within {flat:.0%}", f"{grown:+.2%}", grown <= flat)
        if is_timed:
            lost = whole.lost / max(1, whole.answered)
            yield Promise(f"at most {LOST:.2%} sent again", f"{lost:.4%}", lost <= LOST)
            p99 = max(quarter.p99 for quarter in self.quarters)
            yield Promise(f"p99 within {DELAY:.0f} ms", f"{p99:.2f} ms", p99 <= DELAY)


def endure(seconds: float, rate: float | None, scale: float, folder: Path) -> Endurance:
    """Put load on a daemon.

    :param seconds: how long it is measured.
    :param rate: GETPORT calls a second; None: :data:`SHARE` of the highest rate.
    :param scale: the share of the streams and local clients.
    :param folder: where the daemon's log goes.
    :raises MeasureError: nothing could be measured, or the daemon failed.
    """
    server = THIS.portmapd("--max-services", str(2 * CLIENTS))
    place = Target(server.port, server.path or "", scale)
    roles = {**CROWD, "forwarded": BYSTANDERS["forwarded"]}
    with running(server, folder) as target, ExitStack() as stack:
        register(target, TEN)
        crowd = {
            name: stack.enter_context(playing(name, role, place, is_prepared=True))
            for name, role in roles.items()
        }
        wanted = rate or SHARE * highest(target)
        acts = evolve(MIXED, period=1 / (HOSTILE_SHARE * wanted))
        hostile = stack.enter_context(playing("hostile", acts, place, is_prepared=True))
        # The hostile peer takes its part, too.
        wanted = rate or SHARE * highest(target)
        quarters = [_quarter(target, wanted, seconds / QUARTERS) for _ in range(QUARTERS)]
        stack.close()
        require_no_error(target)
    return Endurance(wanted, quarters, {name: seen for name, (seen,) in crowd.items()}, hostile[0])


def highest(target: Running) -> float:
    """The highest rate of GETPORT over UDP."""
    return median(run(target, "udp", "--seconds", "1")["rate"] for _ in range(3))


def _quarter(target: Running, rate: float, seconds: float) -> Slice:
    parts = max(1, round(seconds / SLICE))
    return together([_slice(target, rate, seconds / parts) for _ in range(parts)])


def _slice(target: Running, rate: float, seconds: float) -> Slice:
    processor = target.cpu_seconds()
    memory, descriptors = [], []
    ends = time.monotonic() + seconds
    with calling(target, rate, seconds, in_flight=IN_FLIGHT) as figures:
        while time.monotonic() < ends:
            memory.append(target.resident_bytes())
            descriptors.append(target.descriptors())
            time.sleep(LOOK)
    return Slice(
        answered=figures["answered"],
        wrong=figures["wrong"],
        lost=figures["lost"],
        p50=figures["p50_us"] / 1_000,
        p99=figures["p99_us"] / 1_000,
        slowest=figures["max_us"] / 1_000,
        resident=fmean(memory),
        descriptors=fmean(descriptors),
        share=(target.cpu_seconds() - processor) / figures["seconds"],
        waited=figures["waited"],
    )
