"""Calls over plain sockets, for the clients that block and for asyncio. Internal.

What waits is a coroutine: the one client drives it by waiting, the other one in its event loop.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, ClassVar, Protocol

from portmapd.client import sockets
from portmapd.client.core.connecting import Target, dial, reason_of
from portmapd.client.rpc.broadcast_call import FIRST_INTERVAL as BROADCAST_INTERVAL
from portmapd.client.rpc.broadcast_call import (
    BroadcastCall,
    BroadcastReply,
    open_socket,
    waiting_datagrams,
)
from portmapd.client.rpc.operations import PORT, TIMEOUT, check_timeout
from portmapd.client.rpc.portmap_client import (
    BasePortmapClient,
    BoolT,
    EntriesT,
    IntT,
    NoneT,
    PmapsT,
    ResultT,
    RpcbsT,
    StatsT,
    StrT,
    Transport,
)
from portmapd.client.rpc.wire import (
    FIRST_INTERVAL,
    LONGEST_INTERVAL,
    MAX_ADDRESSES,
    MAX_DATAGRAM_REPLY,
    MAX_FRAGMENTS,
    MAX_STREAM_REPLY,
    ErrorQueue,
    check_internet,
    check_size,
    host_of,
    new_xid,
    xid_in,
)
from portmapd.errors import CallTimedOut, DaemonUnreachable
from portmapd.oncrpc.host import is_address
from portmapd.oncrpc.message import NOBODY, Credential
from portmapd.oncrpc.netid import LOCAL, Netid
from portmapd.oncrpc.program import RemoteCall
from portmapd.oncrpc.record import RecordReader, mark
from portmapd.oncrpc.xdr import uint

#: The most bytes that are read from a stream at once.
CHUNK = 65_536
#: The most connections that are kept for later calls.
MAX_IDLE = 4


class Waiter(Protocol):
    """What waits for sockets: a thread, or an event loop."""

    def time(self) -> float:
        """The seconds of a clock."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def ready(self, events: dict[socket.socket, int], ends: float) -> list[socket.socket]:
        """Wait until one of some sockets is ready.

        :param events: for what each of them, as ``select.poll`` names it.
        :param ends: until when, at the latest.
        :return: those that are; none if the time is over, whether or not one is ready: a server
            that sends without end is given up in time, too.
        """

    async def resolve(self, host: str, port: int, ends: float) -> Sequence[tuple[Any, ...]]:
        """The addresses of a host, as ``socket.getaddrinfo`` gives them.

        :raises CallTimedOut: they are not found in time.
        :raises OSError: there are none.
        """


class PlainExchange(Protocol):
    """A way to one port mapper; see :class:`~portmapd.client.rpc.operations.Exchange`."""

    netid: str
    host: str

    async def call(self, tail: bytes, seconds: float) -> bytes:
        """Make a call."""

    def time(self) -> float:
        """The seconds of a clock."""

    async def pause(self) -> None:
        """Let others work."""

    def close(self) -> None:
        """Close the connections that are kept."""


class _Exchange:
    """What the ways have in common.

    :param where: names the server in errors.
    """

    def __init__(self, waiter: Waiter, where: str, netid: str, host: str) -> None:
        self.netid = netid
        self.host = host
        self.time = waiter.time
        self._waiter = waiter
        self._where = where

    async def pause(self) -> None:
        await self._waiter.sleep(0)

    def close(self) -> None:
        """Nothing is kept."""

    def _timed_out(self, seconds: float) -> CallTimedOut:
        return CallTimedOut(f"{self._where} did not answer within {round(seconds, 3):g} s")

    def _unreachable(self, why: object) -> DaemonUnreachable:
        return DaemonUnreachable(f"{self._where} cannot be reached: {why}")


class DatagramExchange(_Exchange):
    """Calls over UDP, each over a socket of its own.

    The addresses of a name are tried one after the other, each for its share of the time, until one
    replies. That one is called from then on. When none replies, the next call looks the name up
    again.

    :param host: an address, or a name.
    :param strict: whether the kernel lets only the datagrams of the address through that is called.
    """

    def __init__(self, waiter: Waiter, host: str, port: int, strict: bool) -> None:
        netid = "udp6" if ":" in host else "udp"
        super().__init__(waiter, f"UDP port {port} of {host}", netid, host)
        self._name = host
        self._port = port
        self._strict = strict
        self._proven: Any = None

    async def call(self, tail: bytes, seconds: float) -> bytes:
        check_size(tail)
        ends = self.time() + seconds
        addresses = [self._proven] if self._proven else await self._addresses(ends)
        errors: list[Exception] = []
        while addresses:
            address = addresses.pop(0)
            share = (ends - self.time()) / (len(addresses) + 1)
            try:
                reply = await self._call(address, tail, share)
            except (CallTimedOut, DaemonUnreachable) as error:
                errors.append(error)
            else:
                self._proven, self.host = address, host_of(address)
                self.netid = "udp6" if len(address) > 2 else "udp"
                return reply
        self._proven = None
        if any(isinstance(error, CallTimedOut) for error in errors):
            raise self._timed_out(seconds)
        raise errors[-1]

    async def _addresses(self, ends: float) -> list[Any]:
        try:
            found = await self._waiter.resolve(self._name, self._port, ends)
        except OSError as error:
            raise self._unreachable(reason_of(error)) from error
        return list(dict.fromkeys(row[4] for row in found))[:MAX_ADDRESSES]

    async def _call(self, address: Any, tail: bytes, seconds: float) -> bytes:
        family = socket.AF_INET6 if len(address) > 2 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as skt:
            try:
                errors = ErrorQueue(skt, address)
                if self._strict:
                    skt.connect(address)
                return await self._replied(skt, errors, tail, seconds)
            except OSError as error:
                raise self._unreachable(reason_of(error)) from error

    async def _replied(
        self, skt: socket.socket, errors: ErrorQueue, tail: bytes, seconds: float
    ) -> bytes:
        """The reply to a call, which is sent again and again until it comes."""
        ends = self.time() + seconds
        xid, interval = new_xid(), FIRST_INTERVAL
        while self.time() < ends:
            errors.send(uint(xid) + tail)
            again = min(ends, self.time() + interval)
            while await self._waiter.ready({skt: select.POLLIN}, again):
                reply = self._received(skt, xid)
                if reply is not None:
                    return reply
                if error := errors.take():
                    raise OSError(error, os.strerror(error))
            interval = min(2 * interval, LONGEST_INTERVAL)
        raise self._timed_out(seconds)

    def _received(self, skt: socket.socket, xid: int) -> bytes | None:
        """The datagram that came, if it is the reply."""
        try:
            data, address = skt.recvfrom(MAX_DATAGRAM_REPLY)
        except OSError:
            # It is in the queue, with the address that it is about.
            return None
        return data if address[1] == self._port and xid_in(data) == xid else None


class StreamExchange(_Exchange):
    """Calls over a stream. A call has a connection to itself; idle ones are kept for later calls.

    Some servers close the connection after each reply: a call on a kept one is sent again.

    :param target: the path of a UNIX socket; or a host, which may be a name, and a port.
    """

    def __init__(self, waiter: Waiter, target: Target) -> None:
        if isinstance(target, str):
            super().__init__(waiter, target, LOCAL.name, target)
        else:
            host, port = target
            netid = "tcp6" if ":" in host else "tcp"
            super().__init__(waiter, f"TCP port {port} of {host}", netid, host)
        self._target = target
        self._idle: list[socket.socket] = []

    async def call(self, tail: bytes, seconds: float) -> bytes:
        ends = self.time() + seconds
        while self._idle:
            skt = self._idle.pop()
            try:
                return await self._call(skt, tail, ends, seconds)
            except DaemonUnreachable:
                # The server has closed it meanwhile.
                continue
        return await self._call(await self._connected(ends, seconds), tail, ends, seconds)

    async def _connected(self, ends: float, seconds: float) -> socket.socket:
        reason: Exception = OSError("there is no address")
        for target in await self._targets(ends):
            left = ends - self.time()
            if left <= 0:
                raise self._timed_out(seconds)
            try:
                skt = await dial(_Dialer(self._waiter, ends), target, left)
            except OSError as error:
                reason = error
            except CallTimedOut:
                raise self._timed_out(seconds) from None
            else:
                self._reached(skt)
                return skt
        raise self._unreachable(reason_of(reason)) from reason

    def _reached(self, skt: socket.socket) -> None:
        if isinstance(self._target, tuple):
            self.netid = "tcp6" if skt.family == socket.AF_INET6 else "tcp"
            self.host = host_of(skt.getpeername())

    async def _targets(self, ends: float) -> Sequence[Target]:
        if isinstance(self._target, str) or is_address(self._target[0]):
            return [self._target]
        host, port = self._target
        try:
            found = await self._waiter.resolve(host, port, ends)
        except OSError as error:
            raise self._unreachable(reason_of(error)) from error
        return list(dict.fromkeys((host_of(row[4]), port) for row in found))[:MAX_ADDRESSES]

    async def _call(self, skt: socket.socket, tail: bytes, ends: float, seconds: float) -> bytes:
        """Make a call on a connection, which is kept if it goes well."""
        try:
            xid = new_xid()
            await self._send(skt, mark(uint(xid) + tail), ends)
            reply = await self._reply(skt, xid, ends)
        except TimeoutError:
            skt.close()
            raise self._timed_out(seconds) from None
        except OSError as error:
            skt.close()
            raise DaemonUnreachable(f"{self._where} closed the connection") from error
        except BaseException:
            skt.close()
            raise
        if len(self._idle) < MAX_IDLE:
            self._idle.append(skt)
        else:
            skt.close()
        return reply

    async def _send(self, skt: socket.socket, data: bytes, ends: float) -> None:
        rest = memoryview(data)
        while rest:
            await self._until(skt, select.POLLOUT, ends)
            rest = rest[skt.send(rest, socket.MSG_NOSIGNAL) :]

    async def _reply(self, skt: socket.socket, xid: int, ends: float) -> bytes:
        reader = RecordReader(MAX_STREAM_REPLY, MAX_FRAGMENTS)
        while True:
            await self._until(skt, select.POLLIN, ends)
            data = skt.recv(CHUNK)
            # Some servers close the stream instead of marking the final fragment.
            records = [*reader.feed(data)] if data else [reader.end()]
            for record in records:
                if record is not None and xid_in(record) == xid:
                    return record
            if not data:
                raise ConnectionResetError

    async def _until(self, skt: socket.socket, events: int, ends: float) -> None:
        if not await self._waiter.ready({skt: events}, ends):
            raise TimeoutError

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _Dialer:
    """Makes a connection; see :class:`~portmapd.client.core.interfaces.Dialer`."""

    def __init__(self, waiter: Waiter, ends: float) -> None:
        self._waiter = waiter
        self._ends = ends
        self.time = waiter.time
        self.sleep = waiter.sleep

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._ends - self.time()

    async def dial(self, target: Target, seconds: float) -> socket.socket:
        """Connect to *target*."""
        ends = self.time() + seconds

        async def until_writable(skt: socket.socket) -> None:
            if not await self._waiter.ready({skt: select.POLLOUT}, ends):
                raise CallTimedOut("it took too long")

        return await sockets.connect(target, until_writable)


def make_exchange(
    waiter: Waiter, host: str, port: int, transport: Transport, strict: bool
) -> PlainExchange:
    """The way to a port mapper.

    :raises ValueError: *transport*, *host* or *port* is none.
    """
    if transport == "local":
        return StreamExchange(waiter, host)
    if transport not in ("udp", "tcp"):
        raise ValueError(f"transport {transport!r} is none of udp, tcp, local")
    check_internet(host, port)
    if transport == "tcp":
        return StreamExchange(waiter, (host, port))
    return DatagramExchange(waiter, host, port, strict)


class PlainPortmapClient(
    BasePortmapClient[NoneT, BoolT, IntT, StrT, PmapsT, RpcbsT, ResultT, EntriesT, StatsT],
):
    """What the clients over plain sockets have in common; each has its own way of waiting."""

    #: Makes what waits for the client.
    _make_waiter: ClassVar[type[Waiter]]

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT,
        transport: Transport = "udp",
        timeout: float = TIMEOUT,
        credential: Credential = NOBODY,
        strict: bool = False,
    ) -> None:
        self._waiter = self._make_waiter()
        self._exchange = make_exchange(self._waiter, host, port, transport, strict)
        self._port = port
        super().__init__(self._exchange, timeout, credential)

    async def _broadcast(
        self,
        wanted: RemoteCall,
        each: Callable[[BroadcastReply], object] | None,
        timeout: float | None,  # noqa: ASYNC109 # it is no failure
        limit: int,
    ) -> tuple[BroadcastReply, ...]:
        call = BroadcastCall(self._port, wanted, self._operations.credential, each, limit)
        seconds = self._operations.timeout if timeout is None else timeout
        check_timeout(seconds)
        return await broadcast(self._waiter, call, seconds)


async def broadcast(
    waiter: Waiter, call: BroadcastCall, seconds: float
) -> tuple[BroadcastReply, ...]:
    """Send *call* to all networks, and again until the time is over or it ends.

    :return: the replies.
    :raises DaemonUnreachable: it cannot be sent.
    """
    ends, interval = waiter.time() + seconds, BROADCAST_INTERVAL
    with ExitStack() as closed:
        opened: dict[Netid, socket.socket] = {}

        def send(netid: Netid, message: bytes, address: Any) -> None:
            if netid not in opened:
                opened[netid] = closed.enter_context(open_socket(netid))
            opened[netid].sendto(message, address)

        try:
            call.send(send)
        except OSError as error:
            raise DaemonUnreachable(f"no broadcast can be sent: {error.strerror}") from error
        while not await _replied(waiter, call, opened, min(ends, waiter.time() + interval)):
            if waiter.time() >= ends:
                break
            with suppress(OSError):
                # The interfaces may have gone away. Replies may still come.
                call.send(send)
            interval *= 2
    return call.replies


async def _replied(
    waiter: Waiter, call: BroadcastCall, opened: dict[Netid, socket.socket], ends: float
) -> bool:
    """Take replies in, until then.

    :return: whether the broadcast ends.
    """
    netids = {skt: netid for netid, skt in opened.items()}
    while ready := await waiter.ready(dict.fromkeys(netids, select.POLLIN), ends):
        for skt in ready:
            if any(call.received(netids[skt], *datagram) for datagram in waiting_datagrams(skt)):
                return True
    return False
