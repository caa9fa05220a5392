"""The file of a listening UNIX socket, and the lock of a start."""

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from twisted.internet.error import CannotListenError

from portmapd.channel.socket_path import SYSTEM_SOCKET, private_directory
from portmapd.server.directories import opened_directory

#: Everyone may connect.
SOCKET_MODE = 0o666
#: Everyone may enter a directory that is made for a socket.
DIRECTORY_MODE = 0o755
#: Nobody else may enter a directory that is made where everyone can make one.
PRIVATE_MODE = 0o700

#: The file beside a socket that one start at a time has locked.
LOCK = ".lock"
#: How often a lock is tried, and the seconds between two tries. A start takes a few milliseconds.
_TRIES, _PAUSE = 200, 0.01


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
    """Make the directory of the socket *path*, if it is missing.

    Root takes the directory of the system's daemon back from a user that it was given to.

    :raises PermissionError: it is to be private, and another user has made it.
    """
    folder = os.path.dirname(path)
    private = folder == private_directory()
    with exact_mode(PRIVATE_MODE if private else DIRECTORY_MODE):
        os.makedirs(folder, exist_ok=True)
    if private:
        _make_private(folder)
    elif path == SYSTEM_SOCKET and os.geteuid() == 0:
        with opened_directory(folder) as descriptor:
            os.fchown(descriptor, 0, -1)


def _make_private(folder: str) -> None:
    with opened_directory(folder) as descriptor:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to another user")
        os.fchmod(descriptor, PRIVATE_MODE)


def listen_at(path: str, backlog: int) -> socket.socket:
    """Make a listening socket that everyone may connect to. A stale one at *path* is replaced.

    :param path: the path, or the name of an abstract socket.
    :param backlog: the most connections that wait to be accepted.
    :raises CannotListenError: another process serves there, or no socket can be made there.
    """
    skt = socket.socket(socket.AF_UNIX)
    skt.setblocking(False)
    try:
        if is_abstract(path):
            skt.bind(path)
            skt.listen(backlog)
        else:
            _listen_at_file(skt, path, backlog)
    except OSError as error:
        skt.close()
        raise CannotListenError(None, path, error) from error
    except BaseException:
        skt.close()
        raise
    return skt


def _listen_at_file(skt: socket.socket, path: str, backlog: int) -> None:
    # A socket that is bound and does not listen yet looks stale to another start.
    with locked(path):
        _remove_stale(path)
        # A later chmod would follow a link that somebody puts there.
        with exact_mode(SOCKET_MODE):
            skt.bind(path)
        skt.listen(backlog)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """In the block, no other daemon starts at *path*.

    The lock is a file that nobody but this user and root can open, so nobody else can hold it. It
    is gone after the block.

    :raises OSError: it cannot be had: another start takes too long, or the file is another user's.
    """
    name = path + LOCK
    descriptor = _lock(name)
    try:
        yield
    finally:
        # Who waits for it finds that it has no name any more, and makes a new one.
        os.unlink(name)
        os.close(descriptor)


def _lock(name: str) -> int:
    """A descriptor of the file *name*, which this process has locked."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(_TRIES):
        descriptor = os.open(name, flags, 0o600)
        try:
            if _has_lock(descriptor, name):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(_PAUSE)
    raise FileExistsError(f"another start there holds {name}")


def _has_lock(descriptor: int, name: str) -> bool:
    """Lock the file, if nobody has, and it still has that name."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise FileExistsError(f"{name} is in the way: it is not a lock of this user")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return identity(name) == (found.st_dev, found.st_ino)


def _remove_stale(path: str) -> None:
    """Remove the socket at *path* if no process listens there.

    :raises FileExistsError: one does, or there is another kind of file.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError("it is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise FileExistsError("another process serves there")


def remove_own(path: str, skt_file: tuple[int, int] | None) -> None:
    """Remove the file *path*, unless it is another's by now, or we may not any more.

    :param skt_file: what :func:`identity` said of it.
    """
    with suppress(OSError):
        if skt_file is not None and identity(path) == skt_file:
            os.unlink(path)


def identity(path: str) -> tuple[int, int] | None:
    """What tells one file from another one of the same name: its device and inode.

    :return: None if it is gone, or *path* is the name of an abstract socket.
    """
    if is_abstract(path):
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
