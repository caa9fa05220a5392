"""Messages over plain, blocking sockets: callers that do exactly what a test says."""

import ctypes
import platform
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count, product
from random import Random
from typing import TypeVar

from portmapd.oncrpc.message import NOBODY, Call, Credential, decode_reply, encode_call
from portmapd.oncrpc.record import mark
from portmapd.oncrpc.xdr import Reader

#: No answer takes longer, in seconds; it only keeps a broken test from hanging.
PATIENCE = 30.0

#: Unprivileged ports below those that the kernel chooses itself.
_PORTS = range(12_000, 32_000)

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
    if source:
        skt.bind((source, 0))
    return _connected(skt, (host, port))


def connect_local(path: str) -> socket.socket:
    """A socket that is connected to the rpcbind socket at *path*."""
    return _connected(socket.socket(socket.AF_UNIX), path)


def _connected(skt: socket.socket, address: tuple[str, int] | str) -> socket.socket:
    skt.settimeout(PATIENCE)
    try:
        skt.connect(address)
    except OSError:
        skt.close()
        raise
    return skt


def free_port() -> int:
    """A port that is free on loopback for both protocols and families.

    The kernel does not give it to others, for it is none of those that it chooses itself.
    """
    port = Random().choice(_PORTS)
    hosts = ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",)
    kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    return port if all(_is_free(*where, port) for where in product(hosts, kinds)) else free_port()


@cache
def has_ipv6() -> bool:
    """Whether this host has IPv6."""
    return _is_free("::1", socket.SOCK_DGRAM, 0)


def _is_free(host: str, kind: socket.SocketKind, port: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as skt:
            skt.bind((host, port))
    except OSError:
        return False
    return True


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


def results(skt: socket.socket, version: int, procedure: int, arguments: bytes = b"") -> Reader:
    """Call a procedure of the port mapper, and give its results.

    :raises EOFError: the stream was closed instead.
    """
    return Reader(decode_reply(exchange(skt, question(version, procedure, arguments))))


def receive_record(skt: socket.socket) -> bytes:
    """The next record, in any number of fragments.

    :raises EOFError: the stream was closed instead.
    """
    fragments: list[bytes] = []
    word = 0
    while not word >> 31:
        word = int.from_bytes(_receive(skt, 4))
        fragments.append(_receive(skt, word & 0x7FFF_FFFF))
    return b"".join(fragments)


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

    :param witness: asks the same server after it.
    """
    skt.send(message)
    # The server may have read another socket first, but not twice.
    for _ in range(2):
        exchange(witness, question(2, 0))
    skt.setblocking(False)
    try:
        return skt.recv(65_535)
    except BlockingIOError:
        return None
    finally:
        skt.settimeout(PATIENCE)
