"""``portmapctl restart``: another process in place of the daemon."""

from __future__ import annotations

import click

from portmapd.channel.commands import ITSELF
from portmapd.cli.output import as_json, encoded
from portmapd.client.blocking import Portmapper

#: How long a restart may take, in seconds: the daemon gives a new process half of it.
TIMEOUT = 60.0


@click.command()
@as_json
@click.pass_obj
def restart(path: str | None, as_json: bool) -> None:
    """Have a new process take the place of the daemon, of a newer version if there is one.

    Everything that is registered, and every connection, passes over to it. If it does not start,
    the daemon goes on as it was. Only root and the daemon's own user may do that.
    """
    with Portmapper(path, TIMEOUT) as portmapper:
        portmapper.restart()
        pids = [service.pid for service in portmapper.list(ITSELF)]
    if as_json:
        click.echo(encoded({"pids": pids}))
    else:
        click.echo(f"portmapd is restarted: process {', '.join(map(str, pids))} serves now")
