"""``portmapctl rpc set`` and ``unset``: mappings that nobody's process holds."""

from __future__ import annotations

import click

from portmapd.cli.exit import REFUSED, Exit
from portmapd.cli.output import as_json, encoded
from portmapd.cli.rpc import parameters
from portmapd.cli.rpc.server import Server, universal_address
from portmapd.errors import InvalidMapping
from portmapd.oncrpc.netid import NETIDS

netid_choice = click.Choice(list(NETIDS))


@click.command("set")
@parameters.program
@parameters.version
@click.argument("netid", type=netid_choice)
@click.argument("address")
@parameters.host
@parameters.timeout
@as_json
def set_address(
    program: int,
    version: int,
    netid: str,
    address: str,
    host: Server | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Register PROGRAM's VERSION on NETID.

    ADDRESS is a universal address, a port of every address of the host, or, for netid local, a
    path. Only port mappers of this host let you. The mapping stays until it is unset.
    """
    try:
        at = universal_address(netid, address)
    except InvalidMapping as error:
        raise click.BadParameter(str(error), param_hint="'ADDRESS'") from None
    with parameters.client(host, timeout) as client:
        done = client.set_address(program, version, netid, at)
    mapping = {"program": program, "version": version, "netid": netid, "address": at}
    _tell(as_json, {**mapping, "set": done})
    if not done:
        raise Exit(
            REFUSED,
            f"program {program} version {version} was not registered on {netid}; it may be "
            "registered already, as portmapctl rpc list shows, or you may not register it",
        )


@click.command("unset")
@parameters.program
@parameters.version
@parameters.host
@click.option("--netid", type=netid_choice, help="On this netid alone. [default: every one]")
@parameters.timeout
@as_json
def unset_address(
    program: int,
    version: int,
    host: Server | None,
    netid: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Remove PROGRAM's VERSION from every netid, or from one.

    A mapping is its owner's to remove, and the superuser's.
    """
    with parameters.client(host, timeout) as client:
        done = client.unset_address(program, version, netid or "")
    mapping = {"program": program, "version": version, "netid": netid}
    _tell(as_json, {**mapping, "unset": done})
    if not done:
        raise Exit(
            REFUSED,
            f"program {program} version {version} was not removed; it may not be registered, as "
            "portmapctl rpc list shows, or belong to another user",
        )


def _tell(as_json: bool, record: dict[str, object]) -> None:
    if as_json:
        click.echo(encoded(record))
