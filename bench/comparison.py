"""Rows from rounds of load: portmapd's runs beside a peer's, disturbed rounds set aside."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from attrs import frozen

from bench.load import Load
from bench.rows import Goal, Row

WORN_OUT = 0.9
"""The share of work above which the load generator may be what limits the rate."""

Loads = Sequence[Load]
Figure = Callable[[Load], float]
Pairs = list[tuple[Load, Load]]


@frozen
class Comparison:
    """The runs of two servers in the same rounds.

    mine, theirs: a run a round; peer: whose theirs are.
    calm_rounds: how many undisturbed rounds are enough to set the disturbed ones aside.
    """

    mine: Loads
    peer: str
    theirs: Loads
    calm_rounds: int

    def rates(self, what: str, goal: Goal) -> Row:
        """A row of right answers a second."""
        return self._row((what, "/s"), _rate, _rate, goal)

    def latencies(self, what: str, figure: Figure) -> Row:
        """A row of microseconds, for information."""
        return self._row((what, "µs"), figure, figure, None)

    def ceiling(self, what: str, goal: Goal) -> Row:
        """The rate at which the load generator would work all the time, beside the peer's rate.

        It is computed from the time that the generator worked for a call.
        """
        return self._row((what, "/s"), _ceiling, _rate, goal)

    def _row(self, label: tuple[str, str], ours: Figure, theirs: Figure, goal: Goal | None) -> Row:
        counted, aside = self._rounds()
        our_figures = [ours(mine) for mine, _ in counted]
        their_figures = [theirs(peer) for _, peer in counted]
        return Row(
            *label,
            ours=median(our_figures),
            peer=self.peer,
            theirs=median(their_figures),
            ratios=tuple(a / b for a, b in zip(our_figures, their_figures, strict=True)),
            set_aside=tuple(ours(mine) / theirs(peer) for mine, peer in aside),
            goal=goal,
            note="; ".join(self._notes()),
        )

    def _rounds(self) -> tuple[Pairs, Pairs]:
        """The rounds that count and those that do not."""
        both = list(zip(self.mine, self.theirs, strict=True))
        calm = [pair for pair in both if not _disturbed(pair)]
        if len(calm) < self.calm_rounds:
            return both, []
        return calm, [pair for pair in both if _disturbed(pair)]

    def _notes(self) -> Iterator[str]:
        """What makes the row less than it seems."""
        disturbed = sum(map(_disturbed, zip(self.mine, self.theirs, strict=True)))
        if disturbed:
            kept = "set aside" if self._rounds()[1] else "yet counted, for too few were calm"
            yield f"{disturbed} of {len(self.mine)} rounds were disturbed, {kept}"
        yield from _doubts("portmapd", self.mine)
        yield from _doubts(self.peer, self.theirs)


def alone(what: str, loads: Loads, calm_rounds: int, goal: Goal) -> Row:
    """A row of right answers a second without a peer."""
    calm = [load for load in loads if not load.disturbed]
    counted = calm if len(calm) >= calm_rounds else loads
    notes = list(_doubts("portmapd", loads))
    if len(calm) < len(loads):
        kept = "set aside" if counted is calm else "yet counted, for too few were calm"
        notes.insert(0, f"{len(loads) - len(calm)} of {len(loads)} rounds were disturbed, {kept}")
    return Row(what, "/s", median(map(_rate, counted)), goal=goal, note="; ".join(notes))


def _rate(load: Load) -> float:
    return load.rate


def _ceiling(load: Load) -> float:
    return load.rate / load.busy


def _disturbed(pair: tuple[Load, Load]) -> bool:
    return any(load.disturbed for load in pair)


def _doubts(name: str, seen: Loads) -> Iterator[str]:
    if lost := sum(load.lost for load in seen):
        yield f"{lost} calls to {name} sent again"
    if max(load.busy for load in seen) > WORN_OUT:
        yield f"the load generator may have been slower than {name}"
