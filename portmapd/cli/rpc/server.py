"""Where a port mapper or an RPC program is asked, as command lines name it."""

from __future__ import annotations

import os
from typing import Literal

from attrs import frozen

from portmapd.channel.socket_path import MAX_PATH
from portmapd.cli.text import SHOWN
from portmapd.client.rpc.operations import PORT
from portmapd.client.rpc.wire import MAX_PORT, check_internet
from portmapd.errors import InvalidMapping
from portmapd.oncrpc.host import is_address
from portmapd.oncrpc.netid import (
    LOCAL,
    NETIDS,
    check_path,
    format_address,
    parse_address,
)

#: The rpcbind socket of this host, and the address that is asked where there is none.
RPC_SOCKET = "/run/rpcbind.sock"
LOOPBACK = "127.0.0.1"

Transport = Literal["udp", "tcp", "local"]


@frozen
class Server:
    """A server's address.

    :param host: an address or a name; for a UNIX socket, its path.
    :param port: its port; 0 for a UNIX socket.
    """

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether it is a UNIX socket."""
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_local:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def default_server(transport: str = "") -> Server:
    """The port mapper of this host: over its socket, which tells it who asks, if there is one.

    :param transport: over which it is asked instead; empty: none was named.
    """
    is_local = not transport and os.path.exists(RPC_SOCKET)
    return Server(RPC_SOCKET, 0) if is_local else Server(LOOPBACK, PORT)


def read_server(text: str) -> Server:
    """Read HOST, HOST:PORT, [HOST]:PORT, or the path of a UNIX socket.

    :raises ValueError: it is none of these; the message is a sentence.
    """
    if text.startswith("/"):
        return Server(_path(text), 0)
    host, port = _parted(text)
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= MAX_PORT):
        raise ValueError(f"port {port[:SHOWN]!r} is not in the range 1 to {MAX_PORT}")
    try:
        check_internet(host, int(port))
    except ValueError:
        raise ValueError(f"host {host[:SHOWN]!r} is neither an address nor a name") from None
    return Server(host, int(port))


def _path(text: str) -> str:
    try:
        return check_path(text)
    except InvalidMapping:
        raise ValueError(f"{text[:SHOWN]!r} is no path of at most {MAX_PATH} bytes") from None


def _parted(text: str) -> tuple[str, str]:
    """The host and the port of a text."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text[:SHOWN]!r} is not [ADDRESS]:PORT")
        return host, rest[1:] if rest else str(PORT)
    if is_address(text):
        return text, str(PORT)
    host, colon, port = text.partition(":")
    return host, port if colon else str(PORT)


def universal_server(netid: str, address: str) -> Server:
    """The server at a universal address.

    :raises InvalidMapping: the address is none of that netid, or the netid is unknown.
    """
    kind = NETIDS.get(netid)
    if kind is None:
        raise InvalidMapping(f"netid {netid[:SHOWN]!r} is none of {', '.join(NETIDS)}")
    if kind is LOCAL:
        return Server(check_path(address), 0)
    parsed = parse_address(kind, address)
    host = f"{parsed.host}%{parsed.scope}" if parsed.scope else parsed.host
    return Server(host, parsed.port)


def universal_address(netid: str, text: str) -> str:
    """A universal address, of one or of a port of every address of this host.

    :raises InvalidMapping: it is neither.
    """
    if netid in NETIDS and text.isascii() and text.isdecimal() and len(text) <= 5:
        text = format_address(NETIDS[netid].wildcard, int(text))
    universal_server(netid, text)
    return text


def transport_of(netid: str) -> Transport:
    """What sockets of a netid are, as clients call it."""
    kind = NETIDS[netid]
    if kind is LOCAL:
        return "local"
    return "udp" if kind.protocol == "udp" else "tcp"


def reachable(server: Server, through: str) -> Server:
    """Where a server is that gives a wildcard address: on the host that told of it."""
    wildcards = {netid.wildcard for netid in NETIDS.values()}
    return Server(through, server.port) if server.host in wildcards else server
