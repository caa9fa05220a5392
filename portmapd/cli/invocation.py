"""One run of ``portmapctl``, from its arguments to its exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from portmapd.cli.commands import portmapctl
from portmapd.cli.exit import DONE, USAGE, Exit, exit_for, output_failed
from portmapd.cli.text import line
from portmapd.errors import PortmapdError

#: The exit status that shells use for SIGINT.
INTERRUPTED = 130


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and print what went wrong.

    :param arguments: the command line without the program's name; None: that of the process.
    :return: the exit status.
    """
    outcome = _run(arguments)
    if outcome.why:
        click.echo(f"portmapctl: {line(outcome.why)}", err=True)
    return outcome.status


def _run(arguments: Sequence[str] | None) -> Exit:
    # A daemon may send characters that the locale cannot encode.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = portmapctl.main(arguments, "portmapctl", standalone_mode=False)
    except Exit as outcome:
        return outcome
    except PortmapdError as error:
        return exit_for(error)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "portmapctl"
        return Exit(USAGE, f"{error.format_message().rstrip('.')}; see {path} --help")
    except click.Abort:
        return Exit(INTERRUPTED)
    except OSError as error:
        return output_failed(error)
    return Exit(status if isinstance(status, int) else DONE)
