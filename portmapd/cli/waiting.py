"""``--wait``: a service that is not there yet is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click

from portmapd.errors import NotAccepted, NotListed

T = TypeVar("T")

#: Seconds between two looks.
PAUSE = 0.1
#: The longest time that is waited for, in seconds.
MAX_WAIT = 86_400.0

wait = click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0, MAX_WAIT),
    default=0.0,
    help="How long to wait for the service, if it is not there yet. [default: 0]",
)


def waited_for(attempt: Callable[[], T], seconds: float) -> T:
    """What *attempt* returns, once its service is registered and accepts.

    :param attempt: raises :exc:`NotListed` or :exc:`NotAccepted` until then.
    :param seconds: after which that is raised.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except (NotListed, NotAccepted):
            if time.monotonic() >= ends:
                raise
        time.sleep(PAUSE)
