"""``portmapctl cluster``: how this machine stands in its cluster."""

from __future__ import annotations

from collections.abc import Iterator

import click

from portmapd.cli.exit import REFUSED, Exit
from portmapd.cli.output import as_json, encoded, show_table
from portmapd.cli.text import line
from portmapd.client.blocking import Portmapper
from portmapd.client.values import ClusterStatus

_HOSTS = ("HOST", "ADDRESS", "RELEASE", "SERVICES")
_MEMBERS = ("ETCD", "STATE")


@click.command()
@as_json
@click.pass_obj
def cluster(path: str | None, as_json: bool) -> None:
    """Show how this machine stands in its cluster, and what the others share.

    The exit status is 1 unless it has joined.
    """
    with Portmapper(path) as portmapper:
        told = portmapper.cluster()
    if as_json:
        members = [{"url": url, "state": state} for url, state in told.members]
        hosts = [host._asdict() for host in told.hosts]
        click.echo(encoded({**told._asdict(), "members": members, "hosts": hosts}, indent=2))
    else:
        for text in _lines(told):
            click.echo(line(text))
        show_table(_MEMBERS, told.members)
        show_table(_HOSTS, [tuple(host) for host in told.hosts])
    if told.state != "joined":
        raise Exit(REFUSED, f"{told.host} is cut off from its cluster ({told.state}): {told.why}")


def _lines(told: ClusterStatus) -> Iterator[str]:
    yield f"{told.host} at {told.address}: {told.state}"
    if told.lease:
        yield f"lease {told.lease:x}, {told.left} s left; revision {told.revision}"
    if told.age is None:
        yield "nothing is known of the others yet"
    elif told.age:
        yield f"what is known of the others is {told.age} s old"
