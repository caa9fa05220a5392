"""Requests to the kernel over netlink (``netlink(7)``)."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct, unpack_from

#: ``struct nlmsghdr``: length, type, flags, sequence number and port.
HEADER = Struct("=IHHII")
#: Types of the messages that end a reply.
ERROR, DONE = 2, 3
#: The most bytes that are received at a time: the kernel sends at most 32 KiB.
BUFFER = 1 << 16

#: What a request is for: one entry, or a whole table.
REQUEST, DUMP = 0x001, 0x301


@contextmanager
def requested(
    protocol: int, kind: int, body: bytes, flags: int = REQUEST
) -> Iterator[socket.socket]:
    """In the block, a socket from which the reply to a request can be received.

    :param protocol: of netlink, like NETLINK_ROUTE.
    :param kind: the type of the message.
    :param body: the message behind its header.
    :param flags: :data:`REQUEST` or :data:`DUMP`.
    :raises OSError: the kernel takes no request.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.send(HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body)
        yield netlink


def ask(protocol: int, kind: int, body: bytes) -> bytes:
    """The one message that replies to a request, with its header.

    :raises OSError: the kernel takes no request, or replies with an error.
    """
    with requested(protocol, kind, body) as netlink:
        reply = netlink.recv(BUFFER)
    if HEADER.unpack_from(reply)[1] == ERROR:
        raise error_of(reply)
    return reply


def error_of(reply: bytes, at: int = 0) -> OSError:
    """The error that the message of type :data:`ERROR` at that place tells of."""
    (code,) = unpack_from("=i", reply, at + HEADER.size)
    return OSError(-code, os.strerror(-code))
