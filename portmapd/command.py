"""The command ``portmapd``: the port mapper as a daemon of its own.

It is ``twistd --nodaemon portmapd`` with a help of its own, one line for what is wrong, and a check
of the configuration.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from portmapd import __version__
from portmapd.errors import ConfigurationError
from portmapd.options import CONFIG, OPTIONS, Group, Option, Settings, settings

#: The exit status for options that cannot be used; 1 is that of a start that fails.
USAGE = 2

_EXAMPLES = """\
Examples:

\b
  portmapd                                     serve this host, in place of rpcbind
  portmapd --interface :: --allow 192.0.2.0/24 serve a network, too
  portmapd --port 10111 --rpc-socket none      beside another port mapper
  portmapd --interface 0.0.0.0 --check-config  look whether that could be used
"""


class _Command(click.Command):
    """A command whose help is grouped by what one wants."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group."""
        rows = {p.name: p.get_help_record(context) for p in self.get_params(context)}
        for group in Group:
            names = [_key(option) for option in OPTIONS if option.group is group]
            _section(formatter, group.value, [rows.pop(name) for name in names])
        _section(formatter, "This command", list(rows.values()))


def _section(
    formatter: click.HelpFormatter, title: str, rows: Sequence[tuple[str, str] | None]
) -> None:
    with formatter.section(title):
        formatter.write_dl([row for row in rows if row is not None], col_max=24)


def _key(option: Option) -> str:
    return option.name.replace("-", "_")


def _parameter(option: Option) -> click.Option:
    names = [f"--{option.name}", *([f"-{option.letter}"] if option.letter else [])]
    kind: dict[str, Any] = {"is_flag": True} if option.is_flag else {"metavar": option.metavar}
    return click.Option(
        names, help=option.description, multiple=option.repeated, default=None, **kind
    )


_PARAMETERS = [
    *map(_parameter, OPTIONS),
    click.Option(["--config"], metavar="FILE", help=CONFIG),
    click.Option(
        ["--check-config"],
        is_flag=True,
        help="Say whether the options can be used, and what they amount to; serve nothing.",
    ),
    click.Option(["--background"], is_flag=True, help="Serve in the background."),
    click.Option(["--pid-file"], metavar="PATH", help="Write the process id there."),
    click.Option(["--log-file"], metavar="PATH", help="Log there. [default: the standard output]"),
]


@click.command(
    "portmapd", cls=_Command, params=_PARAMETERS, epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
@click.version_option(__version__, message="portmapd %(version)s")
def portmapd(**parameters: Any) -> list[str] | None:
    """Tell callers on which port a service listens: RPC program 100000, and named services of this
    machine.

    An option may also be given as an environment variable (PORTMAPD_PORT=10111) or as a line of the
    file (port = 10111). The command line is stronger than the environment, and that stronger than
    the file.
    """
    given = {o.name: v for o in OPTIONS if (v := parameters[_key(o)]) not in (None, (), False)}
    found = settings(given, file=parameters["config"])
    if parameters["check_config"]:
        click.echo("\n".join(_summary(found)))
        return None
    return _twistd(given, parameters)


def _summary(found: Settings) -> list[str]:
    """Every option that was given, and where."""
    last = {name: source for source in found.sources for name in source.given}
    rows = [
        f"{name} = {_shown(last[name].given[name])}  # {last[name].name or 'command line'}"
        for name in (option.name for option in OPTIONS)
        if name in last
    ]
    return [*rows, "The options can be used."]


def _shown(given: str | Sequence[str] | bool) -> str:
    """What was given, as the file has it: strings of JSON are strings of TOML."""
    return json.dumps(list(given) if isinstance(given, tuple) else given)


def _twistd(given: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """The command line of twistd that serves."""
    words = ["twistd", *([] if parameters["background"] else ["--nodaemon"])]
    words.append(f"--pidfile={_absolute(parameters['pid_file'])}")
    if parameters["log_file"]:
        words.append(f"--logfile={_absolute(parameters['log_file'])}")
    words.append("portmapd")
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name}" if each is True else f"--{name}={each}" for each in values]
    if parameters["config"]:
        words.append(f"--config={parameters['config']}")
    return words


def _absolute(path: str | None) -> str:
    return os.path.abspath(path) if path else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``portmapd``.

    :param arguments: the command line without the program's name; None: that of the process.
    :return: the exit status: 0, 1 if it cannot start, 2 if an option cannot be used.
    """
    try:
        words = portmapd.main(arguments, "portmapd", standalone_mode=False)
    except click.UsageError as error:
        click.echo(f"portmapd: {error.format_message().rstrip('.')}; see portmapd --help", err=True)
        return USAGE
    except ConfigurationError as error:
        click.echo(f"portmapd: {error}", err=True)
        return USAGE
    if not isinstance(words, list):
        return 0
    # Twisted takes a while to import, and is not needed above.
    from portmapd.background import run

    sys.argv = words
    run()
    return 0
