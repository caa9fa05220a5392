"""The command ``portmapctl``, and where its commands are."""

from __future__ import annotations

import os

import click

from portmapd import __version__
from portmapd.cli.group import Commands

#: Where each command is.
TABLE = {
    "services": "portmapd.cli.services:services",
    "port": "portmapd.cli.services:port",
    "connect": "portmapd.cli.connect:connect",
    "run": "portmapd.cli.run:run",
    "watch": "portmapd.cli.watch:watch",
    "pid2exe": "portmapd.cli.services:pid2exe",
    "mappings": "portmapd.cli.services:mappings",
    "cluster": "portmapd.cli.cluster:cluster",
    "status": "portmapd.cli.status:status",
    "restart": "portmapd.cli.restart:restart",
    "rpc": "portmapd.cli.rpc.commands:rpc",
}


@click.group(
    cls=Commands,
    table=TABLE,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--socket",
    metavar="PATH",
    help="The daemon's socket. [default: the user's own daemon's if there is one, else the "
    "system's]",
)
@click.version_option(__version__, prog_name="portmapctl")
@click.pass_context
def portmapctl(context: click.Context, socket: str | None) -> None:
    """Show, watch and register the named services of this machine, and ask port mappers.

    The exit status is 0 for success, 1 if something was refused or not found, 2 for wrong usage,
    and 3 if the daemon, the port mapper or the service cannot be reached.
    """
    context.obj = socket
    if os.environ.get("NO_COLOR"):
        context.color = False
