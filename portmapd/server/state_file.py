"""The file in which mappings outlive the process."""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress

from portmapd.errors import ConfigurationError
from portmapd.server.trusted_files import read_trusted, trusted_directory, trusted_users

#: The most bytes that are read: several times what a million mappings take.
MAX_SIZE = 1 << 28
#: Beside the file: the one that takes its place, the lock, and what is set aside.
_NEW, _LOCK, _BAD = ".new", ".lock", ".bad"
#: So many files are set aside; after that, each takes the place of the last one.
_MAX_BAD = 9

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StateFile:
    """A file that is read and written whole, by one process at a time.

    It is touched in no directory where somebody else could plant it.

    :param path: its absolute path. Its directory is made if it is missing, but not those above.
    :ivar path: the same.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder, self._name = os.path.split(path)
        self._lock: int | None = None

    def open(self) -> None:
        """Keep other processes from the file.

        :raises ConfigurationError: one of them keeps this one from it.
        :raises OSError: its directory cannot be used.
        """
        if self._lock is not None:
            return
        with suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
        with trusted_directory(self._folder, trusted_users()) as folder:
            lock = os.open(self._name + _LOCK, _OPEN_LOCK, 0o600, dir_fd=folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                raise ConfigurationError(
                    f"another process keeps its mappings in {self.path}: choose another path with "
                    "--state"
                ) from None
            raise
        self._lock = lock

    def close(self) -> None:
        """Let other processes have the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> bytes | None:
        """What the file contains; None: there is none.

        :raises InvalidState: it cannot be trusted.
        :raises OSError: its directory cannot be used.
        """
        users = trusted_users()
        with trusted_directory(self._folder, users) as folder:
            return read_trusted(folder, self._name, users, MAX_SIZE)

    def modified(self) -> float:
        """When it was written last, in seconds of the system's clock; 0 if it never was."""
        try:
            return os.lstat(self.path).st_mtime
        except OSError:
            return 0.0

    def set_aside(self) -> str:
        """Give the file another name.

        :return: that name, a path.
        :raises OSError: it cannot be renamed.
        """
        with trusted_directory(self._folder, trusted_users()) as folder:
            taken = set(os.listdir(folder))
            names = [f"{self._name}{_BAD}-{number}" for number in range(1, _MAX_BAD + 1)]
            name = next((name for name in names if name not in taken), names[-1])
            os.rename(self._name, name, src_dir_fd=folder, dst_dir_fd=folder)
        return os.path.join(self._folder, name)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Replace what the file contains, whatever happens: by all of it or not at all.

        :raises OSError: it was not replaced.
        """
        new = self._name + _NEW
        with trusted_directory(self._folder, trusted_users()) as folder:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=folder)
            try:
                _write(os.open(new, _CREATE, 0o600, dir_fd=folder), pieces)
                os.rename(new, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
            os.fsync(folder)


def give_directory(path: str, uid: int) -> None:
    """Make the directory of the state file *path*, if it is missing, and have *uid* own it.

    :raises OSError: it cannot be done.
    """
    folder = os.path.dirname(path)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, uid, -1)
    finally:
        os.close(descriptor)


def _write(descriptor: int, pieces: Iterable[bytes]) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(descriptor)
