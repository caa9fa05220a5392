"""What a process may do beyond its user's rights, and how it gives it up (``capabilities(7)``)."""

import ctypes
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct

#: The capability to read the executables of other users' processes.
SYS_PTRACE = 19

#: Numbers of <linux/prctl.h> and <linux/capability.h>.
_SET_KEEPCAPS, _DROP_BOUNDING, _SET_NO_NEW_PRIVS = 8, 24, 38
_AMBIENT, _RAISE, _CLEAR_ALL = 47, 2, 4
_LAST = 63
_HEADER, _VERSION = Struct("=Ii"), 0x2008_0522
#: Effective, permitted and inheritable capabilities, the lower halves first.
_SETS = Struct("=6I")
_HALF = 0xFFFF_FFFF

#: Lines of ``/proc/PID/status``.
_CAPABILITIES = re.compile(r"^Cap(Inh|Prm|Eff|Amb):\s+([0-9a-f]+)$", re.MULTILINE)
_UIDS = re.compile(r"^Uid:\s+(.*)$", re.MULTILINE)


def keep_through_change(kept: Collection[int]) -> None:
    """Have a change of the user leave *kept*, and no program that is executed later have more.

    To be called by root before it becomes another user.

    :param kept: capabilities.
    """
    for capability in set(range(_LAST + 1)) - set(kept):
        # The kernel has fewer; and a manager may have taken away the right to drop them.
        with suppress(OSError):
            _prctl(_DROP_BOUNDING, capability)
    if kept:
        _prctl(_SET_KEEPCAPS, 1)


def drop_privileges(kept: Collection[int]) -> set[int]:
    """Hold no capability but *kept* from now on, and gain none by executing a program.

    To be called once everything is bound, by whoever serves in the end.

    :param kept: capabilities; those that the process does not have, it does not get.
    :return: those that it has.
    :raises PermissionError: the process holds more than that afterwards.
    :raises OSError: the kernel refuses.
    """
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_AMBIENT, _CLEAR_ALL)
    held = _held("self")
    permitted = _mask(kept) & held["Prm"]
    # A sandbox that gave nothing more may forbid the call.
    if held["Eff"] != permitted or any(bits & ~permitted for bits in held.values()):
        _set(permitted)
    _prctl(_SET_KEEPCAPS, 0)
    _check(permitted)
    return {capability for capability in kept if permitted >> capability & 1}


@contextmanager
def inherited_privileges() -> Iterator[None]:
    """In the block, have programs that are executed hold the capabilities of this process.

    Those of root do anyway.

    :raises OSError: the kernel refuses.
    """
    held = _held("self")
    permitted, inherited = held["Prm"], held["Inh"]
    if os.geteuid() == 0 or not permitted:
        yield
        return
    # A sandbox that lets them be inherited may forbid the call.
    is_missing = bool(permitted & ~inherited)
    if is_missing:
        _set(permitted, permitted)
    try:
        for capability in (each for each in range(_LAST + 1) if permitted >> each & 1):
            _prctl(_AMBIENT, _RAISE, capability)
        yield
    finally:
        _prctl(_AMBIENT, _CLEAR_ALL)
        if is_missing:
            _set(permitted, inherited)


def _check(permitted: int) -> None:
    """Check that no thread of this process holds more; one that ends meanwhile holds nothing.

    :raises PermissionError: one does.
    """
    for thread in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError):
            held = _held(f"self/task/{thread}")
            more = {name: f"{bits:x}" for name, bits in held.items() if bits & ~permitted}
            uids = _uids(f"self/task/{thread}")
            if more or 0 in uids:
                raise PermissionError(f"privileges are still held: uids {uids}, {more}")


def _held(process: str) -> dict[str, int]:
    """The capabilities of a process, as bits, by the names of their sets."""
    text = Path(f"/proc/{process}/status").read_text()
    return {name: int(bits, 16) for name, bits in _CAPABILITIES.findall(text)}


def _uids(process: str) -> list[int]:
    """The real, effective, saved and file system user of a process."""
    (text,) = _UIDS.findall(Path(f"/proc/{process}/status").read_text())
    return [int(uid) for uid in text.split()]


def _mask(capabilities: Collection[int]) -> int:
    return sum(1 << capability for capability in set(capabilities))


def _set(permitted: int, inherited: int = 0) -> None:
    """Hold capabilities.

    :param inherited: those that may be passed on.
    """
    low, high = permitted & _HALF, permitted >> 32
    sets = _SETS.pack(low, low, inherited & _HALF, high, high, inherited >> 32)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(_HEADER.pack(_VERSION, 0), sets):
        raise _error()


def _prctl(option: int, value: int, further: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, further, 0, 0)]
    if libc.prctl(option, *arguments):
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
