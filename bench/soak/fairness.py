"""Each hostile peer alone: what do others notice of it?"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from bench import MeasureError
from bench.load import calling, programs, register
from bench.servers import PORTMAPD, THIS, Running, Server, rpcbind, running
from bench.soak.hostile import HOSTILE
from bench.soak.ordinary import BYSTANDERS
from bench.soak.process import Seen, playing
from bench.soak.role import Role, Target
from tests.support.daemon import ERRORS

RATE = 500
"""GETPORT calls a second over UDP beside a hostile peer."""

DELAY = 20.0
"""Milliseconds by which no peer delays a GETPORT."""

GROWTH = 256 << 20
"""Bytes by which no peer has the server grow."""

TRIES = 3
"""How often a scenario is tried: what the machine does otherwise does not come again each time."""

LEAST_MAPPINGS = 10
"""Mappings that GETPORT asks for."""

PEER_MAPPINGS = 10_000
"""The most mappings of rpcbind, which compares a new one with all there are."""

LONGEST = 60
"""Seconds that a hostile peer may take to begin and to end."""

HEADS = (
    *("hostile peer", "server", "p50", "p99", "max", "sent again", "MB", "peak", "CPU", "waited"),
    *("rounds", "others' slowest", "failures", "held"),
)
LEFT = {0, 1, 13}


@frozen
class Outcome:
    """What others noticed.

    :param p50: of GETPORT, in milliseconds, as `p99` and `slowest`.
    :param lost: calls that were sent again.
    :param before: bytes of resident memory before the hostile peer came, and `peak` meanwhile.
    :param share: the share of a processor that the server had, and `waited` that it wanted.
    :param peer: what the hostile peer saw.
    :param others: what the bystanders saw, by their role.
    """

    p50: float
    p99: float
    slowest: float
    lost: float
    before: int
    peak: int
    share: float
    waited: float
    peer: Seen
    others: Mapping[str, Seen]

    @property
    def failures(self) -> list[str]:
        """Why bystanders were not served."""
        return [f"{name}: {seen.why}" for name, seen in self.others.items() if seen.failures]

    @property
    def is_served(self) -> bool:
        """Did memory keep its bound, and was everyone served? That takes no clock."""
        return not self.failures and self.peak - self.before <= GROWTH

    @property
    def is_quick(self) -> bool:
        """Did no GETPORT wait for longer than it may?"""
        return self.slowest <= DELAY and not self.lost

    def notes(self) -> Iterator[str]:
        """What a reader has to know besides."""
        yield from self.failures
        if self.peer.failures:
            yield f"the peer was sent away {self.peer.failures:,} times, at last by {self.peer.why}"

    def cells(self) -> Iterator[str]:
        """Its row of the table, from ``p50`` on."""
        yield from (f"{value:.2f}" for value in (self.p50, self.p99, self.slowest))
        yield f"{self.lost:.0f}"
        yield from (f"{value / 1e6:.0f}" for value in (self.before, self.peak))
        yield from (f"{100 * value:.0f} %" for value in (self.share, self.waited))
        yield f"{self.peer.rounds:,}"
        yield ", ".join(f"{name} {seen.slowest:.0f}" for name, seen in self.others.items())
        yield str(sum(seen.failures for seen in self.others.values()))


@frozen
class Row:
    """A scenario, and what came of it at a server.

    :param outcome: None: there is none, and `why` says the reason.
    :param is_fair: was the promise kept?
    """

    scenario: str
    server: str
    outcome: Outcome | None
    is_fair: bool
    why: str = ""

    def cells(self) -> tuple[str, ...]:
        """As the table has it."""
        figures = self.outcome.cells() if self.outcome else [""] * (len(HEADS) - 3)
        return (self.scenario, self.server, *figures, "yes" if self.is_fair else "NO")

    def notes(self) -> Iterator[str]:
        """What a reader has to know besides."""
        told = [self.why] if self.outcome is None else self.outcome.notes()
        yield from (f"{self.scenario} ({self.server}): {each}" for each in told)


@frozen
class Meeting:
    """How servers meet hostile peers.

    :param seconds: for how long, once a peer has done its first round.
    :param scale: the share of its connections and mappings.
    :param folder: where the servers' logs go.
    :param is_timed: whether GETPORT must be answered in time.
    """

    seconds: float
    scale: float
    folder: Path
    is_timed: bool

    def rows(self, name: str, *, beside_peer: bool) -> Iterator[Row]:
        """A scenario at portmapd and, if rpcbind can meet it, there.

        :param name: the hostile peer's role.
        :param beside_peer: whether rpcbind is measured, too.
        """
        server = THIS.portmapd(*HOSTILE[name].options)
        tries = TRIES if self.is_timed else 1
        # The first try that keeps the promise, else that with the least delay.
        tried = [row := self._try(name, server)]
        while not row.is_fair and len(tried) < tries:
            tried.append(row := self._try(name, server))
        yield row if row.is_fair else min(tried, key=_delay)
        if beside_peer and HOSTILE[name].is_rpc:
            yield self._try(name, rpcbind())

    def _try(self, name: str, server: Server) -> Row:
        try:
            outcome = self._meet(name, server)
        except MeasureError as error:
            return Row(name, server.name, None, is_fair=False, why=str(error))
        is_fair = outcome.is_served and (outcome.is_quick or not self.is_timed)
        return Row(name, server.name, outcome, is_fair)

    def _meet(self, name: str, server: Server) -> Outcome:
        """Have a server meet a hostile peer, and others beside it.

        :raises MeasureError: nothing could be measured, or the server failed.
        """
        role, place = HOSTILE[name], Target(server.port, server.path or "", self.scale)
        longest = 10 * self.seconds + LONGEST
        with running(server, self.folder) as target:
            register(target, programs(self._mappings(role, server)))
            with ExitStack() as stack:
                beside = {
                    bystander: stack.enter_context(playing(bystander, each, place))
                    for bystander, each in BYSTANDERS.items()
                    if each.is_rpc or place.path
                }
                before, processor = target.resident_bytes(), target.cpu_seconds()
                with (
                    calling(target, RATE, longest) as figures,
                    playing(name, role, place, is_prepared=True) as hostile,
                ):
                    time.sleep(self.seconds)
                share = (target.cpu_seconds() - processor) / figures["seconds"]
            peak = target.peak_bytes()
            require_no_error(target)
        return Outcome(
            p50=figures["p50_us"] / 1_000,
            p99=figures["p99_us"] / 1_000,
            slowest=figures["max_us"] / 1_000,
            lost=figures["lost"],
            before=before,
            peak=peak,
            share=share,
            waited=figures["waited"],
            peer=hostile[0],
            others={bystander: seen for bystander, (seen,) in beside.items()},
        )

    def _mappings(self, role: Role, server: Server) -> int:
        wanted = max(LEAST_MAPPINGS, round(role.mappings * self.scale))
        return wanted if server.name == PORTMAPD else min(wanted, PEER_MAPPINGS)


def _delay(row: Row) -> float:
    return row.outcome.slowest if row.outcome else float("inf")


def require_no_error(target: Running) -> None:
    """Check what the server wrote.

    :raises MeasureError: it logged a fault of its own.
    """
    said = target.log.read_text(errors="replace")
    if any(error in said for error in ERRORS):
        raise MeasureError(f"{target.server.name} failed:\n{said[-4_000:]}")
