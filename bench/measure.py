"""A measurement: servers take turns, and each row compares what two of the turns gave."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from attrs import evolve, frozen

from bench.load import Figures
from bench.servers import THIS, Checkout

DISTURBED = 0.05
"""The share of a turn that a process waits for a processor; on a calm machine it is 0 to 0.02."""

WORN_OUT = 0.9
"""The share of work above which the load generator may be what limits the rate."""

FALL = 0.05
"""How much worse than another checkout a row may be."""

TIMES = "times"
"""The unit of a goal for the ratio; any other unit means portmapd's own figure."""

Turns = Mapping[str, Callable[[], Figures]]
"""What is done in each round, by the name of the turn."""

Rounds = Sequence[tuple[Figures, Figures]]
"""What two turns gave in each round."""


@frozen
class Plan:
    """The sizes of one run.

    :param rounds: how often the servers take their turns.
    :param calm_rounds: undisturbed rounds that are enough for a row; with fewer, all count.
    :param seconds: of load in one turn.
    :param starts: of each server, for the time to the first answer.
    :param idle_seconds: of rest in which the cost of the liveness check is taken.
    :param many: mappings in the large registry.
    :param names: named services in the large registry, ten on each connection.
    :param storms: how often all connections of many clients are made and broken.
    """

    rounds: int
    calm_rounds: int
    seconds: float
    starts: int
    idle_seconds: float
    many: int
    names: int
    storms: int


FULL = Plan(15, 5, 0.5, 9, 10.0, 1_000_000, 100_000, 5)
QUICK = Plan(5, 2, 0.3, 3, 3.0, 50_000, 20_000, 2)


@frozen
class Goal:
    """What a row should reach: at least (``≥``) or less than (``<``) a bound.

    :param best: the best round reaches it, so that a miss is no chance; otherwise the median does.
    """

    sign: str
    bound: float
    unit: str = TIMES
    best: bool = False

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g} {self.unit}".rstrip()

    def met(self, figure: float, ratios: Sequence[float]) -> bool | None:
        """Whether the figure, or the ratio, reaches it; None without ratios."""
        if self.unit == TIMES:
            if not ratios:
                return None
            best = max if self.sign == "≥" else min
            figure = best(ratios) if self.best else median(ratios)
        return figure >= self.bound if self.sign == "≥" else figure < self.bound


@frozen
class Row:
    """A row of the result, and how it is made of what the turns gave.

    :param unit: of both figures.
    :param ours: the name of portmapd's turn.
    :param theirs: the name of the peer's turn; "": there is no peer.
    :param goal: None: the row is for information.
    :param figure: the name of the figure in both turns.
    :param their_figure: its name in the peer's turn, if that differs.
    :param peer: the peer's name; "": the name of its turn.
    :param over: makes one figure of those of all rounds; only a median has ratios.
    """

    what: str
    unit: str
    ours: str
    theirs: str = ""
    goal: Goal | None = None
    figure: str = "rate"
    their_figure: str = ""
    peer: str = ""
    over: Callable[[Sequence[float]], float] = median

    def record(self, seen: Mapping[str, Sequence[Figures]], calm_rounds: int) -> dict[str, Any]:
        """The row as JSON has it.

        :param seen: what each turn gave, one entry per round.
        :param calm_rounds: how many undisturbed rounds are enough to set the others aside.
        """
        rounds = list(zip(seen[self.ours], seen[self.theirs or self.ours], strict=True))
        counted = [each for each in rounds if not _disturbed(each)]
        aside = [each for each in rounds if _disturbed(each)]
        if len(counted) < calm_rounds:
            counted, aside = rounds, []
        ours, theirs = (
            self.over(figures) for figures in zip(*map(self._pair, counted), strict=True)
        )
        ratios = self._ratios(counted)
        return {
            "what": self.what,
            "unit": self.unit,
            "portmapd": ours,
            "peer": self.peer or self.theirs,
            "peer_figure": theirs if self.theirs else None,
            "ratio": median(ratios) if ratios else None,
            "ratios": ratios,
            "ratios_set_aside": self._ratios(aside),
            "goal": str(self.goal) if self.goal else None,
            "met": self.goal.met(ours, ratios) if self.goal else None,
            "note": "; ".join(self._notes(rounds, set_aside=bool(aside))),
        }

    def before_and_after(self) -> "Row":
        """The row with the same turn of another checkout as the peer."""
        more_is_better = self.unit in ("/s", "")
        sign, bound = ("≥", 1 - FALL) if more_is_better else ("<", 1 + FALL)
        goal = Goal(sign, bound, best=True) if self.over is median else None
        return evolve(self, theirs=_before(self.ours), their_figure="", peer="before", goal=goal)

    def _pair(self, turns: tuple[Figures, Figures]) -> tuple[float, float]:
        ours, theirs = turns
        return ours[self.figure], theirs[self.their_figure or self.figure]

    def _ratios(self, rounds: Rounds) -> list[float]:
        if not self.theirs or self.over is not median:
            return []
        return [ours / theirs for ours, theirs in map(self._pair, rounds) if theirs]

    def _notes(self, rounds: Rounds, *, set_aside: bool) -> Iterator[str]:
        """What a reader has to know about the figures."""
        figures = [self._pair(each)[0] for each in rounds]
        if not self.theirs and len(set(figures)) > 1:
            yield f"{min(figures):,.2f} to {max(figures):,.2f} {self.unit} in {len(rounds)} rounds"
        if disturbed := sum(map(_disturbed, rounds)):
            kept = "set aside" if set_aside else "counted, because too few were calm"
            yield f"{disturbed} of {len(rounds)} rounds were disturbed and {kept}"
        for name, turns in {self.ours: 0, self.theirs or self.ours: -1}.items():
            yield from _doubts(name, [each[turns] for each in rounds])


def _disturbed(turns: tuple[Figures, Figures]) -> bool:
    """Whether other work on the machine took part."""
    return any(turn.get("waited", 0) > DISTURBED for turn in turns)


def _doubts(name: str, turns: Sequence[Figures]) -> Iterator[str]:
    if lost := sum(turn.get("lost", 0) for turn in turns):
        yield f"{lost:.0f} calls to {name} sent again"
    if max(turn.get("busy", 0) for turn in turns) > WORN_OUT:
        yield f"the load generator may have been slower than {name}"


@frozen
class Measure:
    """A measurement.

    :param rounds: how often every turn is taken.
    :param rows: what it tells.
    :param ours: starts what is needed of a portmapd, until the stack is left, and gives its turns.
    :param peers: does the same for the peers.
    """

    rounds: int
    rows: Sequence[Row]
    ours: Callable[[ExitStack, Checkout], Turns]
    peers: Callable[[ExitStack], Turns] = lambda stack: {}

    def records(self, plan: Plan, other: Checkout | None = None) -> list[dict[str, Any]]:
        """Its rows.

        :param other: the checkout to take turns with under the same load; None: the peers.
        """
        rows, turns = list(self.rows), dict[str, Callable[[], Figures]]()
        with ExitStack() as stack:
            turns |= self.ours(stack, THIS)
            if other is None:
                turns |= self.peers(stack)
            else:
                wanted = {row.what: row.before_and_after() for row in rows if row.ours in turns}
                rows = list(wanted.values())
                turns |= {_before(name): turn for name, turn in self.ours(stack, other).items()}
            seen = _take(self.rounds, turns)
        return [row.record(seen, plan.calm_rounds) for row in rows]


def _before(turn: str) -> str:
    return f"{turn} (before)"


def _take(rounds: int, turns: Turns) -> Mapping[str, Sequence[Figures]]:
    """Take turns A B C, then C B A: what else the machine does hits all alike."""
    seen: dict[str, list[Figures]] = {name: [] for name in sorted(turns)}
    for number in range(rounds):
        for name in reversed(seen) if number % 2 else seen:
            seen[name].append(turns[name]())
    return seen
