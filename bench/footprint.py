"""What portmapd costs at rest: its start, its memory, the liveness check."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from attrs import evolve

from bench.errors import MeasureError
from bench.load import TEN, Programs, ask, register
from bench.plan import Plan
from bench.process import cpu_seconds, resident_bytes
from bench.rows import Row, against, below, in_turn
from bench.servers import Running, Server, portmapd, rpcbind, running

SETTLE = 2.0
"""Seconds for a server to come to rest."""

LIVE = Programs(500)
"""Of each protocol."""

LIVE_PORTS = 20000
"""The first of the ports that live programs hold; above them nothing is bound by chance."""

GONE_LIMIT = 10.0
"""Seconds for ended services to disappear; beyond them the check did not run at all."""

_PROTOCOLS = {socket.IPPROTO_UDP: socket.SOCK_DGRAM, socket.IPPROTO_TCP: socket.SOCK_STREAM}
_FILES = 4096


def start(plan: Plan) -> list[Row]:
    """Seconds from exec to the first answer, a NULL call over UDP."""
    mine, peer = in_turn(plan.starts, *(partial(_start, each) for each in (portmapd(), rpcbind())))
    row = against("exec to first answer, median", "s", mine, "rpcbind", peer)
    worst = Row("exec to first answer, slowest", "s", max(mine), "rpcbind", max(peer))
    return [evolve(row, goal=below(0.3, "s")), worst]


def imported(plan: Plan) -> list[Row]:
    """Milliseconds for the import of the blocking client, beside that of Twisted's reactor."""
    mine, peer = in_turn(
        plan.starts,
        partial(_import, "portmapd.client.blocking"),
        partial(_import, "twisted.internet.reactor"),
    )
    row = against("import portmapd.client.blocking", "ms", mine, "twisted's reactor", peer)
    return [evolve(row, goal=below(60, "ms"))]


def memory(plan: Plan) -> list[Row]:
    """The resident set after a few calls and a rest."""
    mine, peer = in_turn(
        plan.rounds, *(partial(_resident, each) for each in (portmapd(), rpcbind()))
    )
    row = against("resident when idle", "MB", mine, "rpcbind", peer)
    return [evolve(row, goal=below(45, "MB"))]


def liveness(plan: Plan) -> list[Row]:
    """The processor that a resting portmapd takes with 1,000 live mappings, and with none."""
    with ExitStack() as servers:
        empty = servers.enter_context(running(portmapd(211)))
        watching = servers.enter_context(running(portmapd(212)))
        with _services():
            _register_services(watching)
            time.sleep(SETTLE)
            shares = _idle_shares(plan.idle_seconds, watching, empty)
        _expect_gone(watching)
    row = Row("processor at rest, 1,000 live mappings", "%", shares[0], "portmapd, none", shares[1])
    return [evolve(row, goal=below(1, "%"))]


def _start(server: Server) -> float:
    with running(server) as started:
        return started.start_seconds


def _import(name: str) -> float:
    """Milliseconds, in an interpreter of its own."""
    code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout) * 1000


def _resident(server: Server) -> float:
    with running(server) as started:
        register(started, TEN)
        ask(started, "udp", "--seconds", "0.1", "--programs", str(TEN))
        time.sleep(SETTLE)
        return resident_bytes(started.pid) / 1e6


@contextmanager
def _services() -> Iterator[None]:
    """Hold a socket for each live program."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, max(limit, _FILES)))
    with ExitStack() as held:
        for kind in _PROTOCOLS.values():
            for port in range(LIVE_PORTS, LIVE_PORTS + LIVE.count):
                held.enter_context(_service(kind, port))
        yield


def _service(kind: socket.SocketKind, port: int) -> socket.socket:
    service = socket.socket(socket.AF_INET, kind)
    service.bind(("0.0.0.0", port))
    if kind is socket.SOCK_STREAM:
        service.listen()
    return service


def _register_services(server: Running) -> None:
    ports = ("--ports", f"{LIVE_PORTS}:{LIVE.count}")
    for protocol in _PROTOCOLS:
        register(server, LIVE, "--protocol", str(protocol), *ports)


def _idle_shares(seconds: float, *servers: Running) -> list[float]:
    """Percent of one processor for each server over the same seconds."""
    began, before = time.monotonic(), [cpu_seconds(each.pid) for each in servers]
    time.sleep(seconds)
    passed, after = time.monotonic() - began, [cpu_seconds(each.pid) for each in servers]
    return [100 * (end - start) / passed for start, end in zip(before, after, strict=True)]


def _expect_gone(server: Running) -> None:
    """The services have ended: the check must see it, or its cost was not what was measured."""
    limit = time.monotonic() + GONE_LIMIT
    while ask(server, "dump", "--seconds", "0.01").mappings >= LIVE.count:
        if time.monotonic() > limit:
            raise MeasureError("ended services are still registered: no liveness check runs")
        time.sleep(0.2)
