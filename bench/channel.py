"""Named services: registered and looked up on portmapd's local channel, beside epmd."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from bench.holders import Names, holding
from bench.load import Figures, run
from bench.measure import Goal, Measure, Plan, Row, Turns
from bench.servers import EPMD, PORTMAPD, Checkout, Server, epmd, running

EACH = 10
"""Names on each connection of the large registry."""

NEW = "10000000:1000000"
"""Names that nobody holds; more than one run can register."""

TOO_MANY = Names(1_100)
"""More names than epmd has descriptors."""

UNLIMITED = ("--max-services", "1000000")

KEPT = ", one connection"
"""The end of the names of turns whose lookups share one connection."""

_EPMD_LOOKUP = b"\0\x11zservice-00000000"


def register(plan: Plan) -> list[Measure]:
    """Register on one connection, one command in flight and a thousand."""

    def ours(stack: ExitStack, checkout: Checkout) -> Turns:
        target = stack.enter_context(running(checkout.portmapd(*UNLIMITED)))
        options = ("--names", NEW, "--seconds", str(plan.seconds), "--in-flight")
        return {n: partial(run, target, "register", *options, n) for n in ("1", "1000")}

    rows = [
        Row("Register, one at a time", "/s", "1", goal=Goal("≥", 15_000, "/s")),
        Row("Register, 1,000 in flight", "/s", "1000", goal=Goal("≥", 100_000, "/s")),
    ]
    return [Measure(plan.rounds, rows, ours)]


def enter(plan: Plan) -> list[Measure]:
    """A connection that registers one name, is answered, and closes."""
    return [_beside_epmd(plan, "enter", _rows(plan, "connect and register"))]


def lookup(plan: Plan) -> list[Measure]:
    """The port of a registered name, any at random: connect, ask, be answered, close.

    Over one connection, too; epmd, which closes it after each answer, connects again there.
    """
    rows = [*_rows(plan, "lookup"), *_rows(plan, "lookup, connected before", KEPT)]
    return [_beside_epmd(plan, "lookup", rows)]


def most(plan: Plan) -> list[Measure]:
    """How many names are held when there are more than epmd has room for, and a lookup then."""
    rows = [
        Row(f"names held of {TOO_MANY.count:,} registered", "", PORTMAPD, EPMD, figure="held"),
        Row("lookups answered then, of 1", "", PORTMAPD, EPMD, figure="answered"),
    ]
    return [
        Measure(
            1,
            rows,
            lambda stack, checkout: {PORTMAPD: partial(_most, checkout.portmapd(*UNLIMITED))},
            lambda stack: {EPMD: partial(_most, epmd())},
        )
    ]


def _most(server: Server) -> Figures:
    with running(server) as target, holding(target, TOO_MANY, some=True) as holders:
        if server.name == EPMD:
            answered = bool(server.ask(socket.SOCK_STREAM, _EPMD_LOOKUP))
        else:
            answered = run(target, "lookup", "--seconds", "0.01")["answered"] > 0
        return {"held": holders.registered, "answered": float(answered)}


def _sizes(plan: Plan) -> tuple[Names, Names, Names]:
    return Names(10), Names(900), Names(plan.names // EACH, EACH)


def _rows(plan: Plan, what: str, kept: str = "") -> list[Row]:
    """portmapd beside epmd with few and some names; with many, which epmd cannot have, itself."""
    few, some, many = (f"{names.count:,} names" for names in _sizes(plan))
    ours, theirs, itself = (
        f"{PORTMAPD}, {{}}{kept}".format,
        f"{EPMD}, {{}}".format,
        f"{PORTMAPD}, {few}",
    )
    return [
        Row(f"{what}, {few}", "/s", ours(few), theirs(few), Goal("≥", 1), peer=EPMD),
        Row(f"{what}, {some}", "/s", ours(some), theirs(some), Goal("≥", 2), peer=EPMD),
        Row(f"{what}, {many}", "/s", ours(many), ours(few), Goal("≥", 0.9), peer=itself),
    ]


def _beside_epmd(plan: Plan, mode: str, rows: Sequence[Row]) -> Measure:
    def turns(stack: ExitStack, *servers: Server) -> Turns:
        made: dict[str, partial[Figures]] = {}
        for server, names in zip(servers, _sizes(plan), strict=False):
            target = stack.enter_context(running(server))
            stack.enter_context(holding(target, names))
            asked = NEW if mode == "enter" else str(names)
            turn = partial(run, target, mode, "--names", asked, "--seconds", str(plan.seconds))
            name = f"{server.name}, {names.count:,} names"
            made[name] = turn
            if mode == "lookup" and server.path:
                made[name + KEPT] = partial(turn, "--one-connection")
        return made

    def ours(stack: ExitStack, checkout: Checkout) -> Turns:
        return turns(stack, *(checkout.portmapd(*UNLIMITED, number=n) for n in range(3)))

    return Measure(plan.rounds, rows, ours, lambda stack: turns(stack, epmd(0), epmd(1)))
