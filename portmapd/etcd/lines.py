"""The answers of a watch, which come one after the other, each on a line of its own."""

from __future__ import annotations

from collections.abc import Iterator

from portmapd.errors import EtcdGarbage


class Lines:
    """Divides a stream into lines.

    :param limit: the longest line, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._pieces: list[bytes] = []

    def count(self, data: bytes) -> None:
        """Count what has come as a part of one line.

        :raises EtcdGarbage: it is too long.
        """
        self._size += len(data)
        if self._size > self._limit:
            raise EtcdGarbage(f"an answer is longer than {self._limit:,} bytes")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that *data* ends.

        :raises EtcdGarbage: one is too long.
        """
        *ended, rest = data.split(b"\n")
        for line in ended:
            self.count(line)
            whole = b"".join([*self._pieces, line])
            self._pieces, self._size = [], 0
            if whole:
                yield whole
        self.count(rest)
        self._pieces.append(rest)
