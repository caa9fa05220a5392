"""The arguments and options that commands of ``portmapctl rpc`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from portmapd.cli.parameters import number
from portmapd.cli.rpc.server import Server, Transport, default_server, read_server
from portmapd.cli.text import SHOWN
from portmapd.client.blocking import PortmapClient
from portmapd.client.rpc.operations import TIMEOUT
from portmapd.rpc_names import FILE, LARGEST, read_programs

F = TypeVar("F", bound=Callable[..., Any])

#: The longest that a command may take, in seconds.
MAX_TIMEOUT = 3_600


def read_host(
    context: click.Context, parameter: click.Parameter | None, value: str | None
) -> Server | None:
    """A port mapper; None: this host's."""
    try:
        return None if value is None else read_server(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def read_program(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """A program, by its number or its name."""
    found = read_programs().number(value)
    if found is None:
        raise click.BadParameter(
            f"{value[:SHOWN]!r} is neither a number from 0 to {LARGEST} nor a name in {FILE}"
        )
    return found


def complete_program(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of programs that begin so."""
    names = sorted(read_programs().numbers)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def read_version(context: click.Context, parameter: click.Parameter | None, value: str) -> int:
    """A number of 32 bits."""
    return number(value, LARGEST)


host = click.argument("host", required=False, callback=read_host)
program = click.argument("program", callback=read_program, shell_complete=complete_program)
version = click.argument("version", callback=read_version)
timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0, MAX_TIMEOUT, min_open=True),
    default=TIMEOUT,
    help=f"How long it may take. [default: {TIMEOUT:g}]",
)
udp = click.option("--udp", is_flag=True, help="Over UDP.")
tcp = click.option("--tcp", is_flag=True, help="Over TCP.")


def over(function: F) -> F:
    """Add ``--udp`` and ``--tcp``."""
    return udp(tcp(function))


def one_of(udp: bool, tcp: bool) -> str:
    """The transport that was named; empty: none.

    :raises click.UsageError: both were.
    """
    if udp and tcp:
        raise click.UsageError("--udp and --tcp exclude each other")
    return "udp" if udp else "tcp" if tcp else ""


def client(
    server: Server | None, timeout: float, udp: bool = False, tcp: bool = False
) -> PortmapClient:
    """A client of a port mapper.

    :param server: None: this host's.
    :param udp: whether it is asked over UDP; if not, it is over TCP, which has room for any list.
    :raises click.UsageError: the options contradict each other.
    """
    transport = one_of(udp, tcp)
    server = server or default_server(transport)
    if not server.is_local:
        kind: Transport = "udp" if transport == "udp" else "tcp"
        return PortmapClient(server.host, server.port, kind, timeout)
    if transport:
        raise click.UsageError(f"--{transport} is not for a UNIX socket, such as {server}")
    return PortmapClient(server.host, transport="local", timeout=timeout)
