"""Many datagrams with one system call: ``recvmmsg`` and ``sendmmsg`` of Linux.

Under load, most of a request's cost is system calls, and the objects that the socket module makes
for every datagram. Here up to :data:`SLOTS` requests arrive with one call, and their replies leave
with another. For each of them the interpreter looks up two keys, and stores an address and a size.
"""

import ctypes
import mmap
import socket
from array import array
from collections.abc import Callable, Mapping
from ctypes import (
    POINTER,
    Structure,
    addressof,
    byref,
    c_char,
    c_int,
    c_size_t,
    c_uint,
    c_void_p,
    sizeof,
)
from time import monotonic
from typing import Any

from attrs import frozen

from portmapd.oncrpc.message import XID
from portmapd.portmapper.reply_cache import CachedReply, ReplyTable
from portmapd.portmapper.traffic import Traffic

#: The most datagrams taken in at once; they are served before other sockets have their turn.
SLOTS = 64
#: How long that may take, in seconds. After a turn that took longer, the next one takes in fewer.
TURN = 0.002
#: Room for most requests, in bytes. Longer ones have no cached replies.
HEAD = 256
#: The rest of the longest datagram.
TAIL = 65_536 - HEAD


class _Iovec(Structure):
    _fields_ = (("base", c_void_p), ("length", c_size_t))


class _Header(Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", c_void_p),
        ("name_length", c_uint),
        ("parts", POINTER(_Iovec)),
        ("part_count", c_size_t),
        ("control", c_void_p),
        ("control_length", c_size_t),
        ("flags", c_int),
    )


class _Message(Structure):
    """``struct mmsghdr``."""

    _fields_ = (("header", _Header), ("length", c_uint))


@frozen
class _Layout:
    """Sizes and positions, in bytes, in what the kernel writes.

    :param name: the size of a caller's ``sockaddr``.
    :param host: the host in it.
    :param info: the size of the packet information.
    :param interface: the position of the interface in that.
    """

    name: int
    host: slice
    info: int
    interface: int


#: ``sockaddr_in`` with ``in_pktinfo``, ``sockaddr_in6`` with ``in6_pktinfo``.
_LAYOUTS = {
    socket.AF_INET: _Layout(16, slice(4, 8), 12, 0),
    socket.AF_INET6: _Layout(28, slice(8, 24), 20, 16),
}

#: Takes a request that no cached reply fits: message, sockaddr, packet information, and its key.
Miss = Callable[[bytes, bytes, bytes, bytes], None]


class Batch:
    """Takes requests from one UDP socket, and answers those that cached replies fit.

    :param skt: a non-blocking socket.
    :param informed: does the socket give packet information? Then replies leave from the address
        that was asked.
    :param traffic: counts what comes in, and the cached replies.
    """

    def __init__(self, skt: socket.socket, informed: bool, traffic: Traffic) -> None:
        self._traffic = traffic
        self._fd = skt.fileno()
        self._layout = layout = _LAYOUTS[socket.AddressFamily(skt.family)]
        self._control = socket.CMSG_SPACE(layout.info) if informed else 0
        self._heads, self._tails = _Slots(HEAD), _Slots(TAIL)
        self._names, self._controls = _Slots(layout.name), _Slots(self._control)
        self._parts = array("L", bytes(SLOTS * 2 * sizeof(_Iovec)))
        self._incoming, self._outgoing = self._make_incoming(), self._make_outgoing()
        self._template = bytes(self._incoming)
        self._headers = memoryview(self._incoming).cast("B")
        lengths = self._headers.cast("I")
        self._lengths = lengths[_Message.length.offset // 4 :: sizeof(_Message) // 4]
        libc = ctypes.CDLL(None, use_errno=True)
        self._receive, self._send = libc.recvmmsg, libc.sendmmsg
        self._receive.argtypes = (c_int, c_void_p, c_uint, c_int, c_void_p)
        self._send.argtypes = (c_int, c_void_p, c_uint, c_int)
        self._most = SLOTS

    def _make_incoming(self) -> Any:
        """Headers for requests, with a slot for each."""
        parts = (_Iovec * (2 * SLOTS))()
        messages = (_Message * SLOTS)()
        for slot, message in enumerate(messages):
            parts[2 * slot] = _Iovec(self._heads.address(slot), HEAD)
            parts[2 * slot + 1] = _Iovec(self._tails.address(slot), TAIL)
            self._fill(message.header, slot, parts)
        return messages

    def _make_outgoing(self) -> Any:
        """Headers for replies: the xid of the request in the slot, then the cached body."""
        parts = (_Iovec * (2 * SLOTS)).from_buffer(self._parts)
        messages = (_Message * SLOTS)()
        for slot, message in enumerate(messages):
            parts[2 * slot] = _Iovec(self._heads.address(slot), XID)
            self._fill(message.header, slot, parts)
        return messages

    def _fill(self, header: _Header, slot: int, parts: Any) -> None:
        header.name, header.name_length = self._names.address(slot), self._layout.name
        header.parts, header.part_count = ctypes.pointer(parts[2 * slot]), 2
        if self._control:
            header.control, header.control_length = self._controls.address(slot), self._control

    def serve(self, tables: Mapping[bytes, ReplyTable], miss: Miss) -> None:
        """Answer requests that have arrived, in order: as many as a turn has time for.

        :param tables: cached replies, by the key of a request: its host and packet information.
        :param miss: is given every request that none of them fits.
        """
        self._headers[:] = self._template
        count = self._receive(self._fd, self._incoming, self._most, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return
        heads, keys = self._heads.take(count), self._keys(count)
        parts, first, began = self._parts, 0, 0.0
        lengths = self._lengths[:count].tolist()
        self._traffic.received += sum(lengths)
        for slot, length in enumerate(lengths):
            at = slot * HEAD
            table = tables.get(keys[slot])
            # The slice of a request longer than a head is longer than any that has a cached reply.
            cached = table.find(heads[at + XID : at + length]) if table is not None else None
            if cached is None:
                began = began or monotonic()
                self._flush(first, slot)
                first = slot + 1
                self._miss(slot, length, keys[slot], miss)
            else:
                cached.count.value += 1
                parts[4 * slot + 2] = cached.address or _locate(cached)
                parts[4 * slot + 3] = len(cached.body)
        self._flush(first, count)
        if began or self._most < SLOTS:
            self._most = self._next(count, monotonic() - began if began else 0.0)

    def _next(self, count: int, took: float) -> int:
        """How many datagrams the next turn takes in, after one of *count* that took so long."""
        return max(1, count // 2) if took > TURN else min(SLOTS, 2 * self._most)

    def _keys(self, count: int) -> list[bytes]:
        """The key of each request."""
        width, host = self._layout.name, self._layout.host
        names = self._names.take(count)
        hosts = [names[at + host.start : at + host.stop] for at in range(0, count * width, width)]
        if not self._control:
            return hosts
        return [h + self._packet_info(slot) for slot, h in enumerate(hosts)]

    def _packet_info(self, slot: int) -> bytes:
        if not self._control:
            return b""
        data = socket.CMSG_LEN(0)
        return self._controls.get(slot, data, data + self._layout.info)

    def _miss(self, slot: int, length: int, key: bytes, miss: Miss) -> None:
        message = self._heads.get(slot, 0, min(length, HEAD))
        if length > HEAD:
            message += self._tails.get(slot, 0, length - HEAD)
        miss(message, self._names.get(slot, 0, self._layout.name), self._packet_info(slot), key)

    def _flush(self, first: int, last: int) -> None:
        """Send the replies of the slots from *first* to before *last*.

        What the kernel does not take is dropped: callers over UDP ask again.
        """
        if self._control:
            self._forget_interfaces(first, last)
        bodies = self._parts[4 * first + 3 : 4 * last : 4]
        self._traffic.sent += sum(bodies) + XID * len(bodies)
        while first < last:
            messages = byref(self._outgoing, first * sizeof(_Message))
            sent = self._send(self._fd, messages, last - first, socket.MSG_DONTWAIT)
            first += sent if sent > 0 else 1

    def _forget_interfaces(self, first: int, last: int) -> None:
        """Let replies leave where the routes lead, which need not be where requests came in."""
        at = socket.CMSG_LEN(0) + self._layout.interface
        for slot in range(first, last):
            self._controls.put(slot, at, bytes(4))


def _locate(cached: CachedReply) -> int:
    """The place of the reply's body in memory, which is valid while the reply is referenced."""
    address = ctypes.cast(ctypes.c_char_p(cached.body), c_void_p).value
    assert address is not None
    cached.address = address
    return address


class _Slots:
    """:data:`SLOTS` buffers of *size* bytes each; an unused one takes no memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._buffer = mmap.mmap(-1, max(size, 1) * SLOTS)
        self._base = addressof(c_char.from_buffer(self._buffer))

    def address(self, slot: int) -> int:
        """The slot's place in memory."""
        return self._base + slot * self._size

    def take(self, count: int) -> bytes:
        """The bytes of the first *count* slots."""
        return self._buffer[: count * self._size]

    def get(self, slot: int, start: int, stop: int) -> bytes:
        """Bytes *start* to *stop* of the slot."""
        at = slot * self._size
        return self._buffer[at + start : at + stop]

    def put(self, slot: int, start: int, data: bytes) -> None:
        """Overwrite the slot from byte *start* on."""
        at = slot * self._size + start
        self._buffer[at : at + len(data)] = data
