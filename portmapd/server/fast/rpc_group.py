"""Membership in the group ``ff02::202``, where RPC's IPv6 callers broadcast to (RFC 5665, 5.3)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from struct import pack

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.server.fast.epoll_group import IGroupReactor

GROUP = socket.inet_pton(socket.AF_INET6, "ff02::202")
#: How long interfaces may go on changing before they are looked at, in seconds.
DELAY = 0.5
#: The kernel's group of netlink that tells of changes of interfaces.
_RTMGRP_LINK = 1
_BUFFER = 65_536


@contextmanager
def _let_pass(number: int) -> Iterator[None]:
    """In the block, let an error of that number pass."""
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise


@implementer(IReadDescriptor)
class RpcGroup:
    """Keeps sockets in the group on every interface, also on those that come later.

    :param sockets: IPv6 sockets.
    :param reactor: measures time, and watches for changes of interfaces.
    """

    _log = Logger()

    def __init__(self, sockets: Sequence[socket.socket], reactor: IGroupReactor) -> None:
        self._sockets = sockets
        self._reactor = reactor
        self._joined: set[int] = set()
        self._netlink: socket.socket | None = None
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Join the group, and watch."""
        try:
            self._netlink = netlink = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
            netlink.bind((0, _RTMGRP_LINK))
        except OSError as error:
            self._log.warn("no broadcasts on interfaces that come later: {error}", error=error)
        else:
            self._reactor.addReader(self)
        self._update()

    def stop(self) -> None:
        """Watch no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._netlink is not None:
            self._reactor.removeReader(self)
            self._netlink.close()
            self._netlink = None

    def _update(self) -> None:
        """Join on new interfaces, and leave on those that are gone: memberships would stay."""
        self._call = None
        interfaces = {index for index, _ in socket.if_nameindex()}
        for index in self._joined - interfaces:
            self._change(index, socket.IPV6_LEAVE_GROUP)
        self._joined &= interfaces
        self._joined |= {
            index
            for index in interfaces - self._joined
            if self._change(index, socket.IPV6_JOIN_GROUP)
        }

    def _change(self, index: int, option: int) -> bool:
        """Join or leave on that interface; not every one can broadcast."""
        try:
            for skt in self._sockets:
                # The process that had the socket before may have joined.
                with _let_pass(errno.EADDRINUSE):
                    skt.setsockopt(socket.IPPROTO_IPV6, option, GROUP + pack("=I", index))
        except OSError:
            return False
        return True

    # IReadDescriptor, for the reactor

    def fileno(self) -> int:
        return -1 if self._netlink is None else self._netlink.fileno()

    def doRead(self) -> None:
        """Interfaces have changed; which ones is looked up when they do no more."""
        with suppress(OSError):
            while self._netlink is not None and self._netlink.recv(_BUFFER):
                continue
        if self._call is None:
            self._call = self._reactor.callLater(DELAY, self._update)

    def logPrefix(self) -> str:
        return "portmapd"

    def connectionLost(self, reason: Failure) -> None:
        self.stop()
