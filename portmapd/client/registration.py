"""What applications register, in every form that they may give it in; no Twisted."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from errno import ENOTCONN
from typing import Any

from attrs import frozen

from portmapd.client.values import is_number
from portmapd.errors import InvalidMapping, InvalidService
from portmapd.oncrpc.netid import LOCAL, NETIDS, TCP, TCP6, UDP, UDP6, Netid, format_address

#: A service as it is registered: name, port, flags.
Registration = tuple[str, str, int]
#: A mapping as it is set: program, version, netid, universal address.
MappingFields = tuple[int, int, str, str]

_LARGEST = 65_535
#: How much is shown of what is no port.
_SHOWN = 64
#: The items of (program, version, netid).
_WITH_NETID = 3


@frozen(eq=False)
class Place:
    """Where a service listens.

    :param port: its port, or its absolute path, as it is registered.
    :param netid: its transport; None if only the number of its port is known.
    :param host: the address that it is bound to; empty if that is not known.
    """

    port: str
    netid: Netid | None = None
    host: str = ""


def registrations(name: Any, port: Any = None, flags: int = 0) -> tuple[Registration, ...]:
    """The services of one registration.

    :param name: the name; or a list of (name, port, flags) or (name, port), where *port* is left
        out.
    :param port: a number, the absolute path of a UNIX socket, a listening socket, what has
        ``getHost()`` such as Twisted's ``IListeningPort``, or a list of these; the same port twice
        counts once.
    :param flags: :class:`~portmapd.client.values.Flags`; of a list, those of the entries without.
    :raises InvalidService: an argument is none of these; the message names it.
    """
    if isinstance(name, str):
        found = [(name, place.port, _flags(flags)) for place in places(port)]
    elif isinstance(name, bytes):
        raise InvalidService(f"name {name!r} is no text")
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


def _flags(flags: Any) -> int:
    if not isinstance(flags, int) or isinstance(flags, bool):
        raise InvalidService(f"flags {flags!r} is no number")
    return int(flags)


def _entries(names: Any) -> list[tuple[str, Any, int]]:
    try:
        entries = list(names)
    except TypeError:
        raise InvalidService(f"name {names!r} is neither a name nor a list") from None
    if not entries or not all(map(_is_entry, entries)):
        raise InvalidService("name: give a name, or a list of (name, port, flags)")
    return entries


def _is_entry(entry: Any) -> bool:
    """Is it (name, port, flags), or (name, port)?"""
    return isinstance(entry, tuple | list) and len(entry) in (2, 3) and isinstance(entry[0], str)


def rpc_mappings(rpc: Any, port: Any) -> tuple[MappingFields, ...]:
    """The RPC mappings of a program's version to ports.

    :param rpc: (program, version), or (program, version, netid) for ports that are numbers, which
        are TCP's without it.
    :param port: as of :func:`registrations`.
    :raises InvalidMapping: *rpc* is neither, or the version would have two addresses on a netid.
    """
    program, version, netid = _version(rpc)
    if port is None:
        raise InvalidMapping("rpc: give one name and its port with it, and no list of names")
    found = places(port)
    sockets = {place.port for place in found if place.netid is not None}
    # The number of a socket's port says less than the socket itself.
    telling = [place for place in found if place.netid is not None or place.port not in sockets]
    mappings = {_mapping(program, version, place, netid): None for place in telling}
    _check_netids(mappings)
    return tuple(mappings)


def _check_netids(mappings: Iterable[MappingFields]) -> None:
    addresses: dict[str, str] = {}
    for program, version, netid, address in mappings:
        other = addresses.setdefault(netid, address)
        if other != address:
            raise InvalidMapping(
                f"rpc: a version has one address on each netid, and program {program} version "
                f"{version} would have {other} and {address} on {netid}"
            )


def _version(rpc: Any) -> tuple[int, int, Netid]:
    """The program, its version, and the netid of ports that are numbers."""
    try:
        program, version, netid = rpc if len(rpc) == _WITH_NETID else (*rpc, TCP.name)
        if isinstance(program, int) and isinstance(version, int):
            return program, version, NETIDS[netid]
    except (TypeError, ValueError, KeyError):
        pass
    raise InvalidMapping(f"rpc {rpc!r}: give (program, version), or (program, version, netid)")


def _mapping(program: int, version: int, place: Place, default: Netid) -> MappingFields:
    if place.port.startswith("/"):
        return program, version, LOCAL.name, place.port
    netid = place.netid or default
    host = place.host or netid.wildcard
    return program, version, netid.name, format_address(host, int(place.port))


def places(port: Any) -> list[Place]:
    """Where a service listens, for every form of *port*; see :func:`registrations`."""
    if isinstance(port, list | tuple | set | frozenset):
        found = [place for one in port for place in places(one)]
        if not found:
            raise InvalidService("port: the list is empty")
        return found
    if isinstance(port, int) and not isinstance(port, bool):
        return [_number(port)]
    if isinstance(port, str | bytes | os.PathLike):
        return [_text(os.fsdecode(port))]
    # Twisted's ports have a socket, which tells more than they do.
    skt = port if isinstance(port, socket.socket) else getattr(port, "socket", None)
    if isinstance(skt, socket.socket):
        return _of_socket(skt)
    if hasattr(port, "getHost"):
        return [_of_listening(port)]
    raise InvalidService(
        f"port {port!r} is no number, path, listening socket, listening port, or list of these"
    )


def _text(port: str) -> Place:
    if is_number(port):
        return _number(int(port))
    if not port.startswith("/"):
        raise InvalidService(
            f"port {port[:_SHOWN]!r} is neither a number from 1 to {_LARGEST} nor an absolute path"
        )
    return Place(port)


def _number(port: int, netid: Netid | None = None, host: str = "") -> Place:
    if not 0 < port <= _LARGEST:
        raise InvalidService(f"port {port} is not in the range 1 to {_LARGEST}")
    return Place(str(port), netid, host)


def _of_socket(skt: socket.socket) -> list[Place]:
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
    streams = skt.type == socket.SOCK_STREAM
    place = _number(name[1], netids[streams], name[0].partition("%")[0])
    return [place, *_of_ipv4(skt, place, streams)]


def _of_ipv4(skt: socket.socket, place: Place, streams: bool) -> list[Place]:
    """Where IPv4 reaches a socket of IPv6, which is bound to *place*."""
    if place.host != TCP6.wildcard or skt.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return []
    netid = _BY_FAMILY[socket.AF_INET][streams]
    return [Place(place.port, netid, netid.wildcard)]


def _bound_name(skt: socket.socket) -> Any:
    """The address of a socket that waits for others."""
    if skt.type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        raise InvalidService(f"port: sockets of type {skt.type} have no ports")
    if skt.type == socket.SOCK_STREAM:
        waits = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    else:
        waits = not _has_peer(skt)
    if not waits:
        raise InvalidService("port: the socket does not listen, or is a client's")
    return skt.getsockname()


def _has_peer(skt: socket.socket) -> bool:
    try:
        skt.getpeername()
    except OSError as error:
        if error.errno != ENOTCONN:
            raise
        return False
    return True


def _path(name: str | bytes) -> Place:
    path = os.fsdecode(name)
    if not path.startswith("/"):
        raise InvalidService(f"port: the UNIX socket {path!r} has no absolute path")
    return Place(path)


def _of_listening(port: Any) -> Place:
    try:
        address = port.getHost()
    except (OSError, AttributeError) as error:
        # Twisted's ports have no socket any more, and say no more, once they are closed.
        raise InvalidService(f"port {port!r} does not listen") from error
    return _of_address(address)


def _of_address(address: Any) -> Place:
    """The place of one of Twisted's addresses, without importing them."""
    if hasattr(address, "name"):
        return _path(address.name or b"")
    if not hasattr(address, "host"):
        raise InvalidService(f"port: {address!r} is no address of a port")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    netid = _BY_FAMILY[family][address.type == "TCP"]
    return _number(address.port, netid, address.host.partition("%")[0])


#: Netids by the address family, for datagrams and for streams.
_BY_FAMILY: dict[int, tuple[Netid, Netid]] = {
    socket.AF_INET: (UDP, TCP),
    socket.AF_INET6: (UDP6, TCP6),
}
