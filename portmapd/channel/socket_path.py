"""Where the daemon's socket is."""

import os

#: The longest path that a UNIX socket can have, in bytes.
MAX_PATH = 107
#: The system's daemon's socket.
SYSTEM_SOCKET = "/run/portmapd/portmapd.sock"
_NAME = "portmapd.sock"


def private_directory() -> str:
    """The directory for the socket of a user who has no other one for such files."""
    return f"/tmp/portmapd-{os.geteuid()}"


def serving_socket() -> str | None:
    """Where a daemon of ours serves by default: the system's for root, the user's own else.

    :return: None if another user has taken the last directory that there is for it.
    """
    if os.geteuid() == 0:
        return SYSTEM_SOCKET
    given, login, private = _directories()
    if given and not (os.path.exists(given) and not is_ours(given)):
        folder = given
    elif is_ours(login):
        folder = login
    elif not os.path.lexists(private) or is_private(private):
        folder = private
    else:
        return None
    return os.path.join(folder, _NAME)


def asking_socket(path: str | os.PathLike[str] | None = None) -> str:
    """Where a client of ours asks.

    :param path: the socket that it was given; None: the user's own daemon's if there is one, else
        the system's. Root asks the system's: after ``su``, the directory may still be another
        user's.
    """
    if path is not None:
        return os.fspath(path)
    if os.geteuid() != 0:
        for folder in filter(None, _directories()):
            own = os.path.join(folder, _NAME)
            if is_ours(folder) and is_ours(own, root=False):
                return own
    return SYSTEM_SOCKET


def serving_uids(path: str) -> tuple[int, ...]:
    """The users whose daemon may be at *path*, if it is one of ours; empty: any user's may.

    Between a look at the path and the connection, another user may have changed what is there.
    """
    own = [os.path.join(folder, _NAME) for folder in filter(None, _directories())]
    return (os.geteuid(), 0) if path in own else ()


def is_private(folder: str) -> bool:
    """Is it a directory of this user, and no link to one?"""
    return is_ours(folder, root=False) and os.path.isdir(folder) and not os.path.islink(folder)


def is_ours(path: str, root: bool = True) -> bool:
    """Does the file belong to this user, or to root?

    :param root: whether root's counts.
    """
    try:
        return os.stat(path).st_uid in ((os.geteuid(), 0) if root else (os.geteuid(),))
    except OSError:
        return False


def _directories() -> tuple[str, str, str]:
    """Directories for sockets of this user, the best one first.

    The environment's is empty under ``su -`` and cron; the login's exists while the user is logged
    in. A daemon and its clients may differ in both, so clients look into all of them.
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    login = f"/run/user/{os.geteuid()}"
    return given if os.path.isabs(given) else "", login, private_directory()
