"""Which interface a packet came in over, as the kernel knows it.

The source address of a datagram is what its sender wrote, and IP_PKTINFO names the interface that
owns the address it was sent to, not the one it came in over. Socket filters (classic BPF) see the
device itself, take no privilege, and act before anything is queued.
"""

import ctypes
import socket
from ipaddress import ip_address
from struct import Struct

#: The loopback interface has this index in every network namespace.
LOOPBACK_INDEX = 1

#: Linux's own numbers, which the socket module does not have.
_SO_ATTACH_FILTER = _SO_GET_FILTER = 26
_SO_ATTACH_REUSEPORT_CBPF = 51

#: ``struct sock_filter`` and ``struct sock_fprog`` of <linux/filter.h>.
_INSTRUCTION = Struct("=HBBI")
_PROGRAM = Struct("@HP")

#: Code, jump if true, jump if false, operand.
_Instruction = tuple[int, int, int, int]

_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
#: Where a program finds the index of the device: SKF_AD_OFF + SKF_AD_IFINDEX.
_DEVICE = 0x1_0000_0000 - 0x1000 + 8
#: Where it finds the destination address, by IP version: SKF_NET_OFF and the offset in the header.
_DESTINATIONS = {4: 0x1_0000_0000 - 0x10_0000 + 16, 6: 0x1_0000_0000 - 0x10_0000 + 24}
#: The most instructions of a filter that is looked at (BPF_MAXINSNS).
_LONGEST = 4_096
#: A filter returns how many bytes of the packet to keep.
_KEEP, _DROP = 0x4_0000, 0


def is_loopback(host: str) -> bool:
    """Whether *host*, an IP address with or without its scope, is of the loopback interface."""
    return ip_address(host.partition("%")[0]).is_loopback


def hear_loopback(skt: socket.socket) -> None:
    """Have *skt* receive only what comes in over the loopback interface.

    Where the kernel's ``route_localnet`` is on, other hosts reach loopback addresses, too.
    """
    _attach(skt, _SO_ATTACH_FILTER, _by_interface(_KEEP, _DROP))


def hears_loopback(skt: socket.socket) -> bool:
    """Whether :func:`hear_loopback` was called with *skt*, in whatever process."""
    return _attached(skt) == _encoded(_by_interface(_KEEP, _DROP))


def hear_address(skt: socket.socket, host: str) -> None:
    """Have *skt* receive only what comes in over loopback for *host*, one of its addresses."""
    address = ip_address(host)
    words = [address.packed[at : at + 4] for at in range(0, len(address.packed), 4)]
    program: list[_Instruction] = []
    for at, word in enumerate(words):
        program += [
            (_LOAD_WORD, 0, 0, _DESTINATIONS[address.version] + 4 * at),
            (_JUMP_IF_EQUAL, 1, 0, int.from_bytes(word)),
            (_RETURN, 0, 0, _DROP),
        ]
    _attach(skt, _SO_ATTACH_FILTER, [*program, *_by_interface(_KEEP, _DROP)])


def hear_others(skt: socket.socket) -> None:
    """Have *skt* receive only what comes in over other interfaces than loopback."""
    _attach(skt, _SO_ATTACH_FILTER, _by_interface(_DROP, _KEEP))


def steer(others: socket.socket) -> None:
    """Divide the datagrams to one address between two sockets, by interface.

    Both must be bound to that address and have SO_REUSEPORT: first *others*, which is to have
    called :func:`hear_others`, then one that has called :func:`hear_loopback`. The kernel chooses
    one of them by a program that returns its place; their own filters are there for broadcasts,
    which go to every socket, and for datagrams that came before.
    """
    _attach(others, _SO_ATTACH_REUSEPORT_CBPF, _by_interface(1, 0))


def _by_interface(on_loopback: int, on_others: int) -> list[_Instruction]:
    """Make a program that returns one of two values."""
    return [
        (_LOAD_WORD, 0, 0, _DEVICE),
        (_JUMP_IF_EQUAL, 0, 1, LOOPBACK_INDEX),
        (_RETURN, 0, 0, on_loopback),
        (_RETURN, 0, 0, on_others),
    ]


def _encoded(instructions: list[_Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def _attached(skt: socket.socket) -> bytes:
    """The filter of *skt*; empty if it has none.

    The length is one of instructions, which ``socket.getsockopt`` takes for one of bytes.
    """
    buffer = ctypes.create_string_buffer(_LONGEST * _INSTRUCTION.size)
    length = ctypes.c_uint32(_LONGEST)
    failed = ctypes.CDLL(None).getsockopt(
        skt.fileno(), socket.SOL_SOCKET, _SO_GET_FILTER, buffer, ctypes.byref(length)
    )
    return b"" if failed else buffer.raw[: length.value * _INSTRUCTION.size]


def _attach(skt: socket.socket, option: int, instructions: list[_Instruction]) -> None:
    code = _encoded(instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _PROGRAM.pack(len(instructions), ctypes.addressof(buffer))
    skt.setsockopt(socket.SOL_SOCKET, option, program)
