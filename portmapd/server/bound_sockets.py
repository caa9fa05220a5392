"""Which addresses are bound on this host, as the kernel tells; no socket is touched."""

import os
import re
import socket
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from struct import pack

from portmapd.oncrpc.netid import NETIDS, split_address
from portmapd.registry.mapping import NOBODY, Mapping, Users
from portmapd.registry.places import Place
from portmapd.server.sock_diag import (
    ANY_STATE,
    LISTEN,
    BoundSocket,
    Local,
    inet_sockets,
    inet_user,
    unix_sockets,
)

#: The kernel's table of UNIX sockets.
UNIX = "unix"
#: The kernel's tables for each netid. An IPv6 socket can serve IPv4 callers, too.
TABLES = {
    "udp": ("udp", "udp6"),
    "udp6": ("udp6",),
    "tcp": ("tcp", "tcp6"),
    "tcp6": ("tcp6",),
    "local": (UNIX,),
}

#: The netids whose mappings each table tells of.
NETIDS_OF = {
    table: [netid for netid, tables in TABLES.items() if table in tables]
    for table in ("udp", "udp6", "tcp", "tcp6", UNIX)
}

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_LOOPBACK = {"inet": "127.0.0.1", "inet6": "::1"}
#: The family and the protocol of the sockets of each netid that has ports.
_PROTOCOLS = {
    "udp": (socket.AF_INET, socket.IPPROTO_UDP),
    "udp6": (socket.AF_INET6, socket.IPPROTO_UDP),
    "tcp": (socket.AF_INET, socket.IPPROTO_TCP),
    "tcp6": (socket.AF_INET6, socket.IPPROTO_TCP),
}
#: The prefix of the IPv4-mapped addresses, by which an IPv6 socket serves IPv4.
_MAPPED = bytes(10) + b"\xff\xff"
#: In ``/proc/net``: the state of a TCP socket that listens, and the row of a UNIX socket that does.
_LISTENS = b"0A"
_LISTENING = re.compile(rb"^[0-9a-f]+: \w{8} \w{8} 00010000 \w{4} \w{2} +\d+ (/.*)$", re.MULTILINE)


def users_of(mapping: Mapping) -> Users:
    """Who has the address of *mapping* bound now; empty: nobody.

    That of a mapping on the wildcard address is bound if its port is, on any address. Only sockets
    at its port are asked for: a host may have very many others.
    """
    wanted = locals_of(mapping)
    at = pack("!H", mapping.port) if mapping.port else mapping.address.encode()
    found: dict[Local, Users] = {}
    for table in TABLES[mapping.netid]:
        for batch in _TABLES[table](at):
            add_users(found, table, batch, wanted)
    return NOBODY.union(*found.values())


def serving_user(mapping: Mapping) -> Users:
    """The user whose socket receives what is sent to the address of *mapping* now.

    Unlike :func:`users_of`, it takes the same time however many sockets this host has, and so does
    not find every socket. The kernel finds no UNIX socket by its path; of a mapping on the
    wildcard address, only sockets on that and on loopback are asked for.

    :return: empty if none is found.
    """
    if mapping.netid not in _PROTOCOLS:
        return NOBODY
    family, protocol = _PROTOCOLS[mapping.netid]
    netid = NETIDS[mapping.netid]
    host, number = split_address(mapping.address)
    hosts = (host, _LOOPBACK[netid.family]) if host == netid.wildcard else (host,)
    for each in hosts:
        packed = socket.inet_pton(family, each.partition("%")[0])
        with suppress(OSError):
            user = inet_user(family, protocol, packed, pack("!H", number))
            if user is not None:
                return frozenset((user,))
    return NOBODY


def is_bound(mapping: Mapping) -> bool:
    """Whether the address of *mapping* is bound now."""
    return bool(serving_user(mapping) or users_of(mapping))


def scan(tables: Iterable[str]) -> Iterator[tuple[str, list[BoundSocket]]]:
    """Read the kernel's tables, a batch of sockets at a time.

    A table that changes meanwhile may lack sockets that are bound: ask again for those by
    :func:`users_of`.
    """
    for table in tables:
        for batch in _TABLES[table](ANY):
            yield table, batch


def add_users(
    found: dict[Local, Users],
    table: str,
    batch: Iterable[BoundSocket],
    wanted: Container[Local] | None = None,
) -> None:
    """Add the users of the wanted addresses in a batch to those that were found before.

    :param wanted: addresses, and ports by themselves; None: all of them.
    """
    for local, user in batch:
        for name in (local,) if table == UNIX else (local, local[:2]):
            if wanted is None or name in wanted:
                users = found.get(name)
                if users is None:
                    found[name] = _alone(user)
                elif user not in users:
                    found[name] = users | {user}


@lru_cache(maxsize=1_024)
def _alone(user: int | None) -> Users:
    """That user and nobody else: of most addresses, there is one."""
    return frozenset((user,))


def place_of(table: str, local: Local) -> Place:
    """The port of a local address, or its path."""
    if table == UNIX:
        return local.decode("utf-8", "surrogateescape")
    return local[0] << 8 | local[1]


def locals_of(mapping: Mapping) -> frozenset[Local]:
    """The local addresses to which the service of *mapping* may be bound."""
    netid = NETIDS[mapping.netid]
    if not mapping.port:
        return frozenset((mapping.address.encode(),))
    host, number = split_address(mapping.address)
    port = pack("!H", number)
    if host == netid.wildcard:
        return frozenset((port,))
    packed = socket.inet_pton(_FAMILIES[netid.family], host.partition("%")[0])
    hosts = [packed, bytes(len(packed))]
    if netid.family == "inet":
        hosts += [bytes(16), _MAPPED + packed]
    return frozenset(port + host for host in hosts)


#: Lists the bound sockets at a port or a path; :data:`ANY` for all of a table.
Table = Callable[[bytes], Iterator[list[BoundSocket]]]
ANY = b""


def _inet(table: str, family: int, protocol: int, states: int) -> Table:
    """Make one of the kernel's tables of internet sockets."""

    def read(port: bytes) -> Iterator[list[BoundSocket]]:
        try:
            yield from inet_sockets(family, protocol, states, port or bytes(2))
        except OSError:
            # The kernel, or a sandbox, does not offer sock_diag.
            yield read_proc(table)

    return read


def read_proc(table: str) -> list[BoundSocket]:
    """The bound sockets in ``/proc/net``; of TCP sockets only those that listen.

    The kernel lists those first.
    """
    rows = _rows(table, 9)
    if table.startswith("tcp"):
        rows = takewhile(lambda row: row[3] == _LISTENS, rows)
    return [(_local(row[1]), int(row[7])) for row in rows]


def _local(text: bytes) -> Local:
    """Decode a local address of ``/proc/net``: hexadecimal words in the host's byte order."""
    host, port = text.split(b":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    return pack("!H", int(port, 16)) + pack(f"={len(words)}I", *words)


def _unix(path: bytes) -> Iterator[list[BoundSocket]]:
    try:
        for batch in unix_sockets(path):
            yield [(name, _owner(name) if user is None else user) for name, user in batch]
    except OSError:
        yield read_proc_unix()


def read_proc_unix() -> list[BoundSocket]:
    """The UNIX sockets in ``/proc/net`` that listen, with the owners of their paths.

    A path may contain anything, line breaks too; the pattern matches whole rows only.
    """
    names = _LISTENING.findall(Path("/proc/net/unix").read_bytes())
    return [(name, _owner(name)) for name in names]


def _owner(path: bytes) -> int | None:
    """The owner of a path; None if there is none."""
    try:
        return os.lstat(path).st_uid
    except (OSError, ValueError):
        return None


def _rows(table: str, columns: int) -> Iterator[list[bytes]]:
    """The rows of a table, each split into that many columns; the last column holds the rest."""
    # A host without IPv6 has no such table for it: nothing is bound there.
    with suppress(FileNotFoundError), Path("/proc/net", table).open("rb") as lines:
        next(lines, None)
        for line in lines:
            yield line.split(None, columns - 1)


_TABLES: dict[str, Table] = {
    "udp": _inet("udp", socket.AF_INET, socket.IPPROTO_UDP, ANY_STATE),
    "udp6": _inet("udp6", socket.AF_INET6, socket.IPPROTO_UDP, ANY_STATE),
    "tcp": _inet("tcp", socket.AF_INET, socket.IPPROTO_TCP, LISTEN),
    "tcp6": _inet("tcp6", socket.AF_INET6, socket.IPPROTO_TCP, LISTEN),
    UNIX: _unix,
}
