"""Connecting a plain socket that does not block. Internal."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from errno import EINPROGRESS
from typing import Any

from portmapd.client.core.connecting import Target


async def connect(
    target: Target, until_writable: Callable[[socket.socket], Awaitable[None]]
) -> socket.socket:
    """Return a socket that is connected to *target*; it does not block.

    :param until_writable: waits until a socket is writable.
    :raises OSError: it cannot be connected.
    """
    family, address = _address(target)
    skt = socket.socket(family, socket.SOCK_STREAM)
    try:
        skt.setblocking(False)
        error = skt.connect_ex(address)
        if error == EINPROGRESS:
            await until_writable(skt)
            error = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        skt.close()
        raise
    return skt


def _address(target: Target) -> tuple[socket.AddressFamily, Any]:
    if isinstance(target, str):
        return socket.AF_UNIX, target
    return socket.AF_INET6 if ":" in target[0] else socket.AF_INET, target
