"""The running daemon: ``twistd portmapd`` in a namespace."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.namespace import Namespace, Started, eventually

#: twistd of the interpreter that runs the tests.
TWISTD = str(Path(sys.executable).with_name("twistd"))

#: Options of a daemon outside a namespace: it must not take the mappings of another one.
NO_STATE = ("--state", "none")

#: What a daemon's log must not hold.
ERRORS = ("Traceback", "Unhandled", "CRITICAL")


def start_portmapd(
    namespace: Namespace,
    log: Path,
    *options: str,
    socket: str = "/run/rpcbind.sock",
    twistd: tuple[str, ...] = (TWISTD,),
) -> Started:
    """Start ``twistd portmapd`` with *options*; the caller ends it.

    :param socket: the path whose appearance tells that it serves.
    :param twistd: the command that is twistd.
    :raises AssertionError: it did not start.
    """
    daemon = namespace.start(*twistd, "-n", "--pidfile=", "portmapd", *options, log=log)

    def serves() -> bool:
        assert daemon.running(), f"portmapd did not start:\n{log.read_text()}"
        return namespace.run("stat", socket, status=None).startswith("  File:")

    eventually(serves, "portmapd serves")
    return daemon


@contextmanager
def portmapd(
    namespace: Namespace,
    folder: Path,
    *options: str,
    socket: str = "/run/rpcbind.sock",
    twistd: tuple[str, ...] = (TWISTD,),
) -> Iterator[Started]:
    """Run ``twistd portmapd`` with *options*: serving in the block, ended by SIGTERM after it.

    :param folder: where its log goes, as ``portmapd.log``.
    :param socket: the path whose appearance tells that it serves.
    :param twistd: the command that is twistd.
    :raises AssertionError: it did not start, logged an error, or did not end with status 0.
    """
    log = folder / "portmapd.log"
    daemon = start_portmapd(namespace, log, *options, socket=socket, twistd=twistd)
    yield daemon
    status = daemon.stop()
    said = log.read_text()
    assert status == 0, f"portmapd ended with {status}:\n{said}"
    assert not any(error in said for error in ERRORS), said


@contextmanager
def rpcbind(namespace: Namespace, folder: Path) -> Iterator[None]:
    """Run rpcbind in the block; it forwards calls for other hosts."""
    started = namespace.start("rpcbind", "-f", "-w", "-r", log=folder / "rpcbind.log")
    ready = ("rpcinfo", "-T", "udp", "127.0.0.1", "100000", "4")
    eventually(lambda: "ready" in namespace.run(*ready, status=None), "rpcbind serves")
    yield
    started.stop()
