"""Files that nobody but their owner can have written."""

import errno
import os
import stat
from collections.abc import Collection

from portmapd.errors import InvalidState
from portmapd.server.directories import OTHERS

#: Neither links are followed nor is a fifo waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def trusted_users(*others: int) -> Collection[int]:
    """Root, this process's user, and *others*."""
    return {0, os.geteuid(), *others}


def read_trusted(folder: int, name: str, users: Collection[int], limit: int) -> bytes | None:
    """The contents of a file; None: there is none.

    :param folder: a descriptor of its directory, which is to be trusted.
    :param users: who may own it.
    :param limit: the most bytes that it may have.
    :raises InvalidState: it is not a plain file that only they can have written, or it is too
        large; the message says what it is.
    """
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        raise InvalidState("it is a symbolic link" if is_link else _why(error)) from None
    try:
        _check_file(os.fstat(descriptor), users, limit)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    except OSError as error:
        raise InvalidState(_why(error)) from None
    finally:
        os.close(descriptor)


def _check_file(found: os.stat_result, users: Collection[int], limit: int) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise InvalidState(f"it is {_KINDS.get(kind, 'no plain file')}")
    if found.st_uid not in users:
        raise InvalidState(f"it belongs to uid {found.st_uid}")
    if found.st_mode & OTHERS:
        raise InvalidState(f"others may write it: its mode is {stat.S_IMODE(found.st_mode):o}")
    if found.st_nlink != 1:
        raise InvalidState("it has another name, too")
    if found.st_size > limit:
        raise InvalidState(f"it has {found.st_size} bytes, more than {limit}")


def _why(error: OSError) -> str:
    return f"it cannot be read: {error.strerror}"
