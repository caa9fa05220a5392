"""A network, mount and process namespace of the benchmark's own.

Inside, port 111 and /run are free whatever the machine serves, the loopback interface carries
nothing else, and every server ends with the benchmark, which runs before all else (nice -20).
"""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from bench import MeasureError

INSIDE = "--inside-namespace"
"""The option by which the benchmark knows that it runs in its namespace."""

_UNSHARE = ("unshare", "-n", "-m", "-p", "-u", "-f", "--mount-proc", "--kill-child")
_PREPARE = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/rpcbind
exec nice -n -20 "$@"
"""


def enter(arguments: Sequence[str], module: str = "bench") -> NoReturn:
    """Replace this process by the benchmark inside its namespace.

    :param arguments: the command line, without the program.
    :param module: the program.
    :raises MeasureError: this user or this machine cannot make a namespace.
    """
    if os.geteuid() != 0:
        raise MeasureError("a network namespace needs root: run the benchmark as root")
    require("unshare", "ip", "mount", "nice")
    benchmark = (sys.executable, "-m", module, INSIDE, *arguments)
    os.execvp(_UNSHARE[0], (*_UNSHARE, "sh", "-c", _PREPARE, "bench", *benchmark))


def require(*tools: str) -> None:
    """Check that programs are installed.

    :raises MeasureError: one is not.
    """
    for tool in tools:
        if shutil.which(tool) is None:
            raise MeasureError(f"{tool} is not installed or not in PATH")
