"""twistd's file with its process id: what an earlier run left never stops a start."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from portmapd.errors import ConfigurationError
from portmapd.server.directories import check_mode

#: Words of the command line of a process that may have written the file.
_PROGRAMS = (b"twist", b"portmapd")
_ADVICE = "choose another one with --pidfile, or --pidfile= for none"


def prepare_pid_file(path: str) -> None:
    """Remove the file at *path* unless the process that it names may have written it.

    :raises ConfigurationError: no such file can be made there. The message says what to do.
    """
    try:
        folder = os.path.dirname(path)
        check_mode(folder, os.stat(folder).st_mode)
        if not _is_current(path):
            os.unlink(path)
            _try(path)
    except FileNotFoundError:
        _try(path)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def write_pid_file(path: str, pid: int) -> None:
    """Have the file at *path* name another process, at one go.

    :raises OSError: it cannot be written.
    """
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    with open(descriptor, "w") as file:
        file.write(str(pid))
    os.rename(new, path)


def _try(path: str) -> None:
    """Make the file and remove it: twistd makes it when nobody is told any more why it cannot."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _is_current(path: str) -> bool:
    """Does the file name a running process that may have written it?

    :raises ConfigurationError: it is not a regular file.
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise _unusable(path, "it is not a regular file")
    with open(path, "rb") as file:
        text = file.read(32).strip()
    return text.isdigit() and int(text) != os.getpid() and _is_daemon(int(text))


def _is_daemon(pid: int) -> bool:
    """Is that process a twistd? After a crash or a restart, its number may be another's."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(program in words for program in _PROGRAMS)


def _unusable(path: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"the pid file {path} cannot be used: {reason}; {_ADVICE}")
