"""Program 100000 for asyncio applications; no Twisted is imported."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from portmapd.client.rpc.broadcast_call import LIMIT, BroadcastReply
from portmapd.client.rpc.plain import PlainPortmapClient
from portmapd.errors import CallTimedOut
from portmapd.oncrpc.program import CallResult, Pmap, RemoteCall, Rpcb, RpcbEntry, RpcbStat


class LoopWaiter:
    """The event loop that runs."""

    sleep = staticmethod(asyncio.sleep)

    def time(self) -> float:
        """The seconds of its clock."""
        return asyncio.get_running_loop().time()

    async def ready(self, events: dict[socket.socket, int], ends: float) -> list[socket.socket]:
        """Wait until one of some sockets is ready."""
        loop = asyncio.get_running_loop()
        if loop.time() >= ends:
            return []
        found: asyncio.Future[socket.socket | None] = loop.create_future()
        for skt, event in events.items():
            add = loop.add_reader if event == select.POLLIN else loop.add_writer
            add(skt, partial(_take, found, skt))
        timer = loop.call_at(ends, _take, found, None)
        try:
            first = await found
        finally:
            timer.cancel()
            for skt, event in events.items():
                remove = loop.remove_reader if event == select.POLLIN else loop.remove_writer
                remove(skt)
        return [] if first is None else [first]

    async def resolve(self, host: str, port: int, ends: float) -> Sequence[tuple[Any, ...]]:
        """The addresses of a host."""
        loop = asyncio.get_running_loop()
        looked_up = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        try:
            return await asyncio.wait_for(looked_up, max(ends - self.time(), 0))
        except TimeoutError:
            raise CallTimedOut(f"the address of {host} was not found in time") from None


def _take(found: asyncio.Future[Any], what: socket.socket | None) -> None:
    if not found.done():
        found.set_result(what)


class PortmapClient(
    PlainPortmapClient[
        Coroutine[Any, Any, None],
        Coroutine[Any, Any, bool],
        Coroutine[Any, Any, int],
        Coroutine[Any, Any, str],
        Coroutine[Any, Any, tuple[Pmap, ...]],
        Coroutine[Any, Any, tuple[Rpcb, ...]],
        Coroutine[Any, Any, CallResult],
        Coroutine[Any, Any, tuple[RpcbEntry, ...]],
        Coroutine[Any, Any, dict[int, RpcbStat]],
    ]
):
    """Asks one port mapper; every operation is awaited.

    ::

        async with PortmapClient("192.0.2.1", transport="tcp") as client:
            print(await client.dump_addresses())

    Many operations may be under way at once. They may be cancelled, and be given a limit by
    ``asyncio.timeout``. Over a stream, connections are kept for later calls until the client is
    closed. The parameters are those of :class:`portmapd.client.blocking.PortmapClient`.
    """

    _make_waiter = LoopWaiter

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return work

    async def broadcast(
        self,
        program: int,
        version: int,
        procedure: int,
        arguments: bytes = b"",
        each: Callable[[BroadcastReply], object] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 # it is no failure
        limit: int = LIMIT,
    ) -> tuple[BroadcastReply, ...]:
        """Have every port mapper on this host's networks call a program on its host.

        See :meth:`portmapd.client.PortmapClient.broadcast`: the parameters are the same. It returns
        all replies when it ends; what *each* raises is raised.
        """
        wanted = RemoteCall(program, version, procedure, arguments)
        return await self._broadcast(wanted, each, timeout, limit)

    async def close(self) -> None:
        """Close the connections that are kept. A later call opens one again."""
        self._exchange.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
