"""Directories: who can put another file in the place of what this user has there."""

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

#: The bits that let others than the owner write.
OTHERS = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def opened_directory(folder: str) -> Iterator[int]:
    """In the block, a descriptor of a directory that is no link to one.

    :raises PermissionError: it is none, or may not be read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise PermissionError(f"{folder} is not a directory of this user") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_directory(path: str, owner: int | None = None) -> None:
    """Check that nobody but its owner and root can put another file in the place of *path*.

    :param owner: the user who serves there in the end; None: the one who starts.
    :raises PermissionError: somebody can; the message says what to do.
    :raises OSError: there is no such directory.
    """
    folder = os.path.dirname(path)
    found = os.stat(folder)
    if found.st_uid not in (0, os.geteuid(), owner):
        raise PermissionError(
            f"its directory {folder} belongs to uid {found.st_uid}, who could replace it: "
            "give it to root, or to the user of portmapd"
        )
    check_mode(folder, found.st_mode, OTHERS)


def check_mode(folder: str, mode: int, others: int = stat.S_IWOTH) -> None:
    """Check that others cannot replace what this user has in a directory.

    :param mode: that of the directory.
    :param others: the bits that let others write there.
    :raises PermissionError: they can, for there is no sticky bit, either.
    """
    if mode & others and not mode & stat.S_ISVTX:
        raise PermissionError(
            f"its directory {folder} can be written by others, who could replace it: "
            f"chmod go-w {folder}"
        )


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
    if found.st_mode & OTHERS and not (sticky and found.st_mode & stat.S_ISVTX):
        raise PermissionError(f"the directory {folder} can be written by others")
