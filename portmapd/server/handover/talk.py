"""Messages between the two processes of a hand-over: a word, bytes, and descriptors."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Sequence
from struct import Struct
from time import monotonic

from portmapd.errors import HandoverFailed

#: The most descriptors that the kernel passes with one message (SCM_MAX_FD).
BATCH = 253
#: A message is the number of its descriptors and the size of its text, the text, and a byte for
#: each batch of descriptors. The text is the word, the end of a line, and the bytes.
_HEAD = Struct("=IQ")
#: Text is read in pieces of so many bytes.
_PIECE = 1 << 20

#: The word of a process that does not go on; the bytes say why.
NO = "no"


class Talk:
    """One end of a pair of stream sockets.

    :param skt: it is closed with the talk.
    :ivar has_ended: whether the other process has ended.
    """

    def __init__(self, skt: socket.socket) -> None:
        self._socket = skt
        self._until = 0.0
        self.has_ended = False

    def fileno(self) -> int:
        """The descriptor of this end."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the talk."""
        self._socket.close()

    def limit(self, seconds: float) -> None:
        """Have everything that follows end within that time."""
        self._until = monotonic() + seconds

    def send(self, word: str, data: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Send a message.

        :raises HandoverFailed: the other process has ended, or takes too long.
        """
        text = word.encode() + b"\n" + data
        batches = [descriptors[at : at + BATCH] for at in range(0, len(descriptors), BATCH)]
        try:
            self._set_timeout()
            self._socket.sendall(_HEAD.pack(len(descriptors), len(text)) + text)
            for batch in batches:
                self._set_timeout()
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", batch))]
                self._socket.sendmsg([b"\0"], passed)
        except OSError as error:
            raise self._failed(error) from error

    def expect(self, word: str) -> tuple[bytes, list[int]]:
        """Receive a message with that word.

        :return: its bytes, and its descriptors, which no child inherits.
        :raises HandoverFailed: the other process says something else or nothing, or there is no
            room for the descriptors.
        """
        try:
            said, data, descriptors = self._receive()
        except OSError as error:
            raise self._failed(error) from error
        if said == NO:
            raise HandoverFailed(data.decode("utf-8", "replace"))
        if said != word:
            raise HandoverFailed(f"the other process says {said[:40]!r}, not {word!r}")
        return data, descriptors

    def _receive(self) -> tuple[str, bytes, list[int]]:
        count, size = _HEAD.unpack(self._read(_HEAD.size))
        word, _, data = self._read(size).partition(b"\n")
        descriptors: list[int] = []
        while len(descriptors) < count:
            descriptors += self._read_descriptors(min(BATCH, count - len(descriptors)))
        return word.decode("utf-8", "replace"), data, descriptors

    def _set_timeout(self) -> None:
        # A timeout of 0 would mean not to wait at all.
        self._socket.settimeout(max(self._until - monotonic(), 0.001))

    def _read(self, size: int) -> bytes:
        """Read so many bytes; the descriptors come with later ones."""
        pieces: list[bytes] = []
        while size:
            self._set_timeout()
            piece = self._socket.recv(min(size, _PIECE))
            if not piece:
                raise ConnectionResetError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _read_descriptors(self, count: int) -> list[int]:
        self._set_timeout()
        found = array("i")
        data, passed, flags, _ = self._socket.recvmsg(
            1, socket.CMSG_LEN(count * found.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            raise ConnectionResetError
        for _, _, numbers in passed:
            found.frombytes(numbers)
        descriptors = found.tolist()
        if len(descriptors) != count or flags & socket.MSG_CTRUNC:
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError("there is no room for all descriptors")
        return descriptors

    def _failed(self, error: OSError) -> HandoverFailed:
        if isinstance(error, TimeoutError):
            return HandoverFailed("the other process takes too long")
        if isinstance(error, ConnectionError):
            self.has_ended = True
            return HandoverFailed("the other process has ended")
        return HandoverFailed(error.strerror or str(error))
