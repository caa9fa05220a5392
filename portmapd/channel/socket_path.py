"""Where the daemon's socket is."""

import os

#: The longest path that a UNIX socket can have, in bytes.
MAX_PATH = 107
#: The system's daemon's socket.
SYSTEM_SOCKET = "/run/portmapd/portmapd.sock"


def user_socket() -> str | None:
    """The socket of the user's own daemon; None if the user has no directory for such files."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(folder, "portmapd.sock") if os.path.isabs(folder) else None


def serving_socket() -> str | None:
    """Where a daemon of ours serves by default: the system's for root, the user's own else."""
    return SYSTEM_SOCKET if os.geteuid() == 0 else user_socket()


def asking_socket(path: str | os.PathLike[str] | None = None) -> str:
    """Where a client of ours asks.

    :param path: the socket that it was given; None: the user's own daemon's if there is one, else
        the system's. Root asks the system's: after ``su``, the directory may still be another
        user's.
    """
    if path is not None:
        return os.fspath(path)
    own = user_socket()
    return own if own is not None and os.geteuid() != 0 and _is_ours(own) else SYSTEM_SOCKET


def _is_ours(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False
