"""Named services: registered and looked up on portmapd's local channel, beside epmd."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from attrs import frozen

from bench.comparison import Comparison, alone
from bench.held import Names, hold_all, holding
from bench.load import Load, ask_names
from bench.plan import Plan
from bench.probe import epmd_answer
from bench.rows import Row, above, in_turn, times
from bench.servers import EPMD, Running, epmd, portmapd, running

FEW, SOME = Names(10), Names(900)

EACH = 10
"""Names on each connection of the large registry."""

NEW = "10000000:1000000"
"""Names that nobody holds; one run does not come to their end."""

TOO_MANY = Names(1_100)
"""More than epmd has descriptors for."""

_UNLIMITED = ("--max-services", "1000000")


@frozen
class Registries:
    """Servers with few, some and many names; epmd cannot have many."""

    ours: tuple[Running, Running, Running]
    theirs: tuple[Running, Running]
    sizes: tuple[Names, Names, Names]


def register(plan: Plan) -> list[Row]:
    """Register on one connection, one command in flight and a thousand."""
    with running(portmapd(211, *_UNLIMITED)) as server:
        one, many = in_turn(
            plan.rounds,
            _asking(plan, server, "register", "--names", NEW),
            _asking(plan, server, "register", "--names", NEW, "--in-flight", "1000"),
        )
    return [
        alone("Register, one at a time", one, plan.calm_rounds, above(15_000, "/s")),
        alone("Register, 1,000 in flight", many, plan.calm_rounds, above(100_000, "/s")),
    ]


def enter(plan: Plan) -> list[Row]:
    """A connection that registers one name, answered, and closes."""
    with ExitStack() as stack:
        all_sizes = _registries(plan, stack)
        turns = [
            _asking(plan, each, "enter", "--names", NEW)
            for each in (*all_sizes.ours, *all_sizes.theirs)
        ]
        seen = in_turn(plan.rounds, *turns)
    return _beside_epmd("connect and register", all_sizes, seen, plan)


def lookup(plan: Plan) -> list[Row]:
    """A name's port, asked at random for one that is there: connect, ask, answer, close."""
    with ExitStack() as stack:
        all_sizes = _registries(plan, stack)
        mine = list(zip(all_sizes.ours, all_sizes.sizes, strict=True))
        peers = list(zip(all_sizes.theirs, all_sizes.sizes, strict=False))
        seen = in_turn(
            plan.rounds,
            *(_asking(plan, each, "lookup", "--names", str(names)) for each, names in mine + peers),
            *(_standing(plan, each, names) for each, names in mine),
        )
    rows = _beside_epmd("lookup", all_sizes, seen[:5], plan)
    return rows + _beside_epmd("lookup, connected before", all_sizes, [*seen[5:], *seen[3:5]], plan)


def most(plan: Plan) -> list[Row]:
    """How many names stand when more are registered than epmd has room for."""
    del plan
    with running(portmapd(211, *_UNLIMITED)) as server, holding(server, TOO_MANY) as crowd:
        mine = crowd.registered
    with running(epmd()) as peer, holding(peer, TOO_MANY) as crowd:
        theirs = crowd.registered
        answer = epmd_answer(peer.port, b"\0\x11zservice-00000000")
    closed = "epmd then closes every new connection unanswered: lookups, too"
    return [
        Row(
            f"names held of {TOO_MANY.count:,} registered",
            "",
            float(mine),
            EPMD,
            float(theirs),
            (mine / theirs,),
            note="" if answer else closed,
        )
    ]


def _asking(plan: Plan, server: Running, mode: str, *options: str) -> Callable[[], Load]:
    return partial(ask_names, server, mode, "--seconds", str(plan.seconds), *options)


def _standing(plan: Plan, server: Running, names: Names) -> Callable[[], Load]:
    return _asking(plan, server, "lookup", "--names", str(names), "--standing")


def _registries(plan: Plan, stack: ExitStack) -> Registries:
    """Start the servers, and clients that hold names until the stack is left."""
    sizes = FEW, SOME, Names(plan.names // EACH, EACH)
    ours = [stack.enter_context(running(portmapd(211 + n, *_UNLIMITED))) for n in range(3)]
    theirs = [stack.enter_context(running(epmd(411 + n))) for n in range(2)]
    for server, names in (*zip(ours, sizes, strict=True), *zip(theirs, sizes, strict=False)):
        hold_all(server, names, stack)
    return Registries((ours[0], ours[1], ours[2]), (theirs[0], theirs[1]), sizes)


def _beside_epmd(
    what: str, registries: Registries, seen: list[tuple[Load, ...]], plan: Plan
) -> list[Row]:
    """Rows of the five servers' turns, portmapd's first."""
    few, some, many, epmd_few, epmd_some = seen
    calm, sizes = plan.calm_rounds, [f"{names.count:,} names" for names in registries.sizes]
    itself = f"portmapd, {sizes[0]}"
    return [
        Comparison(few, EPMD, epmd_few, calm).rates(f"{what}, {sizes[0]}", times(1)),
        Comparison(some, EPMD, epmd_some, calm).rates(f"{what}, {sizes[1]}", times(2)),
        Comparison(many, itself, few, calm).rates(f"{what}, {sizes[2]}", times(0.9)),
    ]
