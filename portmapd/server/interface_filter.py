"""Which interface a packet came in over, as the kernel knows it.

The source address of a datagram is what its sender wrote, and IP_PKTINFO names the interface that
owns the address it was sent to, not the one it came in over. Socket filters (classic BPF) see the
device itself, take no privilege, and act before anything is queued.
"""

import ctypes
import socket
from struct import Struct

#: The loopback interface has this index in every network namespace.
LOOPBACK_INDEX = 1

#: Linux's own numbers, which the socket module does not have.
_SO_ATTACH_FILTER = 26
_SO_ATTACH_REUSEPORT_CBPF = 51

#: ``struct sock_filter`` and ``struct sock_fprog`` of <linux/filter.h>.
_INSTRUCTION = Struct("=HBBI")
_PROGRAM = Struct("@HP")

_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
#: Where a program finds the index of the device: SKF_AD_OFF + SKF_AD_IFINDEX.
_DEVICE = 0x1_0000_0000 - 0x1000 + 8
#: A filter returns how many bytes of the packet to keep.
_KEEP, _DROP = 0x4_0000, 0


def hear_loopback(skt: socket.socket) -> None:
    """Have *skt* receive only what comes in over the loopback interface."""
    _attach(skt, _SO_ATTACH_FILTER, _KEEP, _DROP)


def hear_others(skt: socket.socket) -> None:
    """Have *skt* receive only what comes in over other interfaces than loopback."""
    _attach(skt, _SO_ATTACH_FILTER, _DROP, _KEEP)


def divide(others: socket.socket, loopback: socket.socket) -> None:
    """Divide the datagrams to one address between two sockets, by interface.

    Both must be bound to that address with SO_REUSEPORT, *others* first, and nobody else.
    """
    hear_others(others)
    hear_loopback(loopback)
    # Of a group of sockets the kernel chooses one by this program, which returns its place; the
    # filters are there for broadcasts, which go to every socket.
    _attach(others, _SO_ATTACH_REUSEPORT_CBPF, 1, 0)


def _attach(skt: socket.socket, option: int, on_loopback: int, on_others: int) -> None:
    """Attach a program that returns one of two values."""
    instructions = (
        (_LOAD_WORD, 0, 0, _DEVICE),
        (_JUMP_IF_EQUAL, 0, 1, LOOPBACK_INDEX),
        (_RETURN, 0, 0, on_loopback),
        (_RETURN, 0, 0, on_others),
    )
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _PROGRAM.pack(len(instructions), ctypes.addressof(buffer))
    skt.setsockopt(socket.SOL_SOCKET, option, program)
