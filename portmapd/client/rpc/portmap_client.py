"""The methods that every client of a port mapper has. Internal."""

# What a client makes of a result is beyond what type variables can say.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Generic, Literal, TypeVar

from portmapd.client.rpc import procedure as procedures
from portmapd.client.rpc.operations import Exchange, Operations
from portmapd.oncrpc.message import Credential
from portmapd.oncrpc.program import PMAP_VERS, Pmap, RemoteCall, Rpcb

#: How a port mapper is reached.
Transport = Literal["udp", "tcp", "local"]

# What the methods of a client return for an operation that has no result, or has one of these: the
# result itself, or what gives it later.
NoneT = TypeVar("NoneT")
BoolT = TypeVar("BoolT")
IntT = TypeVar("IntT")
StrT = TypeVar("StrT")
PmapsT = TypeVar("PmapsT")
RpcbsT = TypeVar("RpcbsT")
ResultT = TypeVar("ResultT")
EntriesT = TypeVar("EntriesT")
StatsT = TypeVar("StatsT")


class BasePortmapClient(
    ABC, Generic[NoneT, BoolT, IntT, StrT, PmapsT, RpcbsT, ResultT, EntriesT, StatsT]
):
    """The operations; each client says what its methods return.

    Any operation may raise

    - a subclass of :exc:`~portmapd.errors.CallRefused`: the port mapper refused the call; the
      class tells the status (RFC 5531, section 9),
    - :exc:`~portmapd.errors.CallTimedOut`: no reply came in time,
    - :exc:`~portmapd.errors.DaemonUnreachable`: nobody serves there, there is no route to it, the
      connection was lost, or the client was closed,
    - :exc:`~portmapd.errors.PeerFault`: the reply is malformed,
    - :exc:`ValueError`: a number among the arguments does not fit 32 bits, a netid or an address is
      malformed, or the call does not fit a datagram; nothing was sent.

    They come in the way of each client: a Deferred fails, and a call or an ``await`` raises them.
    A call that gets no reply is sent again over UDP, and over the other transports if the server
    closes the connection after it has replied to another call. The port mapper may thus carry it
    out twice.
    """

    def __init__(self, exchange: Exchange, timeout: float, credential: Credential) -> None:
        self._operations = Operations(exchange, timeout, credential)

    @abstractmethod
    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do *work*."""

    def null(self, version: int = PMAP_VERS) -> NoneT:
        """Ask whether a version of program 100000 is served.

        :return: nothing if it is; else it raises
            :exc:`~portmapd.errors.ProgramMismatch` if it is not.
        """
        return self._run(self._operations.one(procedures.null(version), None))

    def set(self, program: int, version: int, protocol: int, port: int) -> BoolT:
        """Register a program's version (RFC 1833, 3.2).

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :param port: the port that serves it, 1 to 65535.
        :return: whether it is registered there now. It is not if another port is registered that
            is bound or belongs to somebody else, or if a number is not valid.
        """
        return self._run(
            self._operations.one(procedures.SET, Pmap(program, version, protocol, port))
        )

    def unset(self, program: int, version: int) -> BoolT:
        """Remove a program's version from every transport.

        :return: whether it is registered on none now; False if the caller may not remove it.
        """
        return self._run(self._operations.one(procedures.UNSET, Pmap(program, version)))

    def getport(self, program: int, version: int, protocol: int) -> IntT:
        """Ask for the port of a program's version.

        :param protocol: ``socket.IPPROTO_UDP`` or ``socket.IPPROTO_TCP``.
        :return: the port; 0 if the program is not registered for the protocol.
        """
        wanted = Pmap(program, version, protocol)
        return self._run(self._operations.one(procedures.GETPORT, wanted))

    def dump(self) -> PmapsT:
        """Ask for every mapping that version 2 knows: those of IPv4.

        Over UDP only a short list fits the reply, and a port mapper may refuse to send it to
        another host.
        """
        return self._run(self._operations.dump())

    def dump_addresses(self) -> RpcbsT:
        """Ask for every mapping with netid, address and owner, as versions 4 and 3 know it.

        If the port mapper knows only version 2, as rpcinfo does: each mapping has the wildcard
        address and the owner ``unknown``.
        """
        return self._run(self._operations.dump_addresses())

    def callit(self, program: int, version: int, procedure: int, arguments: bytes = b"") -> ResultT:
        """Have the port mapper call another program on its host, over UDP.

        If that fails, the port mapper sends no reply, and this raises
        :exc:`~portmapd.errors.CallTimedOut`.

        :param arguments: the procedure's arguments, encoded.
        :return: the port of the program, and its encoded results.
        """
        call = RemoteCall(program, version, procedure, arguments)
        return self._run(self._operations.callit(call))

    def getaddr(self, program: int, version: int) -> StrT:
        """Ask for the address of a program's version on this client's own transport.

        Asks version 4, then 3, and over IPv4 GETPORT of version 2, as libtirpc does: a port mapper
        that says that it does not serve a version is asked for the next. Any other error, a
        timeout included, ends that.

        :return: a universal address (RFC 5665, 5.2.3), see
            :func:`~portmapd.oncrpc.netid.split_address`; for transport ``local`` a path; empty
            if the program is not registered there.
        """
        return self._run(self._operations.getaddr(program, version))

    def getaddrlist(self, program: int, version: int) -> EntriesT:
        """Ask version 4 for every address of a program's version (RFC 1833, 2.2.1).

        :return: an :class:`~portmapd.oncrpc.program.RpcbEntry` for each netid of the family over
            which it is asked, IPv4, IPv6 or local.
        """
        return self._run(self._operations.getaddrlist(program, version))

    def getstat(self) -> StatsT:
        """Ask version 4 for the statistics of versions 2, 3 and 4.

        :return: an :class:`~portmapd.oncrpc.program.RpcbStat` for each, by the version.
        """
        return self._run(self._operations.getstat())

    def set_address(self, program: int, version: int, netid: str, address: str) -> BoolT:
        """Register a program's version on any netid (RFC 1833, 2.2.1), over version 4 or 3.

        :param netid: ``udp``, ``tcp``, ``udp6``, ``tcp6`` or ``local``.
        :param address: the universal address that serves it, such as ``::.8.1`` for port 2049 of
            every IPv6 address; for netid ``local`` the path of a UNIX socket.
        :return: as :meth:`set`.
        """
        wanted = Rpcb(program, version, netid, address)
        return self._run(self._operations.set_address(wanted))

    def unset_address(self, program: int, version: int, netid: str = "") -> BoolT:
        """Remove a program's version from a netid, over version 4 or 3.

        :param netid: the netid; empty: every one.
        :return: as :meth:`unset`.
        """
        return self._run(self._operations.unset_address(Rpcb(program, version, netid)))
