"""Calls a second: GETPORT and DUMP, beside rpcbind and the bare C loop."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from attrs import evolve, frozen

from bench.load import TEN, Figures, programs, register, run
from bench.measure import Goal, Measure, Plan, Row, Turns
from bench.servers import (
    C_LOOP,
    PORTMAPD,
    RPCBIND,
    Checkout,
    Running,
    Server,
    c_loop,
    rpcbind,
    running,
)


@frozen
class Load:
    """Calls of known programs; any port but the registered one is a wrong answer.

    :param times: how often portmapd should answer what rpcbind answers.
    :param options: of the load generator.
    :param called: the programs that are registered and called.
    :param figures: latencies that have rows of their own.
    """

    what: str
    times: float
    options: Sequence[str]
    called: str = TEN
    figures: Sequence[str] = ()

    def measure(self, plan: Plan) -> Measure:
        """The rate, and the latencies, beside those of rpcbind."""
        rate = Row(self.what, "/s", PORTMAPD, RPCBIND, Goal("≥", self.times))
        latencies = [
            Row(f"{self.what}: {name}", "µs", PORTMAPD, RPCBIND, figure=f"{name}_us")
            for name in self.figures
        ]
        return Measure(
            plan.rounds,
            [rate, *latencies],
            lambda stack, checkout: self._turn(plan, stack, checkout.portmapd()),
            lambda stack: self._turn(plan, stack, rpcbind()),
        )

    def _turn(self, plan: Plan, stack: ExitStack, server: Server) -> Turns:
        target = stack.enter_context(running(server))
        register(target, self.called)
        return {server.name: partial(_call, plan, target, self.called, self.options)}


UDP = Load("GETPORT, UDP, 32 in flight", 3.5, ("udp",))
UDP_1 = Load("GETPORT, UDP, 1 in flight", 1, ("udp", "--in-flight", "1"), figures=("p50", "p99"))
TCP = Load("GETPORT, TCP, 32 connections", 3, ("tcp", "--connections", "32", "--in-flight", "1"))
TCP_PIPELINED = Load("GETPORT, TCP, 1 connection, 32 in flight", 3, ("tcp", "--in-flight", "32"))
#: With one call in flight the time to wake the other side counts; with 16, the server's work.
DUMP_1, DUMP_16 = (
    Load(f"DUMP of 1,000, TCP, {n} in flight", 3, ("dump", "--in-flight", n), programs(1000))
    for n in ("1", "16")
)


def measures(*loads: Load) -> Callable[[Plan], list[Measure]]:
    """The measurements of these loads."""
    return lambda plan: [load.measure(plan) for load in loads]


def udp(plan: Plan) -> list[Measure]:
    """GETPORT over UDP, and what the C loop and the load generator could do."""
    measure = UDP.measure(plan)
    loop = Row(UDP.what, "/s", PORTMAPD, C_LOOP, Goal("≥", 0.6))
    ceiling = Row(
        "load generator's own ceiling", "/s", C_LOOP, C_LOOP, Goal("≥", 1.5), "ceiling", "rate"
    )

    def peers(stack: ExitStack) -> Turns:
        target = stack.enter_context(running(c_loop()))
        return {**measure.peers(stack), C_LOOP: partial(_call, plan, target, TEN, UDP.options)}

    return [evolve(measure, rows=[*measure.rows, loop, ceiling], peers=peers)]


def mappings(plan: Plan) -> list[Measure]:
    """GETPORT over UDP with ten mappings and with a million, and what a million cost."""
    size = f"{plan.many:,} mappings"
    few, same, random = "portmapd, 10 mappings", "10 of them asked", "any at random"

    def ours(stack: ExitStack, checkout: Checkout) -> Turns:
        small = stack.enter_context(running(checkout.portmapd()))
        large = stack.enter_context(running(checkout.portmapd(number=1)))
        register(small, TEN)
        filled = {"rate": register(large, programs(plan.many))["rate"]}
        filled["resident"] = large.resident_bytes() / 1e6
        call = partial(_call, plan, options=UDP.options)
        return {
            few: partial(call, small, TEN),
            same: partial(call, large, TEN),
            random: partial(call, large, programs(plan.many, random=True)),
            size: lambda: filled,
        }

    rows = [
        Row(f"GETPORT, UDP, {size}, {same}", "/s", same, few, Goal("≥", 0.9)),
        Row(f"GETPORT, UDP, {size}, {random}", "/s", random, few, Goal("≥", 0.9)),
        Row(f"SET, UDP, 32 in flight, {size}", "/s", size),
        Row(f"resident with {size}", "MB", size, figure="resident"),
    ]
    return [Measure(plan.rounds, rows, ours)]


def _call(plan: Plan, target: Running, called: str, options: Sequence[str]) -> Figures:
    known = () if target.server.name == C_LOOP else ("--programs", called, "--check-ports")
    return run(target, *options, *known, "--seconds", str(plan.seconds))
