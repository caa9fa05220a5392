"""Which connections an image is not true of any more, in memory that outlives the process."""

from __future__ import annotations

import mmap
import os


class Marks:
    """A byte for each connection of an image.

    The image is made once a second. A connection that has said anything since then may have
    registered something else, or waits for an answer. If the process is killed, the next one sees
    its mark, and closes it: its client connects again, and registers again.

    :param count: how many connections there are.
    """

    def __init__(self, count: int) -> None:
        self._file = os.memfd_create("marks", os.MFD_CLOEXEC)
        os.ftruncate(self._file, max(count, 1))
        self._memory = mmap.mmap(self._file, max(count, 1))

    def fileno(self) -> int:
        """The descriptor of the memory."""
        return self._file

    def close(self) -> None:
        """Mark nothing any more."""
        self._memory.close()
        os.close(self._file)

    def mark(self, place: int) -> None:
        """The image is not true any more of the connection in that place."""
        self._memory[place] = 1

    @property
    def is_blank(self) -> bool:
        """Whether the image is true of all connections."""
        return not any(self._memory[:])

    @staticmethod
    def read(file: int) -> frozenset[int]:
        """The places that are marked, in the memory of a process that has ended."""
        size = os.fstat(file).st_size
        return frozenset(at for at, byte in enumerate(os.pread(file, size, 0)) if byte)
