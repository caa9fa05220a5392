"""Messages between the two processes of a hand-over: a value of JSON each, and descriptors."""

from __future__ import annotations

import json
import os
import socket
from array import array
from collections.abc import Sequence
from struct import Struct
from time import monotonic
from typing import Any

from portmapd.errors import HandoverFailed

#: The most descriptors that the kernel passes with one message (SCM_MAX_FD).
BATCH = 253
#: A message is the number of its descriptors and the size of its text, the text, and a byte for each
#: batch of descriptors.
_HEAD = Struct("=IQ")
#: Text is read in pieces of so many bytes.
_PIECE = 1 << 20

_ENDED = "the other process has ended"


class Talk:
    """One end of the pair of sockets.

    :param skt: a stream of messages; it is closed with the talk.
    """

    def __init__(self, skt: socket.socket) -> None:
        self._socket = skt
        self._until = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """End the talk."""
        self._socket.close()

    def limit(self, seconds: float) -> None:
        """Have everything that follows end within that time."""
        self._until = monotonic() + seconds

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message.

        :raises HandoverFailed: the other process has ended, or takes too long.
        """
        text = json.dumps(message, separators=(",", ":")).encode()
        batches = [descriptors[at : at + BATCH] for at in range(0, len(descriptors), BATCH)]
        try:
            self._set_timeout()
            self._socket.sendall(_HEAD.pack(len(descriptors), len(text)) + text)
            for batch in batches:
                self._set_timeout()
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", batch))]
                self._socket.sendmsg([b"\0"], passed)
        except OSError as error:
            raise _failed(error) from error

    def receive(self) -> tuple[Any, list[int]]:
        """Receive a message and its descriptors, which no child inherits.

        :raises HandoverFailed: the other process has ended, takes too long, or the descriptors are too
            many for this one.
        """
        try:
            count, size = _HEAD.unpack(self._read(_HEAD.size))
            text = self._read(size)
            found: list[int] = []
            while len(found) < count:
                found += self._read_descriptors(min(BATCH, count - len(found)))
            return json.loads(text), found
        except OSError as error:
            raise _failed(error) from error
        except ValueError as error:
            raise HandoverFailed(f"the other process says what cannot be read: {error}") from error

    def expect(self, word: str) -> Any:
        """Receive a message of this kind: a list of the word and a value.

        :return: the value.
        :raises HandoverFailed: the other process refuses, or as :meth:`receive`.
        """
        message, _ = self.receive()
        if isinstance(message, list) and len(message) == 2 and message[0] == word:
            return message[1]
        if isinstance(message, list) and message[:1] == ["no"]:
            raise HandoverFailed(str(message[-1]))
        raise HandoverFailed(f"the other process does not say {word}")

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
                raise ConnectionResetError(_ENDED)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _read_descriptors(self, count: int) -> list[int]:
        self._set_timeout()
        data, descriptors, flags, _ = socket.recv_fds(
            self._socket, 1, count, socket.MSG_CMSG_CLOEXEC
        )
        if len(descriptors) != count or flags & socket.MSG_CTRUNC:
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(_ENDED if not data else "there is no room for all descriptors")
        return list(descriptors)


def _failed(error: OSError) -> HandoverFailed:
    if isinstance(error, TimeoutError):
        return HandoverFailed("the other process takes too long")
    if isinstance(error, ConnectionError):
        return HandoverFailed(_ENDED)
    return HandoverFailed(error.strerror or str(error))
