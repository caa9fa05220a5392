"""The file in which mappings outlive the process."""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress

from portmapd.errors import ConfigurationError, InvalidState
from portmapd.server.directories import opened_directory, trusted_directory
from portmapd.server.trusted_files import read_trusted, trusted_users

#: The most bytes that are read: several times what a million mappings take.
MAX_SIZE = 1 << 28
#: Beside the file: those that take its place, the lock, and what is set aside. Of three new files,
#: one may be on its way to the disk and one be the newest.
SLOTS = (".new-1", ".new-2", ".new-3")
_LOCK, _BAD = ".lock", ".bad"
#: So many files are set aside; after that, each takes the place of the last one.
_MAX_BAD = 9

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StateFile:
    """A file that is read and written whole, by one process at a time.

    New contents are written beside it first, and take its place once they are on the disk. What is
    beside it survives the end of the process, however slow the disk is.

    It is touched in no directory where somebody else could plant it.

    :param path: its absolute path. Its directory is made if it is missing, but not those above.
    :param lock: the descriptor that keeps other processes from it, from a process that had it;
        None: there is none yet.
    :ivar path: the same.
    :ivar lock: that descriptor, while there is one.
    """

    def __init__(self, path: str, lock: int | None = None) -> None:
        self.path = path
        self._folder, self._name = os.path.split(path)
        self.lock = lock

    def open(self) -> None:
        """Keep other processes from the file.

        :raises ConfigurationError: one of them keeps this one from it.
        :raises OSError: its directory cannot be used.
        """
        if self.lock is not None:
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
        self.lock = lock

    def close(self) -> None:
        """Let other processes have the file."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

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

    def write(self, slot: str, pieces: Iterable[bytes]) -> None:
        """Write new contents beside the file.

        :param slot: one of :data:`SLOTS`; what it had is lost.
        :raises OSError: they cannot be written.
        """
        name = self._name + slot
        with trusted_directory(self._folder, trusted_users()) as folder:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.writelines(pieces)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                raise

    def keep(self, slot: str) -> None:
        """Have what was written to *slot* take the place of the file, whatever happens.

        :raises OSError: it cannot; the file is as it was.
        """
        name = self._name + slot
        with trusted_directory(self._folder, trusted_users()) as folder:
            descriptor = os.open(name, _REOPEN, dir_fd=folder)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(name, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def read_new(self) -> dict[str, bytes]:
        """What is beside the file and can be trusted, by slots; a process may have been killed
        while it wrote it.

        :raises OSError: the directory cannot be used.
        """
        users = trusted_users()
        found: dict[str, bytes] = {}
        with trusted_directory(self._folder, users) as folder:
            for slot in SLOTS:
                with suppress(InvalidState):
                    data = read_trusted(folder, self._name + slot, users, MAX_SIZE)
                    if data is not None:
                        found[slot] = data
        return found

    def remove_new(self) -> None:
        """Remove what is beside the file.

        :raises OSError: it cannot be removed.
        """
        with trusted_directory(self._folder, trusted_users()) as folder:
            for slot in SLOTS:
                with suppress(FileNotFoundError):
                    os.unlink(self._name + slot, dir_fd=folder)


def give_directory(path: str, uid: int) -> None:
    """Make the directory of the state file *path*, if it is missing, and have *uid* own it.

    :raises OSError: it cannot be done.
    """
    folder = os.path.dirname(path)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    with opened_directory(folder) as descriptor:
        os.fchown(descriptor, uid, -1)
