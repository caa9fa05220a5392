"""Many connections that are made, held and broken at once, and what GETPORT callers notice."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench import MeasureError
from bench.holders import Holders, Names, holding
from bench.load import TEN, Figures, calling, register
from bench.measure import Goal, Measure, Plan, Row
from bench.servers import PORTMAPD, Checkout, Running, running
from portmapd.client.blocking import Portmapper

EACH = 10
"""Names that each connection registers."""

PROCESSES = 10
"""Processes that share the connections."""

RATE = 2_000
"""GETPORT calls a second meanwhile."""

LEAD, SETTLE = 0.02, 1.0
"""Seconds of GETPORT before anything else happens, and for a server to come to rest."""

LOOK_AGAIN, GONE_LIMIT = 0.005, 30.0
"""Seconds from one listing to the next while names disappear, and until that is given up."""

SAMPLE = 20
"""Names that are looked for until they are gone; only then everything is listed."""


def storm(plan: Plan) -> list[Measure]:
    """Connections of many clients: made at once, held, and broken at once."""
    names = Names(plan.names // EACH, EACH)
    many = f"{names.connections:,} connections of {EACH} names"
    gone = f"{names.count:,} names gone after their clients were killed"
    rows = [
        Row(f"{many}: registered", "s", PORTMAPD, figure="seconds"),
        Row(f"{many}: resident, each", "KB", PORTMAPD, "", Goal("<", 8, "KB"), "resident"),
        Row(gone, "s", PORTMAPD, "", Goal("<", 0.5, "s"), "gone"),
        *_calls("register"),
        *_calls("disappear"),
    ]
    turn = partial(_storm, names)
    return [Measure(plan.storms, rows, lambda stack, checkout: {PORTMAPD: partial(turn, checkout)})]


def _calls(event: str) -> list[Row]:
    what = f"GETPORT while they {event}"
    return [
        Row(f"{what}: p99", "ms", PORTMAPD, "", Goal("<", 5, "ms"), f"{event} p99"),
        Row(f"{what}: slowest", "ms", PORTMAPD, figure=f"{event} max"),
        Row(f"{what}: sent again", "", PORTMAPD, "", Goal("<", 1, ""), f"{event} lost", over=sum),
        Row(f"{what}: server waits for a processor", "%", PORTMAPD, figure=f"{event} waited"),
    ]


def _storm(names: Names, checkout: Checkout) -> Figures:
    server = checkout.portmapd("--max-services", str(names.count))
    figures: dict[str, float] = {}
    with running(server) as target, ExitStack() as clients:
        register(target, TEN)
        before = target.resident_bytes()
        with _getport(target, "register", figures):
            began = time.perf_counter()
            holders = clients.enter_context(holding(target, names, PROCESSES))
            figures["seconds"] = time.perf_counter() - began
        time.sleep(SETTLE)
        figures["resident"] = (target.resident_bytes() - before) / names.connections / 1024
        with Portmapper(server.path) as client, _getport(target, "disappear", figures):
            figures["gone"] = _kill(holders, names, client)
    return figures


@contextmanager
def _getport(target: Running, event: str, figures: dict[str, float]) -> Iterator[None]:
    """Call at a constant rate during an event; adds the calls' figures."""
    with calling(target, RATE, GONE_LIMIT, lead=LEAD) as seen:
        yield
    figures[f"{event} p99"], figures[f"{event} max"] = seen["p99_us"] / 1000, seen["max_us"] / 1000
    figures[f"{event} lost"], figures[f"{event} waited"] = seen["lost"], 100 * seen["waited"]


def _kill(holders: Holders, names: Names, client: Portmapper) -> float:
    """Kill the clients; seconds until none of their names is listed."""
    sample = [f"service-{n:08}" for n in range(EACH - 1, names.count, names.count // SAMPLE)]
    if not client.list(sample):
        raise MeasureError("portmapd does not list what was registered")
    began = time.perf_counter()
    holders.kill()
    while client.list(sample) or _any_held(client):
        if time.perf_counter() - began > GONE_LIMIT:
            raise MeasureError("names of killed clients are still listed")
        time.sleep(LOOK_AGAIN)
    return time.perf_counter() - began


def _any_held(client: Portmapper) -> bool:
    return any(service.name.startswith("service-") for service in client.list())
