"""What a client asks a port mapper, as coroutines over any way to it. Internal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from portmapd.client.rpc import procedure as procedures
from portmapd.client.rpc.procedure import Procedure
from portmapd.errors import (
    CallRefused,
    CallTimedOut,
    InvalidMapping,
    PeerFault,
    ProgramMismatch,
    ProgramUnavailable,
)
from portmapd.oncrpc.message import Credential
from portmapd.oncrpc.netid import NETIDS, PROTOCOLS, canonical_address, format_address
from portmapd.oncrpc.program import (
    RPCBVERS4,
    CallResult,
    Pmap,
    RemoteCall,
    Rpcb,
    RpcbEntry,
    RpcbStat,
    read_pmap,
    read_rpcb,
    read_rpcb_entry,
)
from portmapd.oncrpc.xdr import Reader

PORT = 111
#: How long a call may take by default, in seconds.
TIMEOUT = 10.0
#: So many mappings of a list are read at a time: other work waits for a few milliseconds at most.
SLICE = 500
#: The most entries of a list that are taken: more than twice as many as portmapd has by default.
#: One that lies may send three times as many, as small ones, within the longest reply.
MAX_LISTED = 250_000
#: The owner of a mapping of version 2, which tells none.
UNKNOWN = "unknown"

A = TypeVar("A")
R = TypeVar("R")


class Exchange(Protocol):
    """A way to one port mapper.

    :ivar netid: its netid, as far as it is known: a host that is given by its name may have
        addresses of both families.
    :ivar host: the address that is called; before it is known, the name; for netid local a path.
    """

    @property
    def netid(self) -> str: ...

    @property
    def host(self) -> str: ...

    async def call(self, tail: bytes, seconds: float) -> bytes:
        """Make a call, and return the message that replies.

        :param tail: the call's message less its xid.
        :param seconds: how long it may take.
        """

    def time(self) -> float:
        """The seconds of a clock."""

    async def pause(self) -> None:
        """Let others work."""


class Operations:
    """The operations of a client; each is a coroutine.

    :param exchange: makes the calls.
    :param timeout: how long an operation may take, in seconds.
    :param credential: who makes the calls.
    """

    def __init__(self, exchange: Exchange, timeout: float, credential: Credential) -> None:
        check_timeout(timeout)
        self._exchange = exchange
        self.timeout = timeout
        self.credential = credential

    async def one(self, procedure: Procedure[A, R], arguments: A) -> R:
        """The results of one call."""
        return procedure.results(await self._reply(procedure, arguments, self.timeout))

    async def dump(self) -> tuple[Pmap, ...]:
        """Every mapping of version 2."""
        message = await self._reply(procedures.DUMP, None, self.timeout)
        return await self._listed(procedures.DUMP, message, read_pmap)

    async def dump_addresses(self) -> tuple[Rpcb, ...]:
        """Every mapping of the newest version that is served."""
        ends = self._ends()
        try:
            message = await self._newest_reply(procedures.DUMP_ADDRESSES, None, ends)
            return await self._listed(procedures.DUMP_ADDRESSES[0], message, read_rpcb)
        except CallRefused as refused:
            if not _may_serve_older(refused):
                raise
        message = await self._reply(procedures.DUMP, None, self._left(ends))
        return tuple(map(_rpcb, await self._listed(procedures.DUMP, message, read_pmap)))

    async def callit(self, call: RemoteCall) -> CallResult:
        """Have the port mapper make a call."""
        return await self.one(procedures.CALLIT, call)

    async def getaddr(self, program: int, version: int) -> str:
        """The address of a program's version on the netid of the exchange."""
        ends = self._ends()
        wanted = Rpcb(program, version, self._exchange.netid)
        try:
            return await self._newest(procedures.GETADDR, wanted, ends)
        except CallRefused as refused:
            number = NETIDS[self._exchange.netid].number
            if number is None or not _may_serve_older(refused):
                raise
        message = await self._reply(
            procedures.GETPORT, Pmap(program, version, number), self._left(ends)
        )
        port = procedures.GETPORT.results(message)
        return format_address(self._exchange.host, port) if port else ""

    async def getaddrlist(self, program: int, version: int) -> tuple[RpcbEntry, ...]:
        """The addresses of a program's version in the protocol family of the exchange."""
        wanted = Rpcb(program, version, self._exchange.netid)
        message = await self._reply(procedures.GETADDRLIST, wanted, self.timeout)
        return await self._listed(procedures.GETADDRLIST, message, read_rpcb_entry)

    async def getstat(self) -> dict[int, RpcbStat]:
        """The statistics of each version."""
        return await self.one(procedures.GETSTAT, None)

    async def set_address(self, wanted: Rpcb) -> bool:
        """Register an address."""
        _check_address(wanted.netid, wanted.address)
        return await self._newest(procedures.SET_ADDRESS, wanted, self._ends())

    async def unset_address(self, wanted: Rpcb) -> bool:
        """Unregister a netid, or all of them."""
        if wanted.netid:
            _check_netid(wanted.netid)
        return await self._newest(procedures.UNSET_ADDRESS, wanted, self._ends())

    async def _reply(self, procedure: Procedure[A, R], arguments: A, seconds: float) -> bytes:
        """The message that replies to a call."""
        return await self._exchange.call(procedure.tail(arguments, self.credential), seconds)

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
        self, procedure: Procedure[A, Reader], message: bytes, read: Callable[[Reader], R]
    ) -> tuple[R, ...]:
        """The list in a reply. A long one is read in slices, between which others have a turn.

        :raises PeerFault: it is longer than any that makes sense.
        """
        items = procedure.results(message).items(read)
        found: list[R] = []
        while some := list(islice(items, SLICE)):
            found += some
            if len(found) > MAX_LISTED:
                raise PeerFault(f"the reply lists more than {MAX_LISTED} entries")
            if len(some) == SLICE:
                await self._exchange.pause()
        return tuple(found)

    def _ends(self) -> float:
        return self._exchange.time() + self.timeout

    def _left(self, ends: float) -> float:
        """How long the next call of an operation that ends then may take, in seconds."""
        left = ends - self._exchange.time()
        if left <= 0:
            raise CallTimedOut(f"no answer within {self.timeout:g} s")
        return left


def _may_serve_older(refused: CallRefused) -> bool:
    """Whether a port mapper that refuses a call so may serve an older version."""
    if isinstance(refused, ProgramMismatch):
        return refused.high <= RPCBVERS4
    return isinstance(refused, ProgramUnavailable)


def check_timeout(timeout: float) -> None:
    """Raise ``ValueError`` unless *timeout* is positive."""
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
