"""The rate with few mappings and with many, and what many cost."""

from contextlib import ExitStack

from bench.comparison import Comparison
from bench.load import TEN, Load, Programs, register
from bench.plan import Plan
from bench.process import resident_bytes
from bench.rows import Row, in_turn, times
from bench.servers import Running, portmapd, running
from bench.speed import asking, known

FEW_PORT, MANY_PORT = 211, 212
"""Two portmapds run beside each other."""


def many(plan: Plan) -> list[Row]:
    """GETPORT over UDP, 32 in flight: ten mappings beside a million."""
    size = f"{plan.many:,} mappings"
    with ExitStack() as servers:
        few = servers.enter_context(running(portmapd(FEW_PORT)))
        large = servers.enter_context(running(portmapd(MANY_PORT)))
        register(few, TEN)
        filled = register(large, Programs(plan.many))
        costs = _costs(size, large, filled)
        base, same, spread = in_turn(
            plan.rounds,
            asking(plan, few, "udp", *known(TEN)),
            asking(plan, large, "udp", *known(TEN)),
            asking(plan, large, "udp", *known(Programs(plan.many, random=True))),
        )
    rows = []
    for asked, seen in (("10 of them asked", same), ("any at random", spread)):
        beside = Comparison(seen, "portmapd, 10 mappings", base, plan.calm_rounds)
        rows.append(beside.rates(f"GETPORT, UDP, {size}, {asked}", times(0.9)))
    return [*rows, *costs]


def _costs(size: str, server: Running, filled: Load) -> list[Row]:
    again = f"{filled.lost} calls sent again" if filled.lost else ""
    return [
        Row(f"SET, UDP, 32 in flight, {size}", "/s", filled.rate, note=again),
        Row(f"resident with {size}", "MB", resident_bytes(server.pid) / 1e6),
    ]
