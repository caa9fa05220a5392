"""The services of another machine, for programs without an event loop. Internal."""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from portmapd.client.blocking.connection import CHUNK, Dialer
from portmapd.client.blocking.deadline import Deadline
from portmapd.client.blocking.session import SharedConnection
from portmapd.client.core.registrations import Refused, Registrations
from portmapd.client.core.remote import RESOLVE_TIMEOUT, RemoteConnection, RemoteHost
from portmapd.client.rpc.blocking import ThreadWaiter
from portmapd.errors import UnknownCommand

if TYPE_CHECKING:
    from portmapd.client.values import Terminator


class RemoteDialer(Dialer):
    """Makes connections to another machine within a deadline."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host."""
        seconds = min(self.left, RESOLVE_TIMEOUT)
        waiter = ThreadWaiter()
        found = await waiter.resolve(host, port, waiter.time() + seconds)
        return list(dict.fromkeys(row[4][0] for row in found))

    async def exchange(
        self, stream: socket.socket, request: bytes, limit: int, seconds: float
    ) -> bytes:
        """Send *request*, and return what comes."""
        part = self._deadline.within(seconds)
        with stream:
            rest = memoryview(request)
            while rest:
                part.wait(stream.fileno(), select.POLLOUT)
                rest = rest[stream.send(rest, socket.MSG_NOSIGNAL) :]
            answer = bytearray()
            while data := _received(stream, part):
                answer += data
                if len(answer) > limit:
                    raise OSError("the answer is too long")
            return bytes(answer)


def _received(stream: socket.socket, deadline: Deadline) -> bytes:
    deadline.wait(stream.fileno(), select.POLLIN)
    return stream.recv(CHUNK)


class SharedRemote(SharedConnection):
    """One client's way to another machine. Each operation has a connection of its own.

    :param host: the other machine, as :class:`~portmapd.client.core.remote.RemoteHost` takes it.
    """

    def __init__(self, host: str, timeout: float | None) -> None:
        self._host = RemoteHost(host)
        super().__init__(str(self._host), timeout, None)

    @property
    def remote_hosts(self) -> Sequence[str]:  # type: ignore[override] # it is known later
        """Where the services are."""
        return self._host.addresses

    async def open(self, deadline: Deadline, refused: list[Refused]) -> Any:
        """Return what answers in place of a connection; see the base class."""
        dialer = RemoteDialer(deadline)

        async def exchange(request: bytes) -> bytes:
            return await self._host.exchange(dialer, request)

        return RemoteConnection(self._host, exchange), Registrations()

    def hold(self, terminator: Terminator | None) -> None:
        raise UnknownCommand("nothing is registered on another machine: there is nothing to hold")
