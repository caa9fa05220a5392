"""The benchmark's results: rows, each with a goal, from rounds in which the servers take turns."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from attrs import frozen

Result = TypeVar("Result")


@frozen
class Goal:
    """What a row should reach.

    bound: the limit; at_least: the side of it that is wanted.
    ratio: whether the ratio is meant; otherwise portmapd's own figure.
    unit: for the table, "" for a ratio.
    """

    bound: float
    at_least: bool
    ratio: bool
    unit: str = ""

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "<"
        return f"{sign} {self.bound:g} {'times' if self.ratio else self.unit}"

    def met(self, row: "Row") -> bool | None:
        """Whether the row reaches it; None when the row lacks the figure."""
        figure = row.ratio if self.ratio else row.ours
        if figure is None:
            return None
        return figure >= self.bound if self.at_least else figure < self.bound


def times(bound: float) -> Goal:
    """At least so many times the peer's figure."""
    return Goal(bound, at_least=True, ratio=True)


def above(bound: float, unit: str) -> Goal:
    """A figure of portmapd that is at least a bound."""
    return Goal(bound, at_least=True, ratio=False, unit=unit)


def below(bound: float, unit: str) -> Goal:
    """A figure of portmapd below a bound."""
    return Goal(bound, at_least=False, ratio=False, unit=unit)


@frozen
class Row:
    """One line of the table.

    what: what was measured; unit: of both figures.
    ours, theirs: medians over the rounds; None without a peer.
    peer: who theirs is.
    ratios: ours / theirs, one a round; the row's ratio is their median.
    set_aside: the ratios of disturbed rounds, which do not count.
    goal: None for a figure that is there for information.
    note: what a reader of this figure has to know; "" mostly.
    """

    what: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    ratios: tuple[float, ...] = ()
    set_aside: tuple[float, ...] = ()
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios; None without a peer."""
        return median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return self.goal.met(self) if self.goal else None


def in_turn(rounds: int, *measures: Callable[[], Result]) -> list[tuple[Result, ...]]:
    """Measure A B C, A B C, ...: what else the machine does then hits all of them alike.

    Returns one tuple a measure, with a result a round.
    """
    seen = [[measure() for measure in measures] for _ in range(rounds)]
    return list(zip(*seen, strict=True))


def against(what: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float]) -> Row:
    """A row of portmapd's figures beside a peer's, round by round."""
    ratios = tuple(our / their for our, their in zip(ours, theirs, strict=True))
    return Row(what, unit, median(ours), peer, median(theirs), ratios)
