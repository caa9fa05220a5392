"""Calls a second: GETPORT and DUMP, beside rpcbind and the bare C loop."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from attrs import evolve

from bench.load import TEN, Load, Programs, ask, register
from bench.plan import Plan
from bench.rows import Goal, Row, against, in_turn, times
from bench.servers import Running, c_loop, portmapd, rpcbind, running

THOUSAND = Programs(1000)

WORN_OUT = 0.9
"""The share of work above which the generator may be what limits the rate."""

Loads = Sequence[Load]


def udp_32(plan: Plan) -> list[Row]:
    """GETPORT over UDP, 32 calls in flight; and how much faster the load generator is."""
    with ExitStack() as servers:
        both = _both(servers, TEN)
        loop = servers.enter_context(running(c_loop()))
        mine, peer, bare = in_turn(
            plan.rounds,
            *(asking(plan, each, "udp", *known(TEN)) for each in both),
            asking(plan, loop, "udp"),
        )
    what = "GETPORT, UDP, 32 in flight"
    return [
        rates(what, mine, "rpcbind", peer, times(3.5)),
        rates(what, mine, "C loop", bare, times(0.6)),
        _ceiling(bare),
    ]


def udp_1(plan: Plan) -> list[Row]:
    """GETPORT over UDP, one call in flight: the rate and the latency."""
    mine, peer = _beside_rpcbind(plan, TEN, "udp", "--in-flight", "1")
    what = "GETPORT, UDP, 1 in flight"
    return [
        rates(what, mine, "rpcbind", peer, times(1)),
        _latencies(f"{what}: p50", mine, peer, lambda load: load.p50_us),
        _latencies(f"{what}: p99", mine, peer, lambda load: load.p99_us),
    ]


def tcp_32(plan: Plan) -> list[Row]:
    """GETPORT over 32 TCP connections, one call in flight on each."""
    mine, peer = _beside_rpcbind(plan, TEN, "tcp", "--connections", "32", "--in-flight", "1")
    return [rates("GETPORT, TCP, 32 connections", mine, "rpcbind", peer, times(3))]


def tcp_pipelined(plan: Plan) -> list[Row]:
    """GETPORT over one TCP connection, 32 calls in flight."""
    mine, peer = _beside_rpcbind(plan, TEN, "tcp", "--connections", "1", "--in-flight", "32")
    return [rates("GETPORT, TCP, 1 connection, 32 in flight", mine, "rpcbind", peer, times(3))]


def dump(plan: Plan) -> list[Row]:
    """DUMP of a thousand mappings over one TCP connection.

    With one call in flight the time to wake the other side weighs; with 16 the server's work does.
    """
    rows = []
    for depth in ("1", "16"):
        mine, peer = _beside_rpcbind(plan, THOUSAND, "dump", "--in-flight", depth)
        what = f"DUMP of 1,000, TCP, {depth} in flight"
        rows.append(rates(what, mine, "rpcbind", peer, times(3)))
    return rows


def asking(plan: Plan, server: Running, mode: str, *options: str) -> Callable[[], Load]:
    """One server's turn."""
    return partial(ask, server, mode, "--seconds", str(plan.seconds), *options)


def known(programs: Programs) -> tuple[str, ...]:
    """Options to ask for registered programs; any port but the registered one is wrong."""
    return ("--programs", str(programs), "--check-ports")


def rates(what: str, mine: Loads, peer: str, theirs: Loads, goal: Goal | None) -> Row:
    """A row of answers a second."""
    row = against(what, "/s", [load.rate for load in mine], peer, [load.rate for load in theirs])
    return evolve(row, goal=goal, note=_doubts(mine, peer, theirs))


def _latencies(what: str, mine: Loads, theirs: Loads, figure: Callable[[Load], float]) -> Row:
    return against(what, "µs", list(map(figure, mine)), "rpcbind", list(map(figure, theirs)))


def _ceiling(bare: Loads) -> Row:
    """What the generator could do if it never had to wait, beside what the C loop let it do."""
    ceilings = [load.rate / load.busy for load in bare]
    row = against("load generator's own ceiling", "/s", ceilings, "C loop", [b.rate for b in bare])
    return evolve(row, goal=times(1.5))


def _doubts(mine: Loads, peer: str, theirs: Loads) -> str:
    """What makes a rate less than it seems."""
    doubts = []
    for name, seen in (("portmapd", mine), (peer, theirs)):
        if lost := sum(load.lost for load in seen):
            doubts.append(f"{lost} calls to {name} sent again")
        if max(load.busy for load in seen) > WORN_OUT:
            doubts.append(f"the load generator may have been slower than {name}")
    return "; ".join(doubts)


def _both(servers: ExitStack, programs: Programs) -> tuple[Running, Running]:
    ours = servers.enter_context(running(portmapd()))
    theirs = servers.enter_context(running(rpcbind()))
    for each in (ours, theirs):
        register(each, programs)
    return ours, theirs


def _beside_rpcbind(
    plan: Plan, programs: Programs, mode: str, *options: str
) -> tuple[Loads, Loads]:
    wanted = (*known(programs), *options)
    with ExitStack() as servers:
        both = _both(servers, programs)
        mine, peer = in_turn(plan.rounds, *(asking(plan, each, mode, *wanted) for each in both))
    return mine, peer
