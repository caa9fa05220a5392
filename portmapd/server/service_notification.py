"""What a service manager is told of this process (``sd_notify(3)``)."""

import os
import socket
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress

#: The lines of a daemon that serves, and of one that is about to end.
READY, STOPPING = "READY=1", "STOPPING=1"
#: The line that keeps a watchdog from ending the process.
ALIVE = "WATCHDOG=1"

#: How long a manager is waited for that does not read its messages, in seconds. It reads them at
#: once unless it is busy with itself.
_PATIENCE = 0.2


def notify(
    *lines: str, descriptors: Sequence[int] = (), environ: Mapping[str, str] = os.environ
) -> bool:
    """Send lines of state to the service manager that has started this process.

    :param lines: assignments like ``READY=1``.
    :param descriptors: are sent with them; the manager keeps them if a line is ``FDSTORE=1``.
    :param environ: names the manager's socket, a path or ``@`` and an abstract name, as
        ``NOTIFY_SOCKET``.
    :return: whether a manager has received them; False, too, if there is none.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = f"\0{address[1:]}"
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as skt:
        skt.settimeout(_PATIENCE)
        skt.sendmsg(["\n".join(lines).encode()], passed if descriptors else [], 0, address)
        return True
    return False


def status(text: str) -> str:
    """The line that says in one sentence, for people, what the process does."""
    return f"STATUS={' '.join(text.split())}"


def reloading() -> tuple[str, str]:
    """The lines that begin a reload, which :data:`READY` ends."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def main_pid(pid: int) -> str:
    """The line that names the process which serves from now on."""
    return f"MAINPID={pid}"


def watchdog_period(environ: Mapping[str, str] = os.environ) -> float | None:
    """The seconds after which the manager ends this process if it has not sent :data:`ALIVE`.

    :param environ: has ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
    :return: None if it waits for nothing of this process.
    """
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if pid not in ("", str(os.getpid())):
        return None
    if not (microseconds.isascii() and microseconds.isdigit()):
        return None
    return int(microseconds) / 1e6 or None
