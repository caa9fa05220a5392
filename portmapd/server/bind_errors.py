"""Errors for sockets that cannot be bound, with sentences that say what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from twisted.internet.error import CannotListenError

from portmapd.errors import ConfigurationError

#: The errors for an IPv6 address on a host that has no IPv6.
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

#: The columns of the local address and of the inode in the kernel's tables of sockets.
_LOCAL, _INODE = 1, 9


def unusable(error: CannotListenError, protocol: str) -> ConfigurationError:
    """The error for a socket that Twisted could not listen on.

    :param protocol: ``udp`` or ``tcp``.
    """
    number = getattr(error.socketError, "errno", None)
    where = f"port {error.port} of {error.interface}"
    if number in (errno.EACCES, errno.EPERM):
        return ConfigurationError(
            f"{where} may not be bound: be root, or have CAP_NET_BIND_SERVICE, "
            "or choose a port above 1023 with --port"
        )
    if number == errno.EADDRINUSE:
        return ConfigurationError(
            f"{where} is taken by {likely_holder(error.port, protocol)}: stop that, "
            "or choose another port with --port"
        )
    return ConfigurationError(
        f"{where} cannot be bound: {_reason(error.socketError)}; "
        "choose other addresses with --interface"
    )


def unusable_socket(path: str, error: Exception, option: str) -> ConfigurationError:
    """The error for a UNIX socket that could not be listened on.

    :param option: the option that chooses its path.
    """
    cause = error.socketError if isinstance(error, CannotListenError) else error
    advice = f"choose another path with {option}, or none"
    if isinstance(cause, FileExistsError):
        advice = f"stop what serves there, or {advice}"
    return ConfigurationError(f"the socket {path} cannot be used: {_reason(cause)}; {advice}")


def _reason(cause: Exception) -> str:
    return getattr(cause, "strerror", None) or str(cause)


def likely_holder(port: int, protocol: str) -> str:
    """What most likely has *port* bound: a process by name and pid if we may see them.

    A socket that this process has itself is named first. A service manager that handed it in has
    it, too, but cannot be stopped for it.
    """
    inodes = {f"socket:[{inode}]" for inode in _inodes(port, protocol)}
    own = next((fd for fd, link in _links(Path("/proc/self/fd")) if link in inodes), None)
    if own is not None:
        return _own_socket(own)
    for process in Path("/proc").glob("[0-9]*"):
        if any(link in inodes for _, link in _links(process / "fd")):
            with suppress(OSError):
                name = (process / "comm").read_text().strip()
                return f"{name} (pid {process.name})"
    return "rpcbind, or another port mapper," if port == 111 else "another process"


def _own_socket(descriptor: int) -> str:
    """How to call a socket of this process. Those that Python made are not inheritable."""
    if os.get_inheritable(descriptor):
        return (
            f"a socket that this process was handed as descriptor {descriptor} (portmapd serves "
            "those that LISTEN_FDS and LISTEN_PID tell of)"
        )
    return f"this process (pid {os.getpid()})"


def _inodes(port: int, protocol: str) -> Iterator[str]:
    for table in (protocol, f"{protocol}6"):
        try:
            rows = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in map(str.split, rows):
            if row[_LOCAL].endswith(f":{port:04X}"):
                yield row[_INODE]


def _links(folder: Path) -> Iterator[tuple[int, str]]:
    """A process's descriptors and their targets; none if we may not look at them."""
    with suppress(OSError):
        for descriptor in os.listdir(folder):
            # Some are closed by now, such as the one that listed the folder.
            with suppress(FileNotFoundError):
                yield int(descriptor), os.readlink(folder / descriptor)
