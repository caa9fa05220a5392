"""PortmapClient: program 100000 for Twisted applications."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from portmapd.client.rpc.broadcast import Broadcast
from portmapd.client.rpc.broadcast_call import LIMIT, BroadcastReply
from portmapd.client.rpc.datagrams import DatagramTransport
from portmapd.client.rpc.names import NamedTransport
from portmapd.client.rpc.operations import PORT, TIMEOUT, check_timeout
from portmapd.client.rpc.portmap_client import BasePortmapClient
from portmapd.client.rpc.portmap_client import Transport as TransportName
from portmapd.client.rpc.stream import StreamTransport
from portmapd.client.rpc.wire import check_internet
from portmapd.errors import DaemonUnreachable
from portmapd.oncrpc.host import is_address
from portmapd.oncrpc.message import NOBODY, Credential
from portmapd.oncrpc.program import CallResult, Pmap, RemoteCall, Rpcb, RpcbEntry, RpcbStat

R = TypeVar("R")


class Transport(Protocol):
    """A way to one port mapper.

    :ivar netid: its netid, as far as it is known: a host that is given by its name may have
        addresses of both families.
    :ivar host: the address that is called; before it is known, the name; for netid local a path.
    """

    netid: str
    host: str

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Make a call.

        :param tail: the call's message less its xid.
        :param timeout: how long it may take, in seconds.
        :return: fires with the message that replies.
        """

    def close(self) -> Deferred[None]:
        """End the calls under way, and close the socket; fires when it is closed."""


class TransportExchange:
    """A transport, as the operations of a client use it.

    :param reactor: measures time.
    """

    def __init__(self, reactor: IReactorTime, transport: Transport) -> None:
        self._reactor = reactor
        self.transport = transport
        self.time = reactor.seconds

    @property
    def netid(self) -> str:
        """The transport's netid."""
        return self.transport.netid

    @property
    def host(self) -> str:
        """The address that it calls."""
        return self.transport.host

    async def call(self, tail: bytes, seconds: float) -> bytes:
        """Make a call."""
        return await self.transport.call(tail, seconds)

    async def pause(self) -> None:
        """Let others work."""
        await deferLater(self._reactor, 0)


class PortmapClient(
    BasePortmapClient[
        Deferred[None],
        Deferred[bool],
        Deferred[int],
        Deferred[str],
        Deferred[tuple[Pmap, ...]],
        Deferred[tuple[Rpcb, ...]],
        Deferred[CallResult],
        Deferred[tuple[RpcbEntry, ...]],
        Deferred[dict[int, RpcbStat]],
    ]
):
    """Asks one port mapper, over one socket that is opened when the first call needs it.

    Many calls may be under way at once. Every method that makes one returns a Deferred, which fires
    with the results, or fails; see :class:`~portmapd.client.rpc.portmap_client.BasePortmapClient`.
    Cancelling the Deferred forgets the call; what the port mapper did is not undone.

    :param reactor: the application's reactor. Beside ``IReactorTime`` it provides
        ``IReactorFDSet`` for transport ``udp``, ``IReactorTCP`` for ``tcp``, ``IReactorUNIX`` for
        ``local``, and ``IReactorPluggableNameResolver`` if *host* is a name.
    :param host: IPv4 or IPv6 address of the port mapper, or a name, whose addresses are tried
        until one replies; for transport ``local``, the path of its rpcbind socket.
    :param port: its port, 1 to 65535; unused for transport ``local``.
    :param transport: ``udp``, ``tcp`` or ``local``.
    :param timeout: how long a call may take, in seconds, including the time to connect.
    :param credential: who makes the calls; the default is AUTH_NONE. See
        :func:`~portmapd.oncrpc.message.sys_credential`.
    :param strict: over UDP, take replies from the address that was called only. By default they
        may come from any address, as for libtirpc: a host with several addresses may reply from
        another one. The xid and the server's port have to match in any case.
    :raises ValueError: *host* is neither an address nor can be a name, *port* is out of range,
        *transport* is unknown, or *timeout* is not positive.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        host: str = "127.0.0.1",
        port: int = PORT,
        transport: TransportName = "udp",
        timeout: float = TIMEOUT,
        credential: Credential = NOBODY,
        strict: bool = False,
    ) -> None:
        if transport not in _TRANSPORTS:
            raise ValueError(f"transport {transport!r} is none of {', '.join(_TRANSPORTS)}")
        check_timeout(timeout)
        self._transport = _TRANSPORTS[transport](reactor, host, port, timeout, strict)
        super().__init__(TransportExchange(reactor, self._transport), timeout, credential)
        self._reactor = reactor
        self._port = port
        self._broadcasts: set[Broadcast] = set()

    def _run(self, work: Coroutine[Any, Any, R]) -> Deferred[R]:
        return Deferred.fromCoroutine(work)

    def broadcast(
        self,
        program: int,
        version: int,
        procedure: int,
        arguments: bytes = b"",
        each: Callable[[BroadcastReply], object] | None = None,
        timeout: float | None = None,
        limit: int = LIMIT,
    ) -> Deferred[tuple[BroadcastReply, ...]]:
        """Have every port mapper on this host's networks call a program on its host.

        It goes to the broadcast address of each IPv4 interface and to the multicast group
        ``ff02::202`` of each IPv6 interface, from sockets of its own, to the port of this client.
        It is sent again while it lasts, so that a program may be called more than once. Only the
        first reply from an address counts. Port mappers whose call fails send no reply.

        :param arguments: the procedure's arguments, encoded.
        :param each: is called with each reply as it comes; if it returns something true, the
            broadcast ends. An exception from it ends it, too, and fails the Deferred.
        :param timeout: when it ends, in seconds; None: after the timeout of this client.
        :param limit: after how many replies it ends.
        :return: fires with all replies when it ends. It fails with
            :exc:`~portmapd.errors.DaemonUnreachable` if it cannot be sent. Cancelling it ends the
            broadcast.
        """
        call = RemoteCall(program, version, procedure, arguments)
        return maybeDeferred(self._broadcast, call, each, timeout, limit)

    def _broadcast(
        self,
        call: RemoteCall,
        each: Callable[[BroadcastReply], object] | None,
        timeout: float | None,
        limit: int,
    ) -> Deferred[tuple[BroadcastReply, ...]]:
        seconds = self._operations.timeout if timeout is None else timeout
        check_timeout(seconds)
        broadcast = Broadcast(
            self._reactor, self._port, call, self._operations.credential, each, seconds, limit
        )
        broadcast.start()
        self._broadcasts.add(broadcast)
        return broadcast.done.addBoth(self._ended, broadcast)

    def _ended(self, result: R, broadcast: Broadcast) -> R:
        self._broadcasts.discard(broadcast)
        return result

    def close(self) -> Deferred[None]:
        """End every call and broadcast, and close the socket. A later call opens one again.

        :return: fires when it is closed.
        """
        for broadcast in tuple(self._broadcasts):
            broadcast.fail(DaemonUnreachable("the client was closed"))
        return self._transport.close()


def _udp(reactor: IReactorTime, host: str, port: int, timeout: float, strict: bool) -> Transport:
    check_internet(host, port)

    def make(address: str) -> DatagramTransport:
        return DatagramTransport(reactor, address, port, strict)

    if is_address(host):
        return make(host)
    return NamedTransport(reactor, host, f"UDP port {port} of {host}", make)


def _tcp(reactor: IReactorTime, host: str, port: int, timeout: float, strict: bool) -> Transport:
    check_internet(host, port)
    kind: Any = HostnameEndpoint
    if is_address(host):
        kind = {4: TCP4ClientEndpoint, 6: TCP6ClientEndpoint}[ip_address(host).version]
    netid = "tcp6" if kind is TCP6ClientEndpoint else "tcp"
    endpoint = kind(reactor, host, port, timeout)
    return StreamTransport(reactor, endpoint, f"TCP port {port} of {host}", netid, host)


def _local(reactor: IReactorTime, path: str, port: int, timeout: float, strict: bool) -> Transport:
    endpoint = UNIXClientEndpoint(reactor, path, timeout)
    return StreamTransport(reactor, endpoint, path, "local", path)


_TRANSPORTS: dict[str, Callable[..., Transport]] = {"udp": _udp, "tcp": _tcp, "local": _local}
