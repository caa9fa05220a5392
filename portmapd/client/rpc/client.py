"""PortmapClient: program 100000 for Twisted applications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from portmapd.client.rpc import procedure as procedures
from portmapd.client.rpc.broadcast import LIMIT, Broadcast, BroadcastReply
from portmapd.client.rpc.datagrams import DatagramTransport, check_size
from portmapd.client.rpc.names import NamedTransport, check_host, is_address
from portmapd.client.rpc.procedure import Procedure
from portmapd.client.rpc.stream import StreamTransport
from portmapd.errors import (
    CallRefused,
    CallTimedOut,
    DaemonUnreachable,
    InvalidMapping,
    ProgramMismatch,
    ProgramUnavailable,
)
from portmapd.oncrpc.message import NOBODY, Credential
from portmapd.oncrpc.netid import (
    NETIDS,
    PROTOCOLS,
    canonical_address,
    format_address,
)
from portmapd.oncrpc.program import (
    PMAP_VERS,
    RPCBVERS4,
    CallResult,
    Pmap,
    RemoteCall,
    Rpcb,
    read_pmap,
    read_rpcb,
)
from portmapd.oncrpc.xdr import Reader

PORT = 111
#: How long a call may take by default, in seconds.
TIMEOUT = 10.0
#: So many mappings of a list are read at a time: other work waits for a few milliseconds at most.
SLICE = 500
MAX_PORT = 65_535
#: The owner of a mapping of version 2, which tells none.
UNKNOWN = "unknown"

A = TypeVar("A")
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


class PortmapClient:
    """Asks one port mapper, over one socket that is opened when the first call needs it.

    Many calls may be under way at once. Every method that makes one returns a Deferred. It fires
    with the results, or fails with

    - a subclass of :exc:`~portmapd.errors.CallRefused`: the port mapper refused the call; the
      class tells the status (RFC 5531, section 9),
    - :exc:`~portmapd.errors.CallTimedOut`: no reply came in time,
    - :exc:`~portmapd.errors.DaemonUnreachable`: nobody serves there, there is no route to it, the
      connection was lost, or the client was closed,
    - :exc:`~portmapd.errors.PeerFault`: the reply is malformed,
    - :exc:`ValueError`: a number among the arguments does not fit 32 bits, a netid or an address is
      malformed, or the call does not fit a datagram; nothing was sent.

    Cancelling the Deferred forgets the call; what the port mapper did is not undone. A call that
    gets no reply is sent again over UDP, and over the other transports if the server closes the
    connection after it has replied to another call. The port mapper may thus carry it out twice.

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
        transport: Literal["udp", "tcp", "local"] = "udp",
        timeout: float = TIMEOUT,
        credential: Credential = NOBODY,
        strict: bool = False,
    ) -> None:
        if transport not in _TRANSPORTS:
            raise ValueError(f"transport {transport!r} is none of {', '.join(_TRANSPORTS)}")
        _check_timeout(timeout)
        make = partial(_TRANSPORTS[transport], strict=strict)
        self._transport = make(reactor, host, port, timeout)
        self._reactor = reactor
        self._port = port
        self._broadcasts: set[Broadcast] = set()
        self._timeout = timeout
        self._credential = credential

    def null(self, version: int = PMAP_VERS) -> Deferred[None]:
        """Ask whether a version of program 100000 is served.

        :return: fires with None if it is, and fails with
            :exc:`~portmapd.errors.ProgramMismatch` if it is not.
        """
        return self._call(procedures.null(version), None)

    def set(self, program: int, version: int, protocol: int, port: int) -> Deferred[bool]:
        """Register a program's version (RFC 1833, 3.2).

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :param port: the port that serves it, 1 to 65535.
        :return: whether it is registered there now. It is not if another port is registered that
            is bound or belongs to somebody else, or if a number is not valid.
        """
        return self._call(procedures.SET, Pmap(program, version, protocol, port))

    def unset(self, program: int, version: int) -> Deferred[bool]:
        """Remove a program's version from every transport.

        :return: whether it is registered on none now; False if the caller may not remove it.
        """
        return self._call(procedures.UNSET, Pmap(program, version))

    def getport(self, program: int, version: int, protocol: int) -> Deferred[int]:
        """Ask for the port of a program's version.

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :return: the port; 0 if the program is not registered for the protocol.
        """
        return self._call(procedures.GETPORT, Pmap(program, version, protocol))

    def dump(self) -> Deferred[tuple[Pmap, ...]]:
        """Ask for every mapping that version 2 knows: those of IPv4.

        Over UDP only a short list fits the reply, and a port mapper may refuse to send it to
        another host.
        """
        return Deferred.fromCoroutine(self._dump())

    async def _dump(self) -> tuple[Pmap, ...]:
        message = await self._reply(procedures.DUMP, None, self._timeout)
        return await self._listed(procedures.DUMP, message, read_pmap)

    def dump_addresses(self) -> Deferred[tuple[Rpcb, ...]]:
        """Ask for every mapping with netid, address and owner, as versions 4 and 3 know it.

        If the port mapper knows only version 2, as rpcinfo does: each mapping has the wildcard
        address and the owner ``unknown``.
        """
        return Deferred.fromCoroutine(self._dump_addresses())

    async def _dump_addresses(self) -> tuple[Rpcb, ...]:
        ends = self._ends()
        try:
            message = await self._newest_reply(procedures.DUMP_ADDRESSES, None, ends)
            return await self._listed(procedures.DUMP_ADDRESSES[0], message, read_rpcb)
        except CallRefused as refused:
            if not _may_serve_older(refused):
                raise
        message = await self._reply(procedures.DUMP, None, self._left(ends))
        return tuple(map(_rpcb, await self._listed(procedures.DUMP, message, read_pmap)))

    def callit(
        self, program: int, version: int, procedure: int, arguments: bytes = b""
    ) -> Deferred[CallResult]:
        """Have the port mapper call another program on its host, over UDP.

        If that fails, the port mapper sends no reply, and this fails with
        :exc:`~portmapd.errors.CallTimedOut`.

        :param arguments: the procedure's arguments, encoded.
        :return: the port of the program, and its encoded results.
        """
        return self._call(procedures.CALLIT, RemoteCall(program, version, procedure, arguments))

    def getaddr(self, program: int, version: int) -> Deferred[str]:
        """Ask for the address of a program's version on this client's own transport.

        Asks version 4, then 3, and over IPv4 GETPORT of version 2, as libtirpc does: a port mapper
        that says that it does not serve a version is asked for the next. Any other error, a
        timeout included, ends that.

        :return: a universal address (RFC 5665, 5.2.3), see
            :func:`~portmapd.oncrpc.netid.split_address`; for transport ``local`` a path; empty
            if the program is not registered there.
        """
        return Deferred.fromCoroutine(self._getaddr(program, version))

    async def _getaddr(self, program: int, version: int) -> str:
        ends = self._ends()
        wanted = Rpcb(program, version, self._transport.netid)
        try:
            return await self._newest(procedures.GETADDR, wanted, ends)
        except CallRefused as refused:
            number = NETIDS[self._transport.netid].number
            if number is None or not _may_serve_older(refused):
                raise
        message = await self._reply(
            procedures.GETPORT, Pmap(program, version, number), self._left(ends)
        )
        port = procedures.GETPORT.results(message)
        return format_address(self._transport.host, port) if port else ""

    def set_address(self, program: int, version: int, netid: str, address: str) -> Deferred[bool]:
        """Register a program's version on any netid (RFC 1833, 2.2.1), over version 4 or 3.

        :param netid: ``udp``, ``tcp``, ``udp6``, ``tcp6`` or ``local``.
        :param address: the universal address that serves it, such as ``::.8.1`` for port 2049 of
            every IPv6 address; for netid ``local`` the path of a UNIX socket.
        :return: as :meth:`set`.
        """
        return Deferred.fromCoroutine(self._set_address(Rpcb(program, version, netid, address)))

    async def _set_address(self, wanted: Rpcb) -> bool:
        _check_address(wanted.netid, wanted.address)
        return await self._newest(procedures.SET_ADDRESS, wanted, self._ends())

    def unset_address(self, program: int, version: int, netid: str = "") -> Deferred[bool]:
        """Remove a program's version from a netid, over version 4 or 3.

        :param netid: the netid; empty: every one.
        :return: as :meth:`unset`.
        """
        return Deferred.fromCoroutine(self._unset_address(Rpcb(program, version, netid)))

    async def _unset_address(self, wanted: Rpcb) -> bool:
        if wanted.netid:
            _check_netid(wanted.netid)
        return await self._newest(procedures.UNSET_ADDRESS, wanted, self._ends())

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
        seconds = self._timeout if timeout is None else timeout
        _check_timeout(seconds)
        if limit < 1:
            raise ValueError(f"limit {limit} is not a number of replies above 0")
        check_size(procedures.CALLIT.tail(call, self._credential))
        broadcast = Broadcast(
            self._reactor, self._port, call, self._credential, each, seconds, limit
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

    def _call(self, procedure: Procedure[A, R], arguments: A) -> Deferred[R]:
        return self._reply(procedure, arguments, self._timeout).addCallback(procedure.results)

    def _reply(self, procedure: Procedure[A, R], arguments: A, timeout: float) -> Deferred[bytes]:
        """Make a call; fires with the message that replies."""
        return maybeDeferred(self._send, procedure, arguments, timeout)

    def _send(self, procedure: Procedure[A, R], arguments: A, timeout: float) -> Deferred[bytes]:
        return self._transport.call(procedure.tail(arguments, self._credential), timeout)

    async def _newest(self, versions: Sequence[Procedure[A, R]], arguments: A, ends: float) -> R:
        return versions[0].results(await self._newest_reply(versions, arguments, ends))

    async def _newest_reply(
        self, versions: Sequence[Procedure[A, R]], arguments: A, ends: float
    ) -> bytes:
        """The reply of the newest version that the port mapper serves.

        :param versions: the same procedure in each version, newest first.
        :raises ProgramMismatch: it serves none of them, or only newer ones.
        :raises ProgramUnavailable: it does not serve the program in the oldest of them.
        """
        for procedure in versions[:-1]:
            message = await self._reply(procedure, arguments, self._left(ends))
            try:
                procedure.results(message)
            except CallRefused as refused:
                if not _may_serve_older(refused):
                    raise
            else:
                return message
        message = await self._reply(versions[-1], arguments, self._left(ends))
        versions[-1].results(message)
        return message

    async def _listed(
        self, procedure: Procedure[None, Reader], message: bytes, read: Callable[[Reader], R]
    ) -> tuple[R, ...]:
        """The list in a reply. A long one is read in slices, between which others have a turn."""
        items = procedure.results(message).items(read)
        found: list[R] = []
        while some := list(islice(items, SLICE)):
            found += some
            if len(some) == SLICE:
                await deferLater(self._reactor, 0)
        return tuple(found)

    def _ends(self) -> float:
        return self._reactor.seconds() + self._timeout

    def _left(self, ends: float) -> float:
        """How long the next call of an operation that ends then may take, in seconds."""
        left = ends - self._reactor.seconds()
        if left <= 0:
            raise CallTimedOut(f"no answer within {self._timeout:g} s")
        return left


def _may_serve_older(refused: CallRefused) -> bool:
    """Whether a port mapper that refuses a call so may serve an older version."""
    if isinstance(refused, ProgramMismatch):
        return refused.high <= RPCBVERS4
    return isinstance(refused, ProgramUnavailable)


def _check_timeout(timeout: float) -> None:
    if not timeout > 0:
        raise ValueError(f"timeout {timeout} is not a number of seconds above 0")


def _check_netid(netid: str) -> None:
    if netid not in NETIDS:
        raise ValueError(f"netid {netid!r} is none of {', '.join(NETIDS)}")


def _check_address(netid: str, address: str) -> None:
    _check_netid(netid)
    try:
        canonical_address(NETIDS[netid], address)
    except InvalidMapping as error:
        raise ValueError(str(error)) from None


def _rpcb(pmap: Pmap) -> Rpcb:
    """A mapping of version 2 as versions 3 and 4 have it; another protocol's netid is its number.

    rpcinfo shows it so, too.
    """
    netid = PROTOCOLS.get(pmap.protocol)
    name = str(pmap.protocol) if netid is None else netid.name
    address = format_address("0.0.0.0", pmap.port)
    return Rpcb(pmap.program, pmap.version, name, address, UNKNOWN)


def _check_internet(host: str, port: int) -> None:
    check_host(host)
    if not 0 < port <= MAX_PORT:
        raise ValueError(f"port {port} is not in the range 1 to {MAX_PORT}")


def _udp(reactor: IReactorTime, host: str, port: int, timeout: float, strict: bool) -> Transport:
    _check_internet(host, port)

    def make(address: str) -> DatagramTransport:
        return DatagramTransport(reactor, address, port, strict)

    if is_address(host):
        return make(host)
    return NamedTransport(reactor, host, f"UDP port {port} of {host}", make)


def _tcp(reactor: IReactorTime, host: str, port: int, timeout: float, strict: bool) -> Transport:
    _check_internet(host, port)
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
