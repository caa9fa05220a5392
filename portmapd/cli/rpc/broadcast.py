"""``portmapctl rpc broadcast``: who serves a program on this host's networks?"""

from __future__ import annotations

import sys
import time
from threading import Event, Thread
from types import TracebackType
from typing import Self

import click

from portmapd.cli.exit import REFUSED, Exit
from portmapd.cli.output import as_json, echo, encoded, row
from portmapd.cli.rpc import parameters
from portmapd.client.blocking import PortmapClient
from portmapd.client.rpc.broadcast_call import LIMIT, BroadcastReply
from portmapd.client.rpc.operations import PORT
from portmapd.client.rpc.wire import MAX_PORT

#: How often the progress is shown, in seconds.
_PERIOD = 0.5
#: Erases a line of a terminal.
_ERASE = "\r\x1b[K"
#: The least widths of the columns: later rows are not known yet.
_WIDTHS = (15, 0)


class Progress:
    """How many hosts have answered, and the time that is left, on a terminal's last line.

    :param seconds: how long it takes.
    """

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._over = Event()
        self._is_shown = sys.stderr.isatty()
        self.count = 0

    def __enter__(self) -> Self:
        if self._is_shown:
            Thread(target=self._show, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self.erase()

    def erase(self) -> None:
        """Make room for a line."""
        if self._is_shown:
            click.echo(_ERASE, err=True, nl=False)

    def _show(self) -> None:
        while not self._over.is_set():
            left = max(self._ends - time.monotonic(), 0)
            click.echo(f"{_ERASE}{self.count} answers, {left:.0f} s left", err=True, nl=False)
            self._over.wait(_PERIOD)


@click.command()
@parameters.program
@click.argument("version", callback=parameters.read_version, required=False, default="1")
@click.option(
    "--port",
    type=click.IntRange(1, MAX_PORT),
    default=PORT,
    metavar="PORT",
    help=f"The port of the port mappers. [default: {PORT}]",
)
@click.option(
    "--limit",
    type=click.IntRange(1, LIMIT),
    default=LIMIT,
    metavar="N",
    help=f"End after N hosts. [default: {LIMIT}]",
)
@parameters.timeout
@as_json
def broadcast(
    program: int, version: int, port: int, limit: int, timeout: float, as_json: bool
) -> None:
    """Ask all networks of this host who serves PROGRAM, and print each answer as it comes.

    Port mappers forward procedure 0 of VERSION, 1 by default, to the program; many do so only if
    they are told to. With --json, one object a line.
    """
    with Progress(timeout) as progress, PortmapClient(port=port) as client:

        def each(reply: BroadcastReply) -> None:
            progress.count += 1
            progress.erase()
            if as_json:
                click.echo(encoded({"host": reply.host, "port": reply.port}))
            else:
                if progress.count == 1:
                    echo(row(("HOST", "PORT"), _WIDTHS), bold=True)
                click.echo(row((reply.host, reply.port), _WIDTHS))

        replies = client.broadcast(program, version, 0, each=each, timeout=timeout, limit=limit)
    if not replies:
        raise Exit(
            REFUSED,
            f"nobody answered for program {program} version {version} within {timeout:g} s; port "
            "mappers that forward no calls keep silent",
        )
