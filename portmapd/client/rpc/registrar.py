"""Mappings that are kept registered with the port mapper of this host, over its restarts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from portmapd.channel.socket_path import asking_socket
from portmapd.client.rpc.client import PortmapClient
from portmapd.client.rpc.operations import PORT
from portmapd.client.twisted import Portmapper
from portmapd.errors import (
    AlreadyRegistered,
    CallRefused,
    DaemonUnreachable,
    InvalidMapping,
    PortmapdError,
    ProgramMismatch,
    ProgramUnavailable,
)
from portmapd.oncrpc.netid import (
    LOCAL,
    NETIDS,
    canonical_address,
    format_address,
    split_address,
)
from portmapd.oncrpc.program import PROGRAM

#: Where rpcbind's socket is.
RPC_SOCKET = "/run/rpcbind.sock"
#: The addresses at which a port mapper is asked over TCP.
HOSTS = "127.0.0.1", "::1"
#: How often it is asked whether everything is still registered, in seconds.
PERIOD = 2.0
#: How long it may take to answer, in seconds: it is on this host.
TIMEOUT = 5.0

#: A program, its version, and a netid.
Key = tuple[int, int, str]


class Way(Protocol):
    """A way to register with one port mapper.

    :ivar name: a few words that tell which one.
    """

    name: str

    async def listed(self) -> dict[Key, str]:
        """The address of everything that is registered there, whoever did it."""

    async def set(self, key: Key, address: str) -> None:
        """Register a mapping.

        :raises Refusal: the port mapper has another one, or does not take it.
        """

    async def unset(self, key: Key, address: str) -> None:
        """Remove a mapping of ours."""

    async def close(self) -> None:
        """End the connection."""


class ChannelWay:
    """portmapd's local channel, on which a registration lives as long as the connection.

    :param port: the port of the port mapper whose channel it has to be.
    """

    def __init__(self, reactor: IReactorTime, path: str, port: int) -> None:
        self.name = f"the local channel at {path}"
        self._reactor = reactor
        self._port = port
        self._portmapper = Portmapper(reactor, path)

    async def listed(self) -> dict[Key, str]:
        asked = self._portmapper.mappings().addTimeout(TIMEOUT, self._reactor)
        found = {(m.program, m.version, m.netid): m.address for m in await asked}
        own = (address for (program, _, _), address in found.items() if program == PROGRAM)
        if not any(address.endswith(format_address("", self._port)) for address in own):
            raise DaemonUnreachable(f"{self.name} is not that of port {self._port}")
        return found

    async def set(self, key: Key, address: str) -> None:
        await self._portmapper.set(*key, address)

    async def unset(self, key: Key, address: str) -> None:
        await self._portmapper.unset(*key, address)

    async def close(self) -> None:
        await self._portmapper.close()


class RpcWay:
    """Program 100000 of any port mapper, over its socket or TCP.

    A port mapper that knows version 2 alone is given the mappings of IPv4.
    """

    def __init__(self, name: str, client: PortmapClient) -> None:
        self.name = name
        self._client = client

    async def listed(self) -> dict[Key, str]:
        rows = await self._client.dump_addresses()
        return {(row.program, row.version, row.netid): row.address for row in rows}

    async def set(self, key: Key, address: str) -> None:
        if await self._set(key, address):
            return
        # What a server that has crashed left behind is in the way.
        await self._client.unset_address(*key)
        if not await self._set(key, address):
            raise AlreadyRegistered(f"{_described(key)} is registered for somebody else")

    async def _set(self, key: Key, address: str) -> bool:
        program, version, netid = key
        try:
            return await self._client.set_address(*key, address)
        except (ProgramMismatch, ProgramUnavailable):
            number = NETIDS[netid].number
            if number is None:
                return True
            return await self._client.set(program, version, number, split_address(address)[1])

    async def unset(self, key: Key, address: str) -> None:
        program, version, _ = key
        try:
            await self._client.unset_address(*key)
        except (ProgramMismatch, ProgramUnavailable):
            await self._client.unset(program, version)

    async def close(self) -> None:
        await self._client.close()


def ways(reactor: IReactorTime, port: int) -> Iterator[Way]:
    """The ways to the port mapper of this host, the best one first.

    :param port: its port.
    """
    path = asking_socket()
    if os.path.exists(path):
        yield ChannelWay(reactor, path, port)
    if port == PORT and os.path.exists(RPC_SOCKET):
        client = PortmapClient(reactor, RPC_SOCKET, port, "local", TIMEOUT)
        yield RpcWay(f"the port mapper at {RPC_SOCKET}", client)
    for host in HOSTS:
        client = PortmapClient(reactor, host, port, "tcp", TIMEOUT)
        yield RpcWay(f"the port mapper at port {port} of {host}", client)


class Registrar:
    """Keeps mappings registered with the port mapper of this host.

    Every few seconds it looks whether they are, and registers again what is missing. What somebody
    else has registered in their place meanwhile is left alone.

    :param reactor: measures time, and makes connections.
    :param port: the port mapper's port.
    :param serves: tells of a netid and an address of this host whether anybody serves there: what
        is registered for a server that has crashed is replaced, what is served is not.
    :param failed: is called with each new reason why something is not registered.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        port: int = PORT,
        serves: Callable[[str, str], bool] = lambda netid, address: True,
        failed: Callable[[str, PortmapdError], object] = lambda what, why: None,
    ) -> None:
        self._reactor = reactor
        self._port = port
        self._serves = serves
        self._failed = failed
        self._wanted: dict[Key, str] = {}
        #: What was registered, and not unset yet.
        self._registered: dict[Key, str] = {}
        #: What was registered there at the last look.
        self._listed: dict[Key, str] = {}
        self._way: Way | None = None
        self._waiting: list[Deferred[str]] = []
        self._reasons: dict[str, str] = {}
        self._timer: IDelayedCall | None = None
        self._work: Deferred[None] | None = None
        self._is_closed = False
        self._is_stale = False

    def add(self, program: int, version: int, netid: str, address: str) -> None:
        """Keep a mapping registered from now on."""
        self._wanted[program, version, netid] = address
        self._wake()

    def discard(self, program: int, version: int, netid: str) -> None:
        """Unset a mapping."""
        self._wanted.pop((program, version, netid), None)
        self._wake()

    def settled(self) -> Deferred[str]:
        """Fires with the name of the way once everything is registered, or fails with why not."""
        waiting: Deferred[str] = Deferred()
        self._waiting.append(waiting)
        self._wake()
        return waiting

    def close(self) -> Deferred[None]:
        """Unset everything; fires when that is done, or cannot be."""
        self._is_closed = True
        self._wanted.clear()
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        if self._work is not None:
            ended: Deferred[None] = Deferred()
            self._work.addBoth(lambda _: ended.callback(None))
            await ended
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            if self._way is not None:
                await self._update(self._way)
        except PortmapdError:
            # Then there is nobody to unset it.
            pass
        await self._leave()
        self._tell(DaemonUnreachable("the registration was ended"))

    def _wake(self) -> None:
        """Look at once; changes of one turn of the reactor are made together."""
        if self._is_closed:
            return
        if self._work is not None:
            self._is_stale = True
            return
        self._schedule(0)

    def _schedule(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.callLater(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        self._is_stale = False
        self._work = Deferred.fromCoroutine(self._settle())
        self._work.addBoth(self._looked)

    def _looked(self, outcome: object) -> None:
        self._work = None
        if not self._is_closed:
            self._schedule(0 if self._is_stale else PERIOD)

    async def _settle(self) -> None:
        try:
            if self._way is None:
                self._way = await self._find()
            await self._check(self._way)
            await self._update(self._way)
        except PortmapdError as error:
            self._report("the programs", error)
            if not isinstance(error, CallRefused | AlreadyRegistered | InvalidMapping):
                await self._leave()
            self._tell(error)
        except Exception as error:
            await self._leave()
            self._tell(DaemonUnreachable(f"the port mapper failed: {error}"))
        else:
            self._reasons.clear()
            self._tell(self._way.name)

    async def _find(self) -> Way:
        """The best way that there is.

        :raises DaemonUnreachable: there is none.
        """
        reason: Exception | None = None
        for way in ways(self._reactor, self._port):
            try:
                await way.listed()
            except Exception as error:
                reason = error
                await way.close()
            else:
                return way
        raise DaemonUnreachable(f"no port mapper answers at port {self._port}: {reason}")

    async def _check(self, way: Way) -> None:
        """Find out what is not registered any more."""
        self._listed = await way.listed()
        for key, address in tuple(self._registered.items()):
            now = self._listed.get(key)
            if now is None:
                del self._registered[key]
            elif not _is_same(key[2], now, address):
                self._report(_described(key), AlreadyRegistered(f"{now} is registered now"))

    async def _update(self, way: Way) -> None:
        """Register and unset what is different from what is wanted."""
        for key, address in tuple(self._registered.items()):
            if self._wanted.get(key) != address:
                del self._registered[key]
                await way.unset(key, address)
        for key, address in tuple(self._wanted.items()):
            if key not in self._registered:
                self._check_free(key, address)
                await way.set(key, address)
                self._registered[key] = address

    def _check_free(self, key: Key, address: str) -> None:
        """Leave to another server what it serves.

        :raises AlreadyRegistered: it does.
        """
        existing, netid = self._listed.get(key), key[2]
        if existing is None or _is_same(netid, existing, address):
            return
        if self._serves(netid, existing):
            raise AlreadyRegistered(
                f"{_described(key)} is registered at {existing}, where somebody serves it"
            )

    async def _leave(self) -> None:
        way, self._way = self._way, None
        self._registered.clear()
        if way is not None:
            await way.close()

    def _report(self, what: str, why: PortmapdError) -> None:
        if self._reasons.get(what) != str(why):
            self._reasons[what] = str(why)
            self._failed(what, why)

    def _tell(self, outcome: str | PortmapdError) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            # An exception makes it fail.
            if isinstance(outcome, str):
                each.callback(outcome)
            else:
                each.errback(outcome)


def _described(key: Key) -> str:
    program, version, netid = key
    return f"program {program} version {version} on {netid}"


def _is_same(netid: str, address: str, other: str) -> bool:
    """Do two addresses on a netid mean the same service? Version 2 tells the port alone."""
    if netid == LOCAL.name:
        return address == other
    try:
        return canonical_address(NETIDS[netid], address)[1] == split_address(other)[1]
    except InvalidMapping:
        return False
