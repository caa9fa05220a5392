"""The arguments of ``reg`` and ``dereg``, in every form that applications may give them in."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Sequence
from errno import ENOTCONN
from typing import Any, Protocol

from attrs import frozen

from portmapd.channel.service import MAX_PORT, is_number
from portmapd.client.core.registrations import Group, MappingFields, Registration
from portmapd.errors import InvalidMapping, InvalidService
from portmapd.oncrpc.netid import LOCAL, NETIDS, TCP, TCP6, UDP, UDP6, Netid, format_address

#: How much of a wrong port is shown.
_SHOWN = 64
#: The items of (program, version, netid).
_WITH_NETID = 3


class ListeningPort(Protocol):
    """What listens and says where, such as Twisted's ``IListeningPort``."""

    def getHost(self) -> Any:
        """Return its address, one of Twisted's."""


class ListeningSocket(Protocol):
    """A socket, or what a loop gives in its place, such as asyncio's ``TransportSocket``."""

    @property
    def family(self) -> int:
        """Its family of addresses."""

    @property
    def type(self) -> int:
        """Whether it is for streams or for datagrams."""

    def getsockname(self) -> Any:
        """Return its address."""

    def getpeername(self) -> Any:
        """Return the address of its peer."""

    def getsockopt(self, level: int, option: int, /) -> int:
        """Return an option."""


#: One port: a number, the absolute path of a UNIX socket, a listening socket, or a listening port.
Port = int | str | bytes | os.PathLike[str] | ListeningSocket | ListeningPort
#: One port, or several; the same port twice counts once.
Ports = Port | Collection[Port]
#: A name with its ports, and flags of its own.
NamedPorts = tuple[str, Ports] | tuple[str, Ports, int]
#: An RPC program, its version, and the netid of ports that are numbers; TCP's without it.
Rpc = tuple[int, int] | tuple[int, int, str]


@frozen(eq=False)
class Endpoint:
    """Where a service listens.

    :param port: its port, or its absolute path, as it is registered.
    :param netid: its transport; None if only the number of its port is known.
    :param host: the address that it is bound to; empty if that is not known.
    """

    port: str
    netid: Netid | None = None
    host: str = ""


def group_of(
    name: str | Iterable[NamedPorts], port: Ports | None, flags: int, rpc: Rpc | None
) -> Group:
    """Return what ``reg`` registers at once.

    :raises InvalidService: *name*, *port* or *flags* is none; the message names it.
    :raises InvalidMapping: *rpc* is none, or a version would have two addresses on a netid.
    """
    mappings = rpc_mappings(rpc, port) if rpc is not None else ()
    return Group(registrations(name, port, flags), mappings)


def registrations(
    name: str | Iterable[NamedPorts], port: Ports | None = None, flags: int = 0
) -> tuple[Registration, ...]:
    """Return the services of one registration.

    :param name: the name; or (name, port, flags) or (name, port) for each of several.
    :param port: the ports of the name; None if *name* has them.
    :param flags: of the name, or of each name without flags of its own.
    :raises InvalidService: an argument is none of these; the message names it.
    """
    if isinstance(name, str):
        found = [(name, endpoint.port, _flags(flags)) for endpoint in endpoints(port)]
    else:
        entries = _entries(name)
        if port is not None:
            raise InvalidService("port: it is in the list of names already")
        found = [
            row
            for one, where, *own in entries
            for row in registrations(one, where, *(own or [flags]))
        ]
    return tuple(dict.fromkeys(found))


def _flags(flags: object) -> int:
    if not isinstance(flags, int) or isinstance(flags, bool):
        raise InvalidService(f"flags {flags!r} is not a number")
    return int(flags)


def _entries(names: Any) -> list[Any]:
    if isinstance(names, bytes):
        raise InvalidService(f"name {names!r} is not text")
    try:
        entries = list(names)
    except TypeError:
        raise InvalidService(f"name {names!r} is neither a name nor a list") from None
    if not entries or not all(map(_is_entry, entries)):
        raise InvalidService("name: give a name, or a list of (name, port, flags)")
    return entries


def _is_entry(entry: object) -> bool:
    """Is it (name, port, flags), or (name, port)?"""
    return isinstance(entry, tuple | list) and len(entry) in (2, 3) and isinstance(entry[0], str)


def rpc_mappings(rpc: Rpc, port: Ports | None) -> tuple[MappingFields, ...]:
    """Return the RPC mappings of a program's version to ports.

    :raises InvalidMapping: *rpc* is none, or the version would have two addresses on a netid.
    """
    program, version, netid = _version(rpc)
    if port is None:
        raise InvalidMapping("rpc: give one name and its port with it, and no list of names")
    found = endpoints(port)
    sockets = {endpoint.port for endpoint in found if endpoint.netid is not None}
    # A socket tells its netid and host; the number of its port, if given as well, does not.
    telling = [e for e in found if e.netid is not None or e.port not in sockets]
    mappings = tuple(dict.fromkeys(_mapping(program, version, e, netid) for e in telling))
    _check_netids(mappings)
    return mappings


def _check_netids(mappings: Sequence[MappingFields]) -> None:
    addresses: dict[str, str] = {}
    for program, version, netid, address in mappings:
        other = addresses.setdefault(netid, address)
        if other != address:
            raise InvalidMapping(
                f"rpc: a version has one address on each netid, and program {program} version "
                f"{version} would have {other} and {address} on {netid}"
            )


def _version(rpc: Any) -> tuple[int, int, Netid]:
    """Return the program, its version, and the netid of ports that are numbers."""
    try:
        program, version, netid = rpc if len(rpc) == _WITH_NETID else (*rpc, TCP.name)
        if isinstance(program, int) and isinstance(version, int):
            return program, version, NETIDS[netid]
    except (TypeError, ValueError, KeyError):
        pass
    raise InvalidMapping(f"rpc {rpc!r}: give (program, version), or (program, version, netid)")


def _mapping(program: int, version: int, endpoint: Endpoint, default: Netid) -> MappingFields:
    if endpoint.port.startswith("/"):
        return program, version, LOCAL.name, endpoint.port
    netid = endpoint.netid or default
    host = endpoint.host or netid.wildcard
    return program, version, netid.name, format_address(host, int(endpoint.port))


def endpoints(port: Any) -> list[Endpoint]:
    """Return where a service listens, for every form of :data:`Ports`.

    :raises InvalidService: *port* is none of them.
    """
    if isinstance(port, list | tuple | set | frozenset):
        found = [endpoint for one in port for endpoint in endpoints(one)]
        if not found:
            raise InvalidService("port: the list is empty")
        return found
    if isinstance(port, int) and not isinstance(port, bool):
        return [_number(port)]
    if isinstance(port, str | bytes | os.PathLike):
        return [_text(os.fsdecode(port))]
    # Twisted's ports have a socket, which tells more than they do.
    skt: Any = port if hasattr(port, "getsockname") else getattr(port, "socket", None)
    if hasattr(skt, "getsockname"):
        return _of_socket(skt)
    if hasattr(port, "getHost"):
        return [_of_listening_port(port)]
    raise InvalidService(
        f"port {port!r} is not a number, path, listening socket, listening port, or list of these"
    )


def _text(port: str) -> Endpoint:
    if is_number(port):
        return _number(int(port))
    if not port.startswith("/"):
        raise InvalidService(
            f"port {port[:_SHOWN]!r} is neither a number from 1 to {MAX_PORT} nor an absolute path"
        )
    return Endpoint(port)


def _number(port: int, netid: Netid | None = None, host: str = "") -> Endpoint:
    if not 0 < port <= MAX_PORT:
        raise InvalidService(f"port {port} is not in the range 1 to {MAX_PORT}")
    return Endpoint(str(port), netid, host)


def _of_socket(skt: ListeningSocket) -> list[Endpoint]:
    try:
        name = _bound_name(skt)
    except OSError as error:
        raise InvalidService(f"port: the socket cannot be asked ({error})") from error
    if skt.family == socket.AF_UNIX:
        return [_path(name)]
    netids = _BY_FAMILY.get(skt.family)
    if netids is None:
        raise InvalidService(f"port: sockets of family {skt.family} have no ports")
    if not name[1]:
        raise InvalidService("port: the socket is not bound")
    is_stream = skt.type == socket.SOCK_STREAM
    endpoint = _number(name[1], netids[is_stream], name[0].partition("%")[0])
    return [endpoint, *_of_ipv4(skt, endpoint, is_stream)]


def _of_ipv4(skt: ListeningSocket, endpoint: Endpoint, is_stream: bool) -> list[Endpoint]:
    """Return where IPv4 reaches a socket of IPv6."""
    if endpoint.host != TCP6.wildcard or skt.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return []
    netid = _BY_FAMILY[socket.AF_INET][is_stream]
    return [Endpoint(endpoint.port, netid, netid.wildcard)]


def _bound_name(skt: ListeningSocket) -> Any:
    """Return the address of a server's socket."""
    if skt.type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        raise InvalidService(f"port: sockets of type {skt.type} have no ports")
    if skt.type == socket.SOCK_STREAM:
        serves = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    else:
        serves = not _has_peer(skt)
    if not serves:
        raise InvalidService("port: the socket does not listen, or is a client's")
    return skt.getsockname()


def _has_peer(skt: ListeningSocket) -> bool:
    try:
        skt.getpeername()
    except OSError as error:
        if error.errno != ENOTCONN:
            raise
        return False
    return True


def _path(name: str | bytes) -> Endpoint:
    path = os.fsdecode(name)
    if not path.startswith("/"):
        raise InvalidService(f"port: the UNIX socket {path!r} has no absolute path")
    return Endpoint(path)


def _of_listening_port(port: ListeningPort) -> Endpoint:
    try:
        address = port.getHost()
    except (OSError, AttributeError) as error:
        # Twisted's ports have no socket once they are closed.
        raise InvalidService(f"port {port!r} does not listen") from error
    return _of_address(address)


def _of_address(address: Any) -> Endpoint:
    """Return the endpoint of one of Twisted's addresses, without importing them."""
    if hasattr(address, "name"):
        return _path(address.name or b"")
    if not hasattr(address, "host"):
        raise InvalidService(f"port: {address!r} is not an address of a port")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    netid = _BY_FAMILY[family][address.type == "TCP"]
    return _number(address.port, netid, address.host.partition("%")[0])


#: Netids by the address family, for datagrams and for streams.
_BY_FAMILY: dict[int, tuple[Netid, Netid]] = {
    socket.AF_INET: (UDP, TCP),
    socket.AF_INET6: (UDP6, TCP6),
}
