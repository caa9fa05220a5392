"""What a process costs, as the kernel counts it."""

import os
from contextlib import suppress
from pathlib import Path

FIRST, ORDINARY = -20, 0
"""Priorities (nice): of what is measured and what measures, and of everything else."""


def resident_bytes(pid: int) -> int:
    """The resident set (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def set_priority(pid: int, priority: int) -> None:
    """Give a process, and what it starts from now on, a priority; if we may not, leave it."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, priority)


def waited_seconds(pid: int) -> float:
    """Seconds that the main thread could have run and had no processor: others had them."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def cpu_seconds(pid: int) -> float:
    """Seconds on a processor, all threads, in nanosecond resolution (/proc/PID/stat has 10 ms)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
