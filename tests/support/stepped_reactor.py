"""A reactor that runs only when a test says so, and streams in it."""

import select
import socket
from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock

from portmapd.server.fast.epoll_group import EpollGroup, IGroupReactor
from portmapd.server.fast.transports import UnixStream

#: A test in which so many turns are not enough is broken.
MOST = 100_000


class Turns:
    """The turns of a reactor.

    :ivar reactor: a reactor whose clock a test advances.
    :ivar epoll_group: the streams in it.
    """

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.epoll_group = EpollGroup(cast("IGroupReactor", self.reactor))

    def turn(self) -> bool:
        """Give one turn; was there something to do?"""
        # A call that is due at once, and is made in this turn, belongs to the next one.
        due = [c for c in self.reactor.calls if c.getTime() <= self.reactor.seconds()]
        for call in due:
            if call.active():
                self.reactor.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        ready = False
        if self.epoll_group in self.reactor.getReaders():
            ready = bool(select.select([self.epoll_group], [], [], 0)[0])
        if ready:
            self.epoll_group.doRead()
        return ready or bool(due)

    def run(self) -> None:
        """Give turns until there is nothing to do."""
        for _ in range(MOST):
            if not self.turn():
                return
        raise AssertionError("it never ends")

    def connect(self, protocol: Any) -> socket.socket:
        """Connect *protocol*, and give the peer's socket, which never blocks."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        for each in (ours, theirs):
            each.setblocking(False)
        # As tcp.Port does it.
        protocol.makeConnection(UnixStream(ours, protocol, None, None, 0, self.epoll_group))
        return theirs

    def exchange(self, peer: socket.socket, data: bytes = b"") -> bytes:
        """Have *peer* send and receive as much as it can; give what it received."""
        received = b""
        while True:
            sent = _send(peer, data)
            data = data[sent:]
            self.run()
            more = _receive(peer)
            received += more
            if not more and not sent:
                return received


def _send(peer: socket.socket, data: bytes) -> int:
    try:
        return peer.send(data) if data else 0
    except (BlockingIOError, BrokenPipeError):
        return 0


def _receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1 << 20)
    except (BlockingIOError, ConnectionResetError):
        return b""


def is_closed(peer: socket.socket) -> bool:
    """Did the other end close, after all that it sent was received?"""
    try:
        return peer.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
