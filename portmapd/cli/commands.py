"""The commands of ``portmapctl``."""

from __future__ import annotations

import json
import pwd
import select
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Thread
from typing import Any

import click

from portmapd import __version__
from portmapd.channel.commands import ITSELF
from portmapd.cli import parameters
from portmapd.cli.child import Child
from portmapd.cli.exit import REFUSED, Exit, exit_for, output_failed
from portmapd.cli.text import cell, columns, line, table
from portmapd.client.blocking import Flags, Group, Portmapper, RpcMapping, Service
from portmapd.client.values import Change
from portmapd.errors import PortmapdError, Terminated

#: How long a restart may take, in seconds: the daemon gives a new process half of it.
RESTART_TIMEOUT = 60.0

#: The headings of the tables.
_SERVICES = ("NAME", "USER", "PID", "PORT", "EXE")
_MAPPINGS = ("PROGRAM", "VERSION", "NETID", "ADDRESS", "OWNER")
#: The least widths of the columns of changes: later rows are not known yet.
_WIDTHS = (12, 24, 8, 7, 5, 0)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Commands(click.Group):
    """Commands whose output may fail: a closed pipe, a full disk."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(context)
        except OSError as error:
            raise output_failed(error) from None


@click.group(cls=Commands, no_args_is_help=False)
@click.option(
    "--socket",
    metavar="PATH",
    help="The daemon's socket. [default: the user's own daemon's if there is one, else the "
    "system's]",
)
@click.version_option(__version__, prog_name="portmapctl")
@click.pass_context
def portmapctl(context: click.Context, socket: str | None) -> None:
    """Show, watch and register the named services of this machine.

    The exit status is 0 for success, 1 if something was refused or not found, 2 for wrong usage,
    and 3 if the daemon cannot be reached.
    """
    context.obj = partial(Portmapper, socket)


Connect = Callable[..., Portmapper]


@portmapctl.command()
@click.argument("name", required=False)
@click.option(
    "--user",
    metavar="U",
    callback=parameters.user,
    help="Only services that this user (name or uid) registered.",
)
@click.option(
    "--pid",
    metavar="P",
    callback=parameters.pid,
    help="Only services that this process registered.",
)
@as_json
@click.pass_obj
def services(
    connect: Connect,
    name: str | None,
    user: Sequence[int] | None,
    pid: int | None,
    as_json: bool,
) -> None:
    """List the registered services, or those named NAME."""
    with connect() as portmapper:
        found = portmapper.list(name, user, pid)
    rows = sorted(found, key=lambda s: (s.name, s.user, s.pid, str(s.port)))
    _show(as_json, rows, _SERVICES, map(_service_cells, rows))
    if not found:
        raise Exit(REFUSED, "no such service is registered; portmapctl services lists all")


@portmapctl.command()
@as_json
@click.pass_obj
def mappings(connect: Connect, as_json: bool) -> None:
    """List the RPC mappings, whoever made them."""
    with connect() as portmapper:
        found = portmapper.mappings()
    _show(as_json, found, _MAPPINGS, map(_mapping_cells, found))


@portmapctl.command()
@click.argument("pid", callback=parameters.pid)
@as_json
@click.pass_obj
def pid2exe(connect: Connect, pid: int, as_json: bool) -> None:
    """Print the path of the executable that process PID announces."""
    with connect() as portmapper:
        exe = portmapper.pid2exe(pid)
    if as_json:
        click.echo(json.dumps({"pid": pid, "exe": exe}))
    elif exe:
        click.echo(cell(exe))
    if not exe:
        raise Exit(
            REFUSED,
            f"process {pid} has not announced its executable; regpid2exe() does that",
        )


@portmapctl.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, callback=parameters.service_names)
@as_json
@click.pass_obj
def watch(connect: Connect, names: Sequence[str], as_json: bool) -> None:
    """Print what is registered now, then every change, until interrupted.

    With NAMEs, only services of these names; otherwise RPC mappings as well.
    """
    with connect() as portmapper:
        try:
            # SIGINT is the usual way to end this command.
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            for change in portmapper.watch(names or None, terminator=_reader_gone()):
                click.echo(_json_change(change) if as_json else _change_line(change))
        except (KeyboardInterrupt, Terminated):
            pass


def _reader_gone() -> select.epoll | None:
    """A descriptor that is readable once standard output has no reader; None if it is a file."""
    try:
        poll = select.epoll()
        # No events: errors and hang-ups are always reported.
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError, ValueError):
        # A file cannot be waited for, and a closed one has no descriptor.
        return None
    return poll


@portmapctl.command()
@click.pass_obj
def restart(connect: Connect) -> None:
    """Have a new process take the place of the daemon, of a newer version if there is one.

    Everything that is registered, and every connection, passes over to it. If it does not start,
    the daemon goes on as it was. Only root and the daemon's own user may do that.
    """
    with connect(timeout=RESTART_TIMEOUT) as portmapper:
        portmapper.restart()
        pids = [service.pid for service in portmapper.list(ITSELF)]
    click.echo(f"portmapd is restarted: process {', '.join(map(str, pids))} serves now")


@portmapctl.command()
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
    connect: Connect,
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
    with connect(lost=_tell_lost) as portmapper:
        portmapper.reg(name, port, flags, rpc=rpc)
        child = Child(command)
        # Keep the registration when the daemon restarts.
        Thread(target=portmapper.hold, daemon=True).start()
        return child.wait()


def _tell_lost(group: Group, why: PortmapdError) -> None:
    names = ", ".join(dict.fromkeys(name for name, _, _ in group.services))
    said = f"{names} is not registered any more: {exit_for(why).why}"
    click.echo(f"portmapctl: {line(said)}", err=True)


def _show(
    as_json: bool,
    values: Sequence[Any],
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> None:
    if as_json:
        click.echo(json.dumps([value._asdict() for value in values], indent=2))
    elif values:
        for text in table(head, rows):
            click.echo(text)


def _service_cells(service: Service) -> Sequence[object]:
    user = _user_name(service.user)
    return service.name, user, service.pid, service.port, service.exe


def _mapping_cells(mapping: RpcMapping) -> Sequence[object]:
    return mapping.program, mapping.version, mapping.netid, mapping.address, mapping.owner


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _change_line(change: Change) -> str:
    subject = change.subject
    of = _service_cells(subject) if isinstance(subject, Service) else _mapping_cells(subject)
    return columns([cell(value) for value in (change.kind, *of)], _WIDTHS)


def _json_change(change: Change) -> str:
    return json.dumps({"change": change.kind, **change.subject._asdict()})
