"""Calls a second: GETPORT and DUMP, beside rpcbind and the bare C loop."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from bench.comparison import Comparison
from bench.load import TEN, Load, Programs, ask, register
from bench.plan import Plan
from bench.rows import Row, in_turn, times
from bench.servers import C_LOOP, RPCBIND, Running, c_loop, portmapd, rpcbind, running

THOUSAND = Programs(1000)


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
    generator = Comparison(bare, C_LOOP, bare, plan.calm_rounds)
    return [
        Comparison(mine, RPCBIND, peer, plan.calm_rounds).rates(what, times(3.5)),
        Comparison(mine, C_LOOP, bare, plan.calm_rounds).rates(what, times(0.6)),
        generator.ceiling("load generator's own ceiling", times(1.5)),
    ]


def udp_1(plan: Plan) -> list[Row]:
    """GETPORT over UDP, one call in flight: the rate and the latency."""
    seen = _beside_rpcbind(plan, TEN, "udp", "--in-flight", "1")
    what = "GETPORT, UDP, 1 in flight"
    return [
        seen.rates(what, times(1)),
        seen.latencies(f"{what}: p50", lambda load: load.p50_us),
        seen.latencies(f"{what}: p99", lambda load: load.p99_us),
    ]


def tcp_32(plan: Plan) -> list[Row]:
    """GETPORT over 32 TCP connections, one call in flight on each."""
    seen = _beside_rpcbind(plan, TEN, "tcp", "--connections", "32", "--in-flight", "1")
    return [seen.rates("GETPORT, TCP, 32 connections", times(3))]


def tcp_pipelined(plan: Plan) -> list[Row]:
    """GETPORT over one TCP connection, 32 calls in flight."""
    seen = _beside_rpcbind(plan, TEN, "tcp", "--connections", "1", "--in-flight", "32")
    return [seen.rates("GETPORT, TCP, 1 connection, 32 in flight", times(3))]


def dump(plan: Plan) -> list[Row]:
    """DUMP of a thousand mappings over one TCP connection.

    With one call in flight the time to wake the other side weighs; with 16 the server's work does.
    """
    depths = ("1", "16")
    seen = [_beside_rpcbind(plan, THOUSAND, "dump", "--in-flight", depth) for depth in depths]
    labels = [f"DUMP of 1,000, TCP, {depth} in flight" for depth in depths]
    return [each.rates(label, times(3)) for label, each in zip(labels, seen, strict=True)]


def asking(plan: Plan, server: Running, mode: str, *options: str) -> Callable[[], Load]:
    """One server's turn."""
    return partial(ask, server, mode, "--seconds", str(plan.seconds), *options)


def known(programs: Programs) -> tuple[str, ...]:
    """Options to ask for registered programs; any port but the registered one is wrong."""
    return ("--programs", str(programs), "--check-ports")


def _both(servers: ExitStack, programs: Programs) -> tuple[Running, Running]:
    ours = servers.enter_context(running(portmapd()))
    theirs = servers.enter_context(running(rpcbind()))
    for each in (ours, theirs):
        register(each, programs)
    return ours, theirs


def _beside_rpcbind(plan: Plan, programs: Programs, mode: str, *options: str) -> Comparison:
    wanted = (*known(programs), *options)
    with ExitStack() as servers:
        both = _both(servers, programs)
        mine, peer = in_turn(plan.rounds, *(asking(plan, each, mode, *wanted) for each in both))
    return Comparison(mine, RPCBIND, peer, plan.calm_rounds)
