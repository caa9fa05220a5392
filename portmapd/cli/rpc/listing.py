"""``portmapctl rpc list`` and ``addresses``: what is registered with a port mapper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from attrs import asdict

from portmapd.cli.exit import REFUSED, Exit
from portmapd.cli.output import Records, as_json, show
from portmapd.cli.rpc import parameters
from portmapd.cli.rpc.server import Server
from portmapd.oncrpc.netid import PROTOCOLS
from portmapd.oncrpc.program import Pmap, Rpcb
from portmapd.rpc_names import Programs, read_programs

_LONG = ("program", "version", "netid", "address", "name", "owner")
_SHORT = ("program", "versions", "netids", "name", "owner")
_PORTS = ("program", "version", "protocol", "port", "name")
_ADDRESSES = ("netid", "address", "semantics", "family", "protocol")
#: What ``nc_semantics`` are called.
_SEMANTICS = {1: "datagrams", 2: "stream", 3: "stream"}


@click.command("list")
@parameters.host
@click.option("--short", is_flag=True, help="One line for each program.")
@click.option("--ports", is_flag=True, help="The ports, as version 2 lists them.")
@parameters.over
@parameters.timeout
@as_json
def listing(
    host: Server | None,
    short: bool,
    ports: bool,
    udp: bool,
    tcp: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """List what is registered with a port mapper, and whose it is.

    Versions 4, 3 and 2 of the port mapper are tried in this order.
    """
    if short and ports:
        raise click.UsageError("--short and --ports exclude each other")
    programs = read_programs()
    with parameters.client(host, timeout, udp, tcp) as client:
        if ports:
            found = _ports(client.dump(), programs)
        else:
            found = (_short if short else _long)(client.dump_addresses(), programs)
    head = _PORTS if ports else _SHORT if short else _LONG
    _show(as_json, head, found, "nothing is registered there")


def _long(mappings: Iterable[Rpcb], programs: Programs) -> Records:
    ordered = sorted(mappings, key=lambda m: (m.program, m.version, m.netid, m.address))
    return [{**asdict(m), "name": programs.name(m.program)} for m in ordered]


def _short(mappings: Iterable[Rpcb], programs: Programs) -> Records:
    by_program: dict[int, list[Rpcb]] = {}
    for mapping in mappings:
        by_program.setdefault(mapping.program, []).append(mapping)
    return [
        {
            "program": program,
            "versions": sorted({m.version for m in its}),
            "netids": sorted({m.netid for m in its}),
            "name": programs.name(program),
            "owner": ",".join(sorted({m.owner for m in its})),
        }
        for program, its in sorted(by_program.items())
    ]


def _ports(mappings: Iterable[Pmap], programs: Programs) -> Records:
    ordered = sorted(mappings, key=lambda m: (m.program, m.version, m.protocol, m.port))
    return [
        {**asdict(m), "protocol": _protocol(m.protocol), "name": programs.name(m.program)}
        for m in ordered
    ]


def _protocol(number: int) -> str:
    return PROTOCOLS[number].name if number in PROTOCOLS else str(number)


@click.command()
@parameters.program
@parameters.version
@parameters.host
@parameters.over
@parameters.timeout
@as_json
def addresses(
    program: int,
    version: int,
    host: Server | None,
    udp: bool,
    tcp: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """List the addresses of a program's version, as a caller reaches them.

    They are those of the family over which the port mapper is asked: IPv4, IPv6, or its socket.
    """
    with parameters.client(host, timeout, udp, tcp) as client:
        entries = client.getaddrlist(program, version)
    found = [
        {**asdict(entry), "semantics": _SEMANTICS.get(entry.semantics, str(entry.semantics))}
        for entry in entries
    ]
    missing = f"program {program} version {version} is not registered there, over this family"
    _show(as_json, _ADDRESSES, found, f"{missing}; portmapctl rpc list shows what is")


def _show(as_json: bool, head: Sequence[str], records: Records, missing: str) -> None:
    rows = ([_joined(record[name]) for name in head] for record in records)
    show(as_json, records, [name.upper() for name in head], rows)
    if not records:
        raise Exit(REFUSED, missing)


def _joined(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list) else value
