"""Connections of blocking programs, made within an operation's time; no Twisted."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Sequence
from errno import EAGAIN, EINPROGRESS
from typing import Any

from portmapd.client.patience import Patience
from portmapd.client.values import Service
from portmapd.errors import CallTimedOut, NotAccepted, NotListed

#: How long one attempt may take, in seconds: the service is on this machine.
TIMEOUT = 10.0
#: How long to wait until a UNIX socket whose queue is full is tried again, in seconds.
QUEUE_WAIT = 0.01

#: An address family, and an address of it.
Target = tuple[socket.AddressFamily, Any]


def dial(target: Target, patience: Patience) -> socket.socket:
    """A stream socket that is connected to *target*; it does not block.

    :raises OSError: it cannot be connected.
    :raises CallTimedOut: not in time.
    :raises Terminated: the terminator became readable.
    """
    family, address = target
    skt = socket.socket(family, socket.SOCK_STREAM)
    try:
        skt.setblocking(False)
        _connect(skt, address, patience)
    except BaseException:
        skt.close()
        raise
    return skt


def _connect(skt: socket.socket, address: Any, patience: Patience) -> None:
    while (error := skt.connect_ex(address)) == EAGAIN:
        patience.pause(QUEUE_WAIT)
    if error == EINPROGRESS:
        patience.wait(skt.fileno(), select.POLLOUT)
        error = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
    if skt.family != socket.AF_UNIX and skt.getsockname() == skt.getpeername():
        # TCP connects a socket to itself where the kernel happens to choose the very port.
        raise ConnectionRefusedError("nothing listens there")


def dial_any(name: str, services: Sequence[Service], patience: Patience) -> socket.socket:
    """A socket that is connected to one of *services*, which are tried in random order.

    :raises NotListed: there are none.
    :raises NotAccepted: none accepts; the message says why the last one did not.
    :raises Terminated: the terminator became readable.
    """
    if not services:
        raise NotListed(f"no service {name} is registered")
    targets = list(_targets(services))
    reason: Exception | None = None
    for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
        try:
            # One that hangs leaves time for the others.
            skt = dial(target, patience.within(min(TIMEOUT, patience.left / left)))
        except (OSError, CallTimedOut) as error:
            reason = error
        else:
            skt.setblocking(True)
            return skt
    raise NotAccepted(
        f"of the services {name}, {len(services)} in number, none accepts a connection; "
        f"the last one: {reason or 'it has no address'}"
    )


def _targets(services: Sequence[Service]) -> Iterator[Target]:
    """Where *services* may be reached, in random order."""
    # It takes as long to import as half of the client.
    import random

    for service in random.sample(services, len(services)):
        port = service.port
        if isinstance(port, int):
            yield socket.AF_INET, ("127.0.0.1", port)
            yield socket.AF_INET6, ("::1", port)
        elif port.startswith("/"):
            yield socket.AF_UNIX, port
