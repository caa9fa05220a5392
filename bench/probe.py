"""How a server that starts is asked whether it answers."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"

ASK_AGAIN = 0.001
"""Seconds from one question to the next."""

ANSWER_LIMIT = 1.0
"""Seconds for an answer over a connection that was made."""

Answers = Callable[[], bool]

_NULL_CALL = struct.pack(">10I", 1, 0, 2, 100000, 2, 0, 0, 0, 0, 0)
_NAMES_REQUEST = b"\0\1n"


@contextmanager
def port_mapper(port: int) -> Iterator[Answers]:
    """Whether a NULL call over UDP is answered at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((HOST, port))
        asking.settimeout(ASK_AGAIN)

        def answers() -> bool:
            try:
                asking.send(_NULL_CALL)
                return bool(asking.recv(512))
            except ConnectionRefusedError:
                time.sleep(ASK_AGAIN)
            except TimeoutError:
                pass
            return False

        yield answers


@contextmanager
def name_server(port: int) -> Iterator[Answers]:
    """Whether epmd answers a request for its names (NAMES_REQ), a connection for each."""

    def answers() -> bool:
        try:
            return bool(epmd_answer(port, _NAMES_REQUEST))
        except ConnectionRefusedError:
            time.sleep(ASK_AGAIN)
        return False

    yield answers


def epmd_answer(port: int, request: bytes) -> bytes:
    """What epmd answers first; nothing if it closes the connection instead."""
    with socket.create_connection((HOST, port), ANSWER_LIMIT) as asking:
        try:
            asking.sendall(request)
            return asking.recv(512)
        except (ConnectionResetError, BrokenPipeError):
            return b""
