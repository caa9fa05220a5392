"""Messages over plain, blocking sockets: callers that do exactly what a test says."""

import ctypes
import platform
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TypeVar

from portmapd.oncrpc.message import NOBODY, Call, Credential, encode_call
from portmapd.oncrpc.record import mark

#: No answer takes longer, in seconds; it only keeps a broken test from hanging.
PATIENCE = 30.0

_xids = count(1)

#: The number of that system call.
_SETRESUID = {"x86_64": 117}.get(platform.machine(), 147)

T = TypeVar("T")

Make = Callable[[socket.AddressFamily, socket.SocketKind], socket.socket]


def question(
    version: int,
    procedure: int,
    arguments: bytes = b"",
    program: int = 100000,
    credential: Credential = NOBODY,
) -> bytes:
    """A call with an xid that no other has."""
    return encode_call(Call(next(_xids), program, version, procedure, credential, arguments))


def connect(
    kind: socket.SocketKind, host: str, port: int, source: str = "", make: Make = socket.socket
) -> socket.socket:
    """A socket that is connected to *port* of *host*.

    :param source: the address that it is bound to before.
    :param make: makes the socket.
    """
    skt = make(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    skt.settimeout(PATIENCE)
    if source:
        skt.bind((source, 0))
    skt.connect((host, port))
    return skt


def connect_local(path: str) -> socket.socket:
    """A socket that is connected to the rpcbind socket at *path*."""
    skt = socket.socket(socket.AF_UNIX)
    skt.settimeout(PATIENCE)
    skt.connect(path)
    return skt


def run_as(uid: int, do: Callable[[], T]) -> T:
    """The result of *do*, done by a thread that is user *uid* alone.

    :raises OSError: this process may not become that user.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def become() -> T:
        # The C library's own function would change every thread.
        if libc.syscall(_SETRESUID, uid, uid, uid):
            raise OSError(ctypes.get_errno(), f"cannot become uid {uid}")
        return do()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(become).result()


def exchange(skt: socket.socket, message: bytes) -> bytes:
    """Send *message*, and give the reply.

    :raises EOFError: the stream was closed instead.
    """
    if skt.type == socket.SOCK_DGRAM:
        skt.send(message)
        return skt.recv(65_535)
    skt.sendall(mark(message))
    return receive_record(skt)


def receive_record(skt: socket.socket) -> bytes:
    """The next record, which must be one fragment.

    :raises EOFError: the stream was closed instead.
    """
    size = int.from_bytes(_receive(skt, 4)) & 0x7FFF_FFFF
    return _receive(skt, size)


def _receive(skt: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            piece = skt.recv(size - len(data))
        except ConnectionResetError:
            piece = b""
        if not piece:
            raise EOFError("closed")
        data += piece
    return bytes(data)


def reply_or_silence(skt: socket.socket, message: bytes, witness: socket.socket) -> bytes | None:
    """The reply to a datagram; None: it is not answered.

    :param witness: asks the same socket after it; datagrams are answered in order.
    """
    skt.send(message)
    exchange(witness, question(2, 0))
    skt.setblocking(False)
    try:
        return skt.recv(65_535)
    except BlockingIOError:
        return None
    finally:
        skt.settimeout(PATIENCE)
