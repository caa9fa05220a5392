"""Making connections: to the daemon, again when it broke, and to one of several services."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from errno import EAGAIN
from socket import SO_PEERCRED, SOL_SOCKET
from struct import Struct
from typing import TYPE_CHECKING, TypeVar

from portmapd import waiting
from portmapd.channel.socket_path import MAX_PATH, serving_uids
from portmapd.client.values import ClusterService, Service
from portmapd.errors import CallTimedOut, DaemonUnreachable, NotAccepted, NotListed

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Dialer, Stream

S = TypeVar("S", bound="Stream")
_UCRED = Struct("=iII")

#: How long one attempt to connect may take, in seconds: everything is on this machine.
TIMEOUT = 10.0
#: How long to wait before a UNIX socket whose queue is full is tried again, in seconds.
QUEUE_WAIT = 0.01

#: The wait before the first attempt to connect again, in seconds; it doubles up to the longest.
FIRST_WAIT = 0.05
LONGEST_WAIT = 2.0

#: The addresses of this machine for itself.
LOOPBACK = ("127.0.0.1", "::1")

#: Where to connect to: the path of a UNIX socket, or a host and a port.
Target = str | tuple[str, int]


async def dial(dialer: Dialer[S], target: Target, seconds: float) -> S:
    """Connect to *target*; wait for a place in the queue of a UNIX socket.

    :raises OSError: it cannot be connected to.
    :raises CallTimedOut: it took too long.
    """
    end = dialer.time() + seconds
    while True:
        try:
            stream = await dialer.dial(target, max(end - dialer.time(), 0.001))
            break
        except BlockingIOError as error:
            if dialer.time() >= end:
                reason = f"not done in {round(seconds, 1):g} s: its queue of connections is full"
                raise OSError(EAGAIN, reason) from error
        await dialer.sleep(QUEUE_WAIT)
    if isinstance(target, tuple) and stream.getsockname() == stream.getpeername():
        # TCP connects a socket to itself if the kernel happens to choose the port in question.
        stream.close()
        raise ConnectionRefusedError("nothing listens there")
    return stream


async def dial_daemon(dialer: Dialer[S], path: str, seconds: float) -> S:
    """Connect to the daemon.

    :raises DaemonUnreachable: no daemon answers there, or it is another user's at a path of ours.
    """
    if len(path.encode(errors="surrogateescape")) > MAX_PATH or "\0" in path:
        raise DaemonUnreachable(
            f"no daemon can be at {path!r}: it is too long, or has a zero byte; the path of a "
            f"socket has at most {MAX_PATH} bytes"
        )
    try:
        stream = await dial(dialer, path, seconds)
    except OSError as error:
        raise DaemonUnreachable(
            f"no daemon answers at {path} ({reason_of(error)}); is portmapd running there?"
        ) from error
    uids = serving_uids(path)
    if uids and (uid := _peer_uid(stream)) not in uids:
        stream.close()
        raise DaemonUnreachable(f"the daemon at {path} is another user's, of uid {uid}")
    return stream


def _peer_uid(stream: Stream) -> int:
    """Return the user whose daemon listens there, as the kernel knows it."""
    _, uid, _ = _UCRED.unpack(stream.getsockopt(SOL_SOCKET, SO_PEERCRED, _UCRED.size))
    return int(uid)


async def dial_any(
    dialer: Dialer[S], name: str, services: Sequence[Service], hosts: Sequence[str] = LOOPBACK
) -> S:
    """Connect to one of *services*, which are tried in random order.

    Those that hang leave time for the others.

    :param hosts: the addresses of the machine that they are on.
    :raises NotListed: there are none.
    :raises NotAccepted: none accepts; the message says why the last one did not.
    """
    if not services:
        raise NotListed(f"no service {name} is registered")
    return await dial_each(dialer, name, list(_targets(services, hosts)), len(services))


async def dial_each(dialer: Dialer[S], name: str, targets: Sequence[Target], of: int) -> S:
    """Connect to one of *targets*, in their order.

    Those that hang leave time for the others.

    :param of: how many services they are of.
    :raises NotAccepted: none accepts; the message says why the last one did not.
    """
    reason = "it has no address"
    for count, target in zip(range(len(targets), 0, -1), targets, strict=True):
        try:
            return await dial(dialer, target, min(TIMEOUT, dialer.left / count))
        except (OSError, CallTimedOut) as error:
            reason = reason_of(error)
    raise NotAccepted(
        f"of the services {name}, {of} in number, none accepts a connection; the last one: {reason}"
    )


def reason_of(error: Exception) -> str:
    """Return what *error* says, as a part of a sentence."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def shared_targets(services: Sequence[ClusterService]) -> Sequence[Target]:
    """Return where services of other machines are, in random order."""
    import random

    ports = ((each.address, each.port) for each in random.sample(services, len(services)))
    return [(address, port) for address, port in ports if isinstance(port, int)]


def _targets(services: Sequence[Service], hosts: Sequence[str]) -> Iterator[Target]:
    # It takes as long to import as half of a client.
    import random

    for service in random.sample(services, len(services)):
        if isinstance(service.port, int):
            for host in hosts:
                yield host, service.port
        elif service.port.startswith("/"):
            yield service.port


def waits() -> Iterator[float]:
    """Yield the seconds to wait before each attempt to connect again."""
    return waiting.waits(FIRST_WAIT, LONGEST_WAIT)
