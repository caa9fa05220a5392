"""``portmapctl watch``: every change, as it comes."""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from portmapd.cli import parameters
from portmapd.cli.channel import complete_name, subject_cells
from portmapd.cli.output import as_json, echo, encoded, row
from portmapd.client.blocking import Portmapper
from portmapd.client.values import Change
from portmapd.errors import Terminated

#: The least widths of the columns: later rows are not known yet.
_WIDTHS = (19, 12, 24, 8, 7, 5, 0)
#: The colour of each kind of change on a terminal.
_COLOURS = {"registered": "green", "mapped": "green", "deregistered": "red", "unmapped": "red"}


@click.command()
@click.argument(
    "names",
    metavar="[NAME]...",
    nargs=-1,
    callback=parameters.service_names,
    shell_complete=complete_name,
)
@click.option("--cluster", is_flag=True, help="Watch what the machines of the cluster share.")
@as_json
@click.pass_obj
def watch(path: str | None, names: Sequence[str], cluster: bool, as_json: bool) -> None:
    """Print what is registered now, then every change, until interrupted.

    With NAMEs, only services of these names; otherwise RPC mappings as well. Each line begins with
    the time at which portmapctl was told.
    """
    with Portmapper(path) as portmapper:
        try:
            # SIGINT is the usual way to end this command.
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            gone = _reader_gone()
            for change in portmapper.watch(names or None, terminator=gone, cluster=cluster):
                _show(change, datetime.now(UTC), as_json)
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


def _show(change: Change, now: datetime, as_json: bool) -> None:
    subject = change.subject
    if as_json:
        time = now.isoformat(timespec="milliseconds")
        click.echo(encoded({"time": time, "change": change.kind, **subject._asdict()}))
        return
    of = subject_cells(subject)
    time = now.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    widths = (*_WIDTHS, *[0] * (len(of) + 2 - len(_WIDTHS)))
    echo(row((time, change.kind, *of), widths[: len(of) + 2]), fg=_COLOURS[change.kind])
