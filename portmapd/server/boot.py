"""Which boot of the kernel this is, and how long ago it was."""

import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from attrs import frozen

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class Boot:
    """One boot of the kernel.

    :param name: no other boot has it.
    :param seconds: tells how many seconds have passed since, those of a suspended machine included.
    """

    name: str
    seconds: Callable[[], float]


def this_boot() -> Boot:
    """The boot of the kernel that runs."""
    try:
        name = _BOOT_ID.read_text().strip()
    except OSError:
        # A sandbox hides it. Then no two starts are in the same boot.
        name = str(uuid4())
    return Boot(name, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
