"""Why a socket cannot be bound, in words that say what to do."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from twisted.internet.error import CannotListenError

from portmapd.errors import ConfigurationError

#: Where the column of the inode is in the kernel's tables of sockets.
_LOCAL, _INODE = 1, 9


def unusable(error: CannotListenError) -> ConfigurationError:
    """The error for a socket that Twisted could not listen on."""
    number = getattr(error.socketError, "errno", None)
    if error.interface is None:
        path = os.fsdecode(error.port)
        return ConfigurationError(f"the socket {path} cannot be used: {_local_reason(error)}")
    where = f"port {error.port} of {error.interface}"
    if number in (errno.EACCES, errno.EPERM):
        return ConfigurationError(
            f"{where} may not be bound: be root, or have CAP_NET_BIND_SERVICE, "
            "or choose a port above 1023 with --port"
        )
    if number == errno.EADDRINUSE:
        return ConfigurationError(
            f"{where} is taken by {likely_holder(error.port)}: stop that, "
            "or choose another port with --port"
        )
    return ConfigurationError(
        f"{where} cannot be bound: {_reason(error)}; choose other addresses with --interface"
    )


def _local_reason(error: CannotListenError) -> str:
    advice = "choose another path with --rpc-socket, or none"
    number = getattr(error.socketError, "errno", None)
    if number == errno.EADDRINUSE or isinstance(error.socketError, FileExistsError):
        return f"{_reason(error)}; stop what serves there (rpcbind?), or {advice}"
    return f"{_reason(error)}; {advice}"


def _reason(error: CannotListenError) -> str:
    cause = error.socketError
    return getattr(cause, "strerror", None) or str(cause)


def likely_holder(port: int) -> str:
    """What most likely has *port* bound: a process by name and pid where it can be seen."""
    inodes = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        if any(link in inodes for link in _links(process / "fd")):
            name = (process / "comm").read_text().strip()
            return f"{name} (pid {process.name})"
    return "rpcbind, or another port mapper," if port == 111 else "another process"


def _inodes(port: int) -> Iterator[str]:
    for table in ("udp", "tcp", "udp6", "tcp6"):
        try:
            rows = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in map(str.split, rows):
            if row[_LOCAL].endswith(f":{port:04X}"):
                yield row[_INODE]


def _links(folder: Path) -> Iterator[str]:
    """What the descriptors of a process lead to; nothing where we may not look."""
    try:
        for descriptor in os.listdir(folder):
            yield os.readlink(folder / descriptor)
    except OSError:
        return
