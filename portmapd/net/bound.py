"""Which addresses are bound on this host, read from the kernel without touching them."""

import re
from collections.abc import Callable, Collection, Iterator
from itertools import takewhile
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from struct import unpack

from attrs import frozen

from portmapd.oncrpc.address import NETIDS, split_address
from portmapd.registry.mapping import Mapping

#: An address as the kernel prints it, ``0100007F:006F``; its part from the colon on stands for
#: the port on any address; a path of a UNIX socket.
Local = str

#: The kernel's table for each netid; IPv4 callers may be served by an IPv6 socket, too.
TABLES = {
    "udp": ("udp", "udp6"),
    "udp6": ("udp6",),
    "tcp": ("tcp", "tcp6"),
    "tcp6": ("tcp6",),
    "local": ("unix",),
}

_LISTEN = b"0A"
_ACCEPTS = 0x10000


@frozen
class Bound:
    """What was bound at one moment.

    :param locals: for each of the kernel's tables, every local address, and every port alone.
    """

    locals: dict[str, frozenset[Local]]

    def holds(self, mapping: Mapping) -> bool:
        """Was the mapping's address bound?

        A mapping of the wildcard address is bound if its port is, on any address.
        """
        wanted = locals_of(mapping)
        return any(not wanted.isdisjoint(self.locals[table]) for table in TABLES[mapping.netid])


def read_bound(netids: Collection[str] = TABLES) -> Bound:
    """What is bound now, in the network namespace of this process, for these netids."""
    tables = {table for netid in netids for table in TABLES[netid]}
    return Bound({table: _READERS[table](table) for table in tables})


def is_bound(mapping: Mapping) -> bool:
    """Is the mapping's address bound at this moment?"""
    return read_bound((mapping.netid,)).holds(mapping)


def locals_of(mapping: Mapping) -> frozenset[Local]:
    """The kernel's names of the addresses where the service of *mapping* may be bound."""
    netid = NETIDS[mapping.netid]
    if not mapping.port:
        return frozenset((mapping.address,))
    host, port = split_address(mapping.address)
    suffix = f":{port:04X}"
    if host == netid.wildcard:
        return frozenset((suffix,))
    packed = inet_pton(AF_INET if netid.family == "inet" else AF_INET6, host.partition("%")[0])
    names = [_hex(packed), _hex(bytes(len(packed)))]
    if netid.family == "inet":
        names += [_hex(bytes(16)), _hex(bytes(10) + b"\xff\xff" + packed)]
    return frozenset(name + suffix for name in names)


def _hex(packed: bytes) -> str:
    """An address as the kernel prints it: words in the byte order of the host."""
    return "".join(f"{word:08X}" for word in unpack(f"={len(packed) // 4}I", packed))


def _read_udp(table: str) -> frozenset[Local]:
    return _addresses([row[1] for row in _rows(table, 3)])


def _read_tcp(table: str) -> frozenset[Local]:
    """Sockets that listen come first: the others, which may be many, are not read."""
    listening = takewhile(lambda row: row[3] == _LISTEN, _rows(table, 5))
    return _addresses([row[1] for row in listening])


def _read_unix(table: str) -> frozenset[Local]:
    rows = (row for row in _rows(table, 8) if len(row) == 8 and int(row[3], 16) & _ACCEPTS)
    return frozenset(row[7].rstrip(b"\n").decode("utf-8", "surrogateescape") for row in rows)


def _rows(table: str, columns: int) -> Iterator[list[bytes]]:
    """The table's rows, split into so many columns, the last one unsplit."""
    try:
        with Path("/proc/net", table).open("rb") as lines:
            next(lines, None)
            for line in lines:
                yield line.split(None, columns - 1)
    except FileNotFoundError:
        # A host without IPv6, say: nothing is bound there.
        return


def _addresses(names: list[bytes]) -> frozenset[Local]:
    """The addresses, and what is behind their colons: the ports on any address."""
    text = b" ".join(names).decode("ascii")
    return frozenset([*text.split(), *_PORTS.findall(text)])


_PORTS = re.compile(":[0-9A-F]{4}")
_READERS: dict[str, Callable[[str], frozenset[Local]]] = {
    "udp": _read_udp,
    "udp6": _read_udp,
    "tcp": _read_tcp,
    "tcp6": _read_tcp,
    "unix": _read_unix,
}
