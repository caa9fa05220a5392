"""Which addresses are bound on this host, as the kernel tells; no socket is touched."""

import re
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from struct import pack

from attrs import frozen

from portmapd.oncrpc.netid import NETIDS, split_address
from portmapd.registry.mapping import Mapping
from portmapd.server.sock_diag import ANY_STATE, LISTEN, Local, local_addresses

#: The kernel's tables for each netid. An IPv6 socket can serve IPv4 callers, too.
TABLES = {
    "udp": ("udp", "udp6"),
    "udp6": ("udp6",),
    "tcp": ("tcp", "tcp6"),
    "tcp6": ("tcp6",),
    "local": ("unix",),
}

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
#: The prefix of the IPv4-mapped addresses, by which an IPv6 socket serves IPv4.
_MAPPED = bytes(10) + b"\xff\xff"
#: In ``/proc/net``: the state of a TCP socket that listens, and the row of a UNIX socket that does.
_LISTENS = b"0A"
_LISTENING = re.compile(rb"^[0-9a-f]+: \w{8} \w{8} 00010000 \w{4} \w{2} +\d+ (/.*)$", re.MULTILINE)


@frozen
class Bound:
    """What was bound at one moment.

    :param locals: for each of the kernel's tables, every local address, and every port by itself;
        for UNIX sockets, their paths.
    """

    locals: dict[str, frozenset[Local]]

    def holds(self, mapping: Mapping) -> bool:
        """Whether the address of *mapping* was bound.

        That of a mapping on the wildcard address was if its port was bound on any address.
        """
        wanted = locals_of(mapping)
        return any(not wanted.isdisjoint(self.locals[table]) for table in TABLES[mapping.netid])


def read_bound(netids: Collection[str] = TABLES.keys()) -> Bound:
    """Read what is bound now for these netids, in the network namespace of this process."""
    tables = {table for netid in netids for table in TABLES[netid]}
    return Bound({table: _READERS[table]() for table in tables})


def is_bound(mapping: Mapping) -> bool:
    """Whether the address of *mapping* is bound now."""
    return read_bound((mapping.netid,)).holds(mapping)


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


def _inet(table: str, family: int, protocol: int, states: int) -> Callable[[], frozenset[Local]]:
    """Make the reader of one of the kernel's tables of internet sockets."""

    def read() -> frozenset[Local]:
        try:
            addresses = local_addresses(family, protocol, states)
        except OSError:
            # The kernel, or a sandbox, does not offer sock_diag.
            addresses = read_proc(table)
        return frozenset([*addresses, *(address[:2] for address in addresses)])

    return read


def read_proc(table: str) -> list[Local]:
    """The local addresses in ``/proc/net``; of TCP sockets only those that listen.

    The kernel lists those first.
    """
    rows = _rows(table, 5)
    if table.startswith("tcp"):
        rows = takewhile(lambda row: row[3] == _LISTENS, rows)
    return [_local(row[1]) for row in rows]


def _local(text: bytes) -> Local:
    """Decode a local address of ``/proc/net``: hexadecimal words in the host's byte order."""
    host, port = text.split(b":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    return pack("!H", int(port, 16)) + pack(f"={len(words)}I", *words)


def _read_unix() -> frozenset[Local]:
    """The paths of UNIX sockets that listen.

    A path may contain anything, line breaks too; the pattern matches whole rows only.
    """
    return frozenset(_LISTENING.findall(Path("/proc/net/unix").read_bytes()))


def _rows(table: str, columns: int) -> Iterator[list[bytes]]:
    """The rows of a table, each split into that many columns; the last column holds the rest."""
    # A host without IPv6 has no such table for it: nothing is bound there.
    with suppress(FileNotFoundError), Path("/proc/net", table).open("rb") as lines:
        next(lines, None)
        for line in lines:
            yield line.split(None, columns - 1)


_READERS: dict[str, Callable[[], frozenset[Local]]] = {
    "udp": _inet("udp", socket.AF_INET, socket.IPPROTO_UDP, ANY_STATE),
    "udp6": _inet("udp6", socket.AF_INET6, socket.IPPROTO_UDP, ANY_STATE),
    "tcp": _inet("tcp", socket.AF_INET, socket.IPPROTO_TCP, LISTEN),
    "tcp6": _inet("tcp6", socket.AF_INET6, socket.IPPROTO_TCP, LISTEN),
    "unix": _read_unix,
}
