"""The file of a listening UNIX socket, and its directory."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.error import CannotListenError

#: Everyone may connect.
SOCKET_MODE = 0o666
#: Everyone may enter a directory that is made for a socket.
DIRECTORY_MODE = 0o755


def is_abstract(path: str) -> bool:
    """Whether *path* is the name of an abstract socket, which has no file (``unix(7)``)."""
    return path.startswith("\0")


@contextmanager
def exact_mode(mode: int) -> Iterator[None]:
    """In the block, files are made with *mode*, whatever the umask of the process is."""
    mask = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(mask)


def make_directory(path: str) -> None:
    """Make the directory of the socket *path*, if it is missing."""
    with exact_mode(DIRECTORY_MODE):
        os.makedirs(os.path.dirname(path), exist_ok=True)


def remove_stale(path: str) -> None:
    """Remove the socket at *path* if no process listens there.

    :raises CannotListenError: one does, or there is another kind of file.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise CannotListenError(None, path, FileExistsError("it is not a socket"))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise CannotListenError(None, path, error) from error
        else:
            raise CannotListenError(None, path, FileExistsError("another process serves there"))
