"""Netids and universal addresses (RFC 5665)."""

import socket
from collections.abc import Callable
from struct import Struct

from attrs import frozen

from portmapd.errors import InvalidMapping

_SOCKADDR_IN = Struct("!H4s8x")
_SOCKADDR_IN6 = Struct("!HI16sI")
#: A ``sockaddr`` in a netbuf begins with its address family in the host's byte order, as libtirpc
#: sends it.
_FAMILY = Struct("=H")
#: The longest path that fits in a ``sockaddr_un``, in bytes.
MAX_PATH = 107
#: The longest name of an interface, in bytes.
MAX_SCOPE = 15
#: What an IPv4-mapped IPv6 address begins with (RFC 4291, 2.5.5.2).
_MAPPED = bytes(10) + b"\xff\xff"


@frozen
class Netid:
    """A transport, by its name in the netconfig database (RFC 5665, 5.1).

    :param semantics: 1 connectionless, 3 connection-oriented with orderly release.
    :param family: the protocol family: inet, inet6 or loopback.
    :param protocol: the protocol's name; "-" for none.
    :param number: the protocol's number in mappings of version 2; None if version 2 has none.
    :param wildcard: the address that means every address of this host; empty for netid local.
    """

    name: str
    semantics: int
    family: str
    protocol: str
    number: int | None
    wildcard: str


UDP = Netid("udp", 1, "inet", "udp", 17, "0.0.0.0")
TCP = Netid("tcp", 3, "inet", "tcp", 6, "0.0.0.0")
UDP6 = Netid("udp6", 1, "inet6", "udp", None, "::")
TCP6 = Netid("tcp6", 3, "inet6", "tcp", None, "::")
LOCAL = Netid("local", 3, "loopback", "-", None, "")

#: The netids that are known, by their names.
NETIDS: dict[str, Netid] = {n.name: n for n in (UDP, TCP, UDP6, TCP6, LOCAL)}
#: Version 2's protocol numbers.
PROTOCOLS: dict[int, Netid] = {17: UDP, 6: TCP}


def format_address(host: str, port: int) -> str:
    """The universal address of *port* on *host*, an IPv4 or IPv6 address (RFC 5665, 5.2.3)."""
    return f"{host}.{port >> 8}.{port & 255}"


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of *address*, a valid universal address of an internet netid."""
    host, high, low = address.rsplit(".", 2)
    return host, int(high) << 8 | int(low)


@frozen
class UniversalAddress:
    """Where a service listens on an internet netid (RFC 5665, 5.2.3.3 and 5.2.3.4).

    Its text is canonical: two addresses that mean the same are written the same.

    :param host: an IPv4 address, or an IPv6 address as RFC 5952 writes it.
    :param port: 1 to 65535.
    :param scope: the interface of a link-local address, by name or number; empty if none is named.
    """

    host: str
    port: int
    scope: str = ""

    def __str__(self) -> str:
        host = f"{self.host}%{self.scope}" if self.scope else self.host
        return format_address(host, self.port)


def parse_address(netid: Netid, address: str) -> UniversalAddress:
    """Read a universal address of an internet netid, in any spelling.

    A wildcard of the other family is this family's: a server that listens on all addresses says
    so in whichever form it has at hand. Only udp6 does not take the IPv4 wildcard: a caller whom
    it does not reach would wait in vain, where a caller over TCP is refused at once. An
    IPv4-mapped IPv6 address is the IPv4 address.

    :raises InvalidMapping: it is not an address of that netid.
    """
    host, *port = address.rsplit(".", 2)
    if len(port) != 2 or not all(_is_byte(part) for part in port):
        raise InvalidMapping(f"address {address!r} does not end with the two bytes of a port")
    number = int(port[0]) << 8 | int(port[1])
    if number == 0:
        raise InvalidMapping(f"address {address!r} has port 0")
    canonical = _ipv4_host(host) if netid.family == "inet" else _ipv6_host(netid, host)
    if canonical is None:
        raise InvalidMapping(f"{host!r} in address {address!r} is not an {netid.family} address")
    return UniversalAddress(canonical[0], number, canonical[1])


def canonical_address(netid: Netid, address: str) -> tuple[str, int]:
    """The one text that all spellings of *address* share, and its port.

    :param address: a universal address; for netid local a path, whose port is 0.
    :raises InvalidMapping: it is not an address of that netid.
    """
    if netid is LOCAL:
        return check_path(address), 0
    parsed = parse_address(netid, address)
    return str(parsed), parsed.port


def check_path(address: str) -> str:
    """The path of a UNIX socket, as it is.

    :raises InvalidMapping: it is not absolute, not printable, or longer than 107 bytes.
    """
    if not address.startswith("/") or not address.isprintable():
        raise InvalidMapping(f"address {address!r} is not an absolute path")
    if len(address.encode()) > MAX_PATH:
        raise InvalidMapping(f"address: a socket's path has at most {MAX_PATH} bytes")
    return address


def _is_byte(text: str) -> bool:
    return len(text) <= 3 and text.isascii() and text.isdecimal() and int(text) <= 255


#: A host in its canonical text, and its scope; None if it is not an address of the family.
_Host = tuple[str, str] | None


def _ipv4_host(text: str) -> _Host:
    packed = _packed(socket.AF_INET, text) or _packed(socket.AF_INET6, text)
    if packed is None or (len(packed) != 4 and not packed.startswith(_MAPPED) and any(packed)):
        return None
    return socket.inet_ntop(socket.AF_INET, packed[-4:]), ""


def _ipv6_host(netid: Netid, text: str) -> _Host:
    if netid is TCP6 and text == TCP.wildcard:
        return UDP6.wildcard, ""
    number, percent, scope = text.partition("%")
    packed = _packed(socket.AF_INET6, number)
    if packed is None or (percent and not (_is_link_local(packed) and _is_scope(scope))):
        return None
    if packed.startswith(_MAPPED):
        return None if any(packed[-4:]) else (UDP6.wildcard, "")
    return socket.inet_ntop(socket.AF_INET6, packed), scope


def _packed(family: socket.AddressFamily, text: str) -> bytes | None:
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):
        return None


def _is_link_local(packed: bytes) -> bool:
    """Is it an address of fe80::/10, which means nothing without an interface (RFC 4007, 11)?"""
    return packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def _is_scope(text: str) -> bool:
    """Whether *text* can be the name or the number of an interface."""
    clean = text.isascii() and text.isprintable() and not set(text) & set("%/: ")
    return clean and 0 < len(text) <= MAX_SCOPE


def to_sockaddr(netid: Netid, address: str) -> bytes:
    """The ``sockaddr`` of a universal address, as RPCBPROC_UADDR2TADDR returns it.

    :raises InvalidMapping: it is not an address of that netid.
    """
    if netid is LOCAL:
        return _FAMILY.pack(socket.AF_UNIX) + check_path(address).encode()
    parsed = parse_address(netid, address)
    if netid.family == "inet":
        packed = socket.inet_pton(socket.AF_INET, parsed.host)
        return _FAMILY.pack(socket.AF_INET) + _SOCKADDR_IN.pack(parsed.port, packed)
    packed = socket.inet_pton(socket.AF_INET6, parsed.host)
    return _FAMILY.pack(socket.AF_INET6) + _SOCKADDR_IN6.pack(parsed.port, 0, packed, 0)


def from_sockaddr(netid: Netid, data: bytes) -> str:
    """The universal address of a ``sockaddr``, as RPCBPROC_TADDR2UADDR returns it.

    :raises InvalidMapping: it is not a ``sockaddr`` of that netid.
    """
    form = _SOCKADDRS[netid.family]
    if len(data) not in form.sizes or _FAMILY.unpack_from(data)[0] != form.family:
        raise InvalidMapping(f"{len(data)} bytes that are not a sockaddr of netid {netid.name}")
    return form.read(data)


def _from_in(data: bytes) -> str:
    port, packed = _SOCKADDR_IN.unpack_from(data, 2)
    return format_address(socket.inet_ntop(socket.AF_INET, packed), port)


def _from_in6(data: bytes) -> str:
    port, _, packed, _ = _SOCKADDR_IN6.unpack_from(data, 2)
    return format_address(socket.inet_ntop(socket.AF_INET6, packed), port)


def _from_un(data: bytes) -> str:
    return data[2:].partition(b"\0")[0].decode("utf-8", "surrogateescape")


@frozen
class _Sockaddr:
    """The form of a protocol family's ``sockaddr``.

    :param sizes: its possible sizes, in bytes.
    :param read: turns one into a universal address.
    """

    family: socket.AddressFamily
    sizes: range
    read: Callable[[bytes], str]


_SOCKADDRS = {
    "inet": _Sockaddr(socket.AF_INET, range(16, 17), _from_in),
    "inet6": _Sockaddr(socket.AF_INET6, range(28, 29), _from_in6),
    "loopback": _Sockaddr(socket.AF_UNIX, range(3, 111), _from_un),
}
