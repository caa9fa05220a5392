"""Program 100000 for programs without an event loop: plain sockets, no Twisted."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from portmapd.client.blocking.connection import run
from portmapd.client.rpc.broadcast_call import LIMIT, BroadcastReply
from portmapd.client.rpc.operations import TIMEOUT
from portmapd.client.rpc.plain import PlainPortmapClient, make_exchange
from portmapd.client.rpc.portmap_client import Transport
from portmapd.errors import CallTimedOut
from portmapd.oncrpc.message import XID, Call, decode_reply, encode_call
from portmapd.oncrpc.program import CallResult, Pmap, RemoteCall, Rpcb, RpcbEntry, RpcbStat


class ThreadWaiter:
    """A thread that waits."""

    time = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        if seconds:
            time.sleep(seconds)  # noqa: ASYNC251 # nobody else waits for this thread

    async def ready(self, events: dict[socket.socket, int], ends: float) -> list[socket.socket]:
        """Wait until one of some sockets is ready."""
        left = ends - self.time()
        if left <= 0:
            return []
        poll = select.poll()
        for skt, event in events.items():
            poll.register(skt, event)
        found = {number for number, _ in poll.poll(left * 1_000)}
        return [skt for skt in events if skt.fileno() in found]

    async def resolve(self, host: str, port: int, ends: float) -> Sequence[tuple[Any, ...]]:
        """The addresses of a host. A name server may take longer than there is time."""
        found: list[Any] = []

        def look_up() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(max(ends - self.time(), 0))
        if not found:
            raise CallTimedOut(f"the address of {host} was not found in time")
        if isinstance(found[0], OSError):
            raise found[0]
        addresses: Sequence[tuple[Any, ...]] = found[0]
        return addresses


def call_program(
    host: str,
    port: int,
    transport: Transport,
    call: Call,
    timeout: float = TIMEOUT,
) -> bytes:
    """Call a procedure of any program, over a socket of its own.

    :param host: as for :class:`PortmapClient`.
    :param port: the program's port; unused for transport ``local``.
    :param transport: ``udp``, ``tcp`` or ``local``.
    :param call: the call; its xid is replaced by one that nobody can guess.
    :param timeout: how long it may take, in seconds.
    :return: the results, encoded.
    :raises ValueError: as :class:`PortmapClient`; or the call does not fit a datagram.
    :raises PortmapdError: as the operations of a client.
    """
    exchange = make_exchange(ThreadWaiter(), host, port, transport, strict=False)
    try:
        return decode_reply(run(exchange.call(encode_call(call)[XID:], timeout)))
    finally:
        exchange.close()


class PortmapClient(
    PlainPortmapClient[
        None,
        bool,
        int,
        str,
        tuple[Pmap, ...],
        tuple[Rpcb, ...],
        CallResult,
        tuple[RpcbEntry, ...],
        dict[int, RpcbStat],
    ]
):
    """Asks one port mapper; every method waits for its results.

    ::

        with PortmapClient("192.0.2.1", transport="tcp") as client:
            print(client.dump_addresses())

    Threads may share a client: their calls are under way at once. Over a stream, connections are
    kept for later calls until the client is closed. The errors of operations are those of
    :class:`~portmapd.client.rpc.portmap_client.BasePortmapClient`; each is a sentence.

    :param host: IPv4 or IPv6 address of the port mapper, or a name, whose addresses are tried
        until one replies; for transport ``local``, the path of its rpcbind socket.
    :param port: its port, 1 to 65535; unused for transport ``local``.
    :param transport: ``udp``, ``tcp`` or ``local``.
    :param timeout: how long an operation may take, in seconds, including the time to find the
        address and to connect.
    :param credential: who makes the calls; the default is AUTH_NONE.
    :param strict: over UDP, take replies from the address that was called only; see
        :class:`portmapd.client.PortmapClient`.
    :raises ValueError: *host* is neither an address nor can be a name, *port* is out of range,
        *transport* is unknown, or *timeout* is not positive.
    """

    _make_waiter = ThreadWaiter

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return run(work)

    def broadcast(
        self,
        program: int,
        version: int,
        procedure: int,
        arguments: bytes = b"",
        each: Callable[[BroadcastReply], object] | None = None,
        timeout: float | None = None,
        limit: int = LIMIT,
    ) -> tuple[BroadcastReply, ...]:
        """Have every port mapper on this host's networks call a program on its host.

        See :meth:`portmapd.client.PortmapClient.broadcast`: the parameters are the same. It returns
        all replies when it ends; what *each* raises is raised.
        """
        wanted = RemoteCall(program, version, procedure, arguments)
        return run(self._broadcast(wanted, each, timeout, limit))

    def close(self) -> None:
        """Close the connections that are kept. A later call opens one again."""
        self._exchange.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
