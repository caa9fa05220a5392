"""``portmapctl rpc stats``: what a port mapper was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click
from attrs import asdict

from portmapd.cli.output import as_json, encoded, show_table
from portmapd.cli.rpc import parameters
from portmapd.cli.rpc.server import Server
from portmapd.oncrpc.program import PmapProcedure, RpcbProcedure, RpcbStat

_LOOKUPS = ("VERSION", "PROGRAM", "OF VERSION", "NETID", "FOUND", "NOT FOUND")
_CALLS = ("VERSION", "PROGRAM", "OF VERSION", "PROCEDURE", "NETID", "ANSWERED", "FAILED")


@click.command()
@parameters.host
@parameters.over
@parameters.timeout
@as_json
def stats(host: Server | None, udp: bool, tcp: bool, timeout: float, as_json: bool) -> None:
    """Show how often a port mapper was asked for what, since its start."""
    with parameters.client(host, timeout, udp, tcp) as client:
        found = client.getstat()
    if as_json:
        click.echo(encoded({version: asdict(stat) for version, stat in found.items()}, indent=2))
        return
    show_table(("PROCEDURE", *(f"VERSION {version}" for version in found)), _calls(found))
    for head, rows in ((_LOOKUPS, _lookups(found)), (_CALLS, _remote_calls(found))):
        if lines := list(rows):
            click.echo()
            show_table(head, lines)


def _calls(found: Mapping[int, RpcbStat]) -> Iterator[Sequence[object]]:
    for procedure in RpcbProcedure:
        yield _name(procedure), *(stat.calls[procedure] for stat in found.values())
    yield "SET, done", *(stat.sets for stat in found.values())
    yield "UNSET, done", *(stat.unsets for stat in found.values())


def _name(procedure: RpcbProcedure) -> str:
    """The name of a procedure, and that of version 2 if it is another one."""
    name = procedure.name.removeprefix("RPCBPROC_")
    if procedure > max(PmapProcedure):
        return name
    old = PmapProcedure(procedure).name.removeprefix("PMAPPROC_")
    return name if name == old else f"{old}, {name}"


def _lookups(found: Mapping[int, RpcbStat]) -> Iterator[Sequence[object]]:
    for version, stat in found.items():
        for each in stat.lookups:
            yield version, each.program, each.version, each.netid, each.success, each.failure


def _remote_calls(found: Mapping[int, RpcbStat]) -> Iterator[Sequence[object]]:
    for version, stat in found.items():
        for each in stat.remote_calls:
            called = (each.program, each.version, each.procedure, each.netid)
            yield version, *called, each.success, each.failure
