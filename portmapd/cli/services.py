"""Commands that show what is registered on the local channel."""

from __future__ import annotations

from collections.abc import Sequence

import click

from portmapd.cli import parameters
from portmapd.cli.channel import (
    CLUSTER_MAPPINGS,
    CLUSTER_SERVICES,
    MAPPINGS,
    SERVICES,
    cluster_service_cells,
    complete_name,
    mapping_cells,
    service_cells,
)
from portmapd.cli.exit import REFUSED, Exit
from portmapd.cli.output import as_json, encoded, show
from portmapd.cli.text import cell
from portmapd.cli.waiting import wait, waited_for
from portmapd.client.blocking import Portmapper
from portmapd.client.values import Service
from portmapd.errors import NotListed

of_user = click.option(
    "--user",
    metavar="U",
    callback=parameters.user,
    help="Only services that this user (name or uid) registered.",
)


of_cluster = click.option("--cluster", is_flag=True, help="What the machines of the cluster share.")
of_host = click.option("--host", metavar="NAME", help="What that machine of the cluster shares.")


@click.command()
@click.argument("name", required=False, shell_complete=complete_name)
@of_user
@click.option(
    "--pid",
    metavar="P",
    callback=parameters.pid,
    help="Only services that this process registered.",
)
@of_cluster
@of_host
@as_json
@click.pass_obj
def services(
    path: str | None,
    name: str | None,
    user: Sequence[int] | None,
    pid: int | None,
    cluster: bool,
    host: str | None,
    as_json: bool,
) -> None:
    """List the registered services, or those named NAME."""
    if cluster or host is not None:
        _list_cluster(path, name, user, pid, host, as_json)
        return
    with Portmapper(path) as portmapper:
        found = portmapper.list(name, user, pid)
    rows = sorted(found, key=lambda s: (s.name, s.user, s.pid, str(s.port)))
    show(as_json, [row._asdict() for row in rows], SERVICES, map(service_cells, rows))
    if not found:
        raise Exit(REFUSED, "no such service is registered; portmapctl services lists all")


def _list_cluster(
    path: str | None,
    name: str | None,
    user: Sequence[int] | None,
    pid: int | None,
    host: str | None,
    as_json: bool,
) -> None:
    if pid is not None:
        raise click.UsageError("--pid is for this machine: leave it out, or --cluster")
    with Portmapper(path) as portmapper:
        found = portmapper.list(name, user, cluster=True, host=host)
    _tell_age(found.age)
    rows = sorted(found, key=lambda s: (s.name, s.user, s.host, str(s.port), s.pid))
    cells = map(cluster_service_cells, rows)
    show(as_json, [row._asdict() for row in rows], CLUSTER_SERVICES, cells)
    if not found:
        raise Exit(REFUSED, "the cluster shares no such service")


def _tell_age(age: int) -> None:
    """Say how old a list is, unless it is current."""
    if age:
        click.echo(f"portmapctl: etcd is not reached; this was known {age} s ago", err=True)


@click.command()
@click.argument("name", callback=parameters.service_name, shell_complete=complete_name)
@of_user
@wait
@as_json
@click.pass_obj
def port(
    path: str | None, name: str, user: Sequence[int] | None, wait: float, as_json: bool
) -> None:
    """Print the port of the service NAME, for scripts.

    It is a number, or the path of a UNIX socket. If several are registered, it is that of one.
    """
    with Portmapper(path) as portmapper:
        found = waited_for(lambda: _registered(portmapper, name, user), wait)
    one = min(found, key=lambda s: (s.user, s.pid, str(s.port)))
    click.echo(encoded(one._asdict()) if as_json else cell(one.port))


def _registered(portmapper: Portmapper, name: str, user: Sequence[int] | None) -> Sequence[Service]:
    found = portmapper.list(name, user)
    if not found:
        raise NotListed(f"no service {name} is registered")
    return found


@click.command()
@of_cluster
@of_host
@as_json
@click.pass_obj
def mappings(path: str | None, cluster: bool, host: str | None, as_json: bool) -> None:
    """List the RPC mappings, whoever made them."""
    with Portmapper(path) as portmapper:
        if cluster or host is not None:
            known = portmapper.mappings(cluster=True, host=host)
            _tell_age(known.age)
            rows = sorted(known)
            show(as_json, [row._asdict() for row in rows], CLUSTER_MAPPINGS, rows)
            return
        found = portmapper.mappings()
    show(as_json, [row._asdict() for row in found], MAPPINGS, map(mapping_cells, found))


@click.command()
@click.argument("pid", callback=parameters.pid)
@as_json
@click.pass_obj
def pid2exe(path: str | None, pid: int, as_json: bool) -> None:
    """Print the path of the executable that process PID announces."""
    with Portmapper(path) as portmapper:
        exe = portmapper.pid2exe(pid)
    if as_json:
        click.echo(encoded({"pid": pid, "exe": exe}))
    elif exe:
        click.echo(cell(exe))
    if not exe:
        raise Exit(
            REFUSED,
            f"process {pid} has not announced its executable; regpid2exe() does that",
        )
