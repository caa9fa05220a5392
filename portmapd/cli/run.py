"""``portmapctl run``: a command that has a name while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread

import click

from portmapd.cli import parameters
from portmapd.cli.child import Child
from portmapd.cli.exit import exit_for
from portmapd.cli.text import line
from portmapd.client.blocking import Flags, Group, Portmapper
from portmapd.errors import PortmapdError


@click.command()
@click.argument("name", callback=parameters.service_name)
@click.argument("port", callback=parameters.port)
@click.option("--exclusive", is_flag=True, help="No other process of the user may have the name.")
@click.option("--public", is_flag=True, help="Show portmapctl's executable in listings.")
@click.option(
    "--rpc",
    metavar="PROG:VERS",
    callback=parameters.program,
    help="Map an RPC program to the port as well.",
)
@click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, callback=parameters.command_line
)
@click.pass_obj
def run(
    path: str | None,
    name: str,
    port: str,
    exclusive: bool,
    public: bool,
    rpc: tuple[int, int] | None,
    command: Sequence[str],
) -> int:
    """Register NAME for PORT, a number or a path, while COMMAND runs.

    The exit status is that of COMMAND, or 128 plus the number of the signal that ended it. The
    registration ends with it. Signals are passed on to COMMAND, which gets SIGTERM if portmapctl
    is killed.
    """
    flags = exclusive * Flags.EXCLUSIVE | public * Flags.PUBLIC
    with Portmapper(path, lost=_tell_lost) as portmapper:
        portmapper.reg(name, port, flags, rpc=rpc)
        child = Child(command)
        # Keep the registration when the daemon restarts.
        Thread(target=portmapper.hold, daemon=True).start()
        return child.wait()


def _tell_lost(group: Group, why: PortmapdError) -> None:
    names = ", ".join(dict.fromkeys(name for name, _, _ in group.services))
    said = f"{names} is not registered any more: {exit_for(why).why}"
    click.echo(f"portmapctl: {line(said)}", err=True)
