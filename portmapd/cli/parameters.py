"""The arguments of ``portmapctl``, checked as far as possible without a daemon.

Each function is a click callback and raises :exc:`click.BadParameter` for a wrong value.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from portmapd.channel.service import check_service
from portmapd.cli.exit import REFUSED, Exit
from portmapd.cli.text import SHOWN
from portmapd.client.reg_arguments import registrations
from portmapd.client.values import user_ids
from portmapd.errors import BadArguments, InvalidMapping, InvalidService
from portmapd.oncrpc.netid import check_path

#: The largest number of an RPC program or version, and the largest uid.
_LARGEST = (1 << 32) - 1
#: The largest process id that there can be.
_LARGEST_PID = 1 << 22
#: Stands for a port that is chosen.
AUTO = "auto"


def service_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A name that may be registered."""
    try:
        check_service(value, "1", 0)
    except InvalidService as error:
        raise click.BadParameter(str(error)) from None
    return value


def service_names(
    context: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> Sequence[str]:
    """Names that may be registered."""
    return [service_name(context, parameter, name) for name in value]


def port(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A port number, or an absolute path."""
    try:
        ((_, found, _),) = registrations("any", value)
        if found.startswith("/"):
            check_path(found)
    except (InvalidService, InvalidMapping) as error:
        raise click.BadParameter(str(error)) from None
    return found


def port_or_auto(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The same, or the word for a port that is chosen."""
    return value if value == AUTO else port(context, parameter, value)


def program(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """A program number and a version."""
    if value is None:
        return None
    program, colon, version = value.partition(":")
    if not colon:
        raise click.BadParameter(f"{value[:SHOWN]!r} is not PROG:VERS, two numbers")
    return number(program, _LARGEST), number(version, _LARGEST)


def pid(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A process."""
    return None if value is None else number(value, _LARGEST_PID)


def user(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Sequence[int] | None:
    """A user, by name or uid."""
    if value is not None and _is_number(value):
        return [number(value, _LARGEST)]
    try:
        return user_ids(value)
    except BadArguments as error:
        raise Exit(REFUSED, f"{error}; give the name of a user, or a uid") from None


def command_line(
    context: click.Context, parameter: click.Parameter, value: Sequence[str]
) -> Sequence[str]:
    """A program and its arguments."""
    # If there are two --, the first one protected a NAME that begins with a dash.
    command = value[1:] if value[:1] == ("--",) else value
    if not command:
        raise click.MissingParameter(ctx=context, param=parameter)
    return command


def number(text: str, largest: int) -> int:
    """A number from 0 to *largest*.

    :raises click.BadParameter: it is none.
    """
    if not _is_number(text) or len(text) > len(str(largest)) or int(text) > largest:
        raise click.BadParameter(f"{text[:SHOWN]!r} is not a number from 0 to {largest}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
