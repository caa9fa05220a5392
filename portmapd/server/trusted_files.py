"""Files that nobody but their owner can have written, and their directories."""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from portmapd.errors import InvalidState

#: The bits that let others than the owner write.
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
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


@contextmanager
def trusted_directory(folder: str, users: Collection[int]) -> Iterator[int]:
    """In the block, a descriptor of a directory in which nobody but *users* can change names.

    They cannot put another directory in its place, either: those above are theirs, too, or have
    the sticky bit.

    :raises PermissionError: somebody else can.
    :raises OSError: there is no such directory, or it cannot be read.
    """
    path = Path(os.path.realpath(folder))
    for above in path.parents:
        _check_directory(str(above), os.stat(above), users, sticky=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_directory(str(path), os.fstat(descriptor), users)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_directory(
    folder: str, found: os.stat_result, users: Collection[int], *, sticky: bool = False
) -> None:
    if found.st_uid not in users:
        raise PermissionError(f"the directory {folder} belongs to uid {found.st_uid}")
    if found.st_mode & _OTHERS and not (sticky and found.st_mode & stat.S_ISVTX):
        raise PermissionError(f"the directory {folder} can be written by others")


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
    if found.st_mode & _OTHERS:
        raise InvalidState(f"others may write it: its mode is {stat.S_IMODE(found.st_mode):o}")
    if found.st_nlink != 1:
        raise InvalidState("it has another name, too")
    if found.st_size > limit:
        raise InvalidState(f"it has {found.st_size} bytes, more than {limit}")


def _why(error: OSError) -> str:
    return f"it cannot be read: {error.strerror}"
