"""What portmapd costs at rest: its start, its memory, the liveness check."""

import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench import MeasureError
from bench.load import TEN, Figures, programs, register, run
from bench.measure import Goal, Measure, Plan, Row
from bench.servers import PORTMAPD, RPCBIND, THIS, Checkout, Running, Server, rpcbind, running

SETTLE = 2.0
"""Seconds for a server to come to rest."""

LIVE = 500
"""Live programs of each protocol."""

LIVE_PORTS = 20000
"""The first of their ports; nothing else of the benchmark is bound there."""

GONE_LIMIT = 10.0
"""Seconds for ended services to disappear; beyond them the check did not run at all."""

_PROTOCOLS = {socket.IPPROTO_UDP: socket.SOCK_DGRAM, socket.IPPROTO_TCP: socket.SOCK_STREAM}
_FILES = 4096
_CLIENT, _REACTOR = "portmapd.client.blocking", "twisted.internet.reactor"


def start(plan: Plan) -> list[Measure]:
    """Seconds from exec to the first answer, a NULL call over UDP."""
    below, what = Goal("<", 0.3, "s"), "exec to first answer"
    rows = [
        Row(f"{what}, median", "s", PORTMAPD, RPCBIND, below, "seconds"),
        Row(f"{what}, slowest", "s", PORTMAPD, RPCBIND, None, "seconds", over=max),
    ]
    return [_beside_rpcbind(plan.starts, rows, _start)]


def memory(plan: Plan) -> list[Measure]:
    """The resident set after a few calls and a rest."""
    below = Goal("<", 45, "MB")
    rows = [Row("resident when idle", "MB", PORTMAPD, RPCBIND, below, "resident")]
    return [_beside_rpcbind(plan.rounds, rows, _resident)]


def imported(plan: Plan) -> list[Measure]:
    """Milliseconds to import the blocking client, beside Twisted's reactor."""
    below, peer = Goal("<", 60, "ms"), "twisted's reactor"
    return [
        Measure(
            plan.starts,
            [Row(f"import {_CLIENT}", "ms", PORTMAPD, peer, below, "milliseconds")],
            lambda stack, checkout: {PORTMAPD: partial(_import, checkout, _CLIENT)},
            lambda stack: {peer: partial(_import, THIS, _REACTOR)},
        )
    ]


def liveness(plan: Plan) -> list[Measure]:
    """The processor time that an idle portmapd takes with 1,000 live mappings, and with none."""
    what, peer = "processor at rest, 1,000 live mappings", "portmapd, none"
    row = Row(what, "%", PORTMAPD, PORTMAPD, Goal("<", 1, "%"), "live", "empty", peer)
    idle = partial(_idle, plan.idle_seconds)
    return [Measure(1, [row], lambda stack, checkout: {PORTMAPD: partial(idle, checkout)})]


def _beside_rpcbind(rounds: int, rows: list[Row], turn: Callable[[Server], Figures]) -> Measure:
    """Both servers are started anew for every turn."""
    return Measure(
        rounds,
        rows,
        lambda stack, checkout: {PORTMAPD: partial(turn, checkout.portmapd())},
        lambda stack: {RPCBIND: partial(turn, rpcbind())},
    )


def _start(server: Server) -> Figures:
    with running(server) as target:
        return {"seconds": target.start_seconds}


def _resident(server: Server) -> Figures:
    with running(server) as target:
        register(target, TEN)
        run(target, "udp", "--seconds", "0.1", "--programs", TEN)
        time.sleep(SETTLE)
        return {"resident": target.resident_bytes() / 1e6}


def _import(checkout: Checkout, name: str) -> Figures:
    code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
    command = [str(checkout.python), "-c", code]
    seconds = subprocess.check_output(command, text=True, cwd=checkout.top)
    return {"milliseconds": float(seconds) * 1000}


def _idle(seconds: float, checkout: Checkout) -> Figures:
    """Percent of one processor that two servers take over the same seconds."""
    with ExitStack() as stack:
        empty = stack.enter_context(running(checkout.portmapd()))
        live = stack.enter_context(running(checkout.portmapd(number=1)))
        with _services():
            _register_services(live)
            time.sleep(SETTLE)
            before = live.cpu_seconds(), empty.cpu_seconds()
            time.sleep(seconds)
            after = live.cpu_seconds(), empty.cpu_seconds()
        _require_gone(live)
    shares = [100 * (end - begin) / seconds for begin, end in zip(before, after, strict=True)]
    return dict(zip(("live", "empty"), shares, strict=True))


@contextmanager
def _services() -> Iterator[None]:
    """Hold a socket for each live program."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, max(limit, _FILES)))
    with ExitStack() as held:
        for kind in _PROTOCOLS.values():
            for port in range(LIVE_PORTS, LIVE_PORTS + LIVE):
                service = held.enter_context(socket.socket(socket.AF_INET, kind))
                service.bind(("0.0.0.0", port))
                if kind is socket.SOCK_STREAM:
                    service.listen()
        yield


def _register_services(target: Running) -> None:
    ports = ("--ports", f"{LIVE_PORTS}:{LIVE}")
    for protocol in _PROTOCOLS:
        register(target, programs(LIVE), "--protocol", str(protocol), *ports)


def _require_gone(target: Running) -> None:
    """The services have ended: the check must see it, or its cost was not what was measured."""
    limit = time.monotonic() + GONE_LIMIT
    while run(target, "dump", "--seconds", "0.01")["mappings"] >= LIVE:
        if time.monotonic() > limit:
            raise MeasureError("ended services are still registered: no liveness check runs")
        time.sleep(0.2)
