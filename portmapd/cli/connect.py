"""``portmapctl connect``: standard input and output, joined to a service."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread

import click

from portmapd.cli import parameters
from portmapd.cli.channel import complete_name
from portmapd.cli.services import of_user
from portmapd.cli.waiting import wait, waited_for
from portmapd.client.blocking import Portmapper
from portmapd.client.portmapper import ANYWHERE
from portmapd.errors import DaemonUnreachable

#: The most bytes that are copied at once.
CHUNK = 65_536


@click.command()
@click.argument("name", callback=parameters.service_name, shell_complete=complete_name)
@of_user
@wait
@click.option(
    "--where",
    metavar="WHERE",
    default=ANYWHERE,
    show_default=True,
    help="any machine of the cluster, if there is none here; local; or the name of a machine.",
)
@click.pass_obj
def connect(
    path: str | None, name: str, user: Sequence[int] | None, wait: float, where: str
) -> None:
    """Connect standard input and output to the service NAME, as netcat does.

    It ends when the service closes the connection. The end of the input is passed on.
    """
    with Portmapper(path) as portmapper:
        uid = user[0] if user else None
        skt = waited_for(lambda: portmapper.connect(name, uid, where=where), wait)
    with skt:
        # If one waited for both, neither side might read.
        Thread(target=_send, args=(skt,), daemon=True).start()
        _print(skt)


def _send(skt: socket.socket) -> None:
    """Pass the input on, to its end or until the service takes no more."""
    with suppress(OSError):
        while data := os.read(sys.stdin.fileno(), CHUNK):
            skt.sendall(data)
        skt.shutdown(socket.SHUT_WR)


def _print(skt: socket.socket) -> None:
    """Print what comes, which may be of any kind, to its end."""
    while data := _received(skt):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _received(skt: socket.socket) -> bytes:
    try:
        return skt.recv(CHUNK)
    except OSError as error:
        why = f"the service broke the connection: {error.strerror}"
        raise DaemonUnreachable(why) from error
