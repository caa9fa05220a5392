"""One run of ``portmapctl``, from its arguments to its exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from portmapd.cli.commands import portmapctl
from portmapd.cli.ending import DONE, USAGE, Ending, ending_of, unwritten
from portmapd.cli.text import line
from portmapd.errors import PortmapdError

#: The status that a shell gives to what SIGINT ended.
INTERRUPTED = 130


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say, and tell what went wrong.

    :param arguments: what stands behind its name; None: the process's own arguments.
    :return: the exit status.
    """
    ending = _run(arguments)
    if ending.why:
        click.echo(f"portmapctl: {line(ending.why)}", err=True)
    return ending.status


def _run(arguments: Sequence[str] | None) -> Ending:
    # No locale has a character for everything that a daemon may send.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = portmapctl.main(arguments, "portmapctl", standalone_mode=False)
    except Ending as ending:
        return ending
    except PortmapdError as error:
        return ending_of(error)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "portmapctl"
        return Ending(USAGE, f"{error.format_message().rstrip('.')}; see {path} --help")
    except click.Abort:
        return Ending(INTERRUPTED)
    except OSError as error:
        return unwritten(error)
    return Ending(status if isinstance(status, int) else DONE)
