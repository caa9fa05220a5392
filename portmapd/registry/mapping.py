"""RPC mappings, and the index of all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from attrs import field, frozen

from portmapd.errors import InvalidMapping
from portmapd.oncrpc.netid import NETIDS, Netid, canonical_address

if TYPE_CHECKING:
    from portmapd.registry.holder import Holder

#: A mapping's key: program, version, netid.
Key = tuple[int, int, str]

#: The owner that may change every mapping.
SUPERUSER = "superuser"


@frozen
class Mapping:
    """The address at which a program's version is served on a transport.

    :param program: program number, 0 to 2^32-1.
    :param version: version number, 0 to 2^32-1.
    :param netid: name of the transport, see :data:`portmapd.oncrpc.netid.NETIDS`.
    :param address: universal address (RFC 5665), in its canonical text; for netid ``local`` a path.
    :param owner: who registered it: ``superuser``, a decimal uid, or ``unknown``.
    :param port: the address's port; 0 for netid ``local``.
    :param holder: the holder it lives with; None: it lives until it is unset, or until its
        service is found dead.
    """

    program: int
    version: int
    netid: str
    address: str
    owner: str
    port: int
    holder: Holder | None = field(default=None, eq=False, repr=False)

    @property
    def key(self) -> Key:
        """Its key: no two mappings have the same."""
        return self.program, self.version, self.netid


def mapping(
    program: int,
    version: int,
    netid: str,
    address: str,
    owner: str = SUPERUSER,
    holder: Holder | None = None,
) -> Mapping:
    """Make a mapping of checked fields.

    :raises InvalidMapping: a field is out of its range or form; the message names it.
    """
    _check_number("program", program)
    _check_number("version", version)
    canonical, port = canonical_address(known_netid(netid), address)
    return Mapping(program, version, netid, canonical, owner, port, holder)


def known_netid(name: str) -> Netid:
    """The netid of that name.

    :raises InvalidMapping: there is none.
    """
    netid = NETIDS.get(name)
    if netid is None:
        raise InvalidMapping(f"netid {name!r} is none of {', '.join(NETIDS)}")
    return netid


def _check_number(name: str, value: int) -> None:
    if not 0 <= value < 1 << 32:
        raise InvalidMapping(f"{name} {value} is not in the range 0 to 4294967295")


class Mappings:
    """Every mapping, keyed by program and netid, then by version.

    The two levels answer both questions of callers in constant time: which address does this
    version have, and is another version registered.
    """

    def __init__(self) -> None:
        self._versions: dict[tuple[int, str], dict[int, Mapping]] = {}
        self._count = 0
        self._ordered: list[Mapping] | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Mapping]:
        """All mappings, in the order of their keys."""
        return iter(self._in_order())

    def unordered(self) -> Iterator[Mapping]:
        """All mappings, in any order; they are not sorted.

        There may be changes meanwhile. A program's version on a netid that is registered all the
        time is among them, also if its mapping is replaced.
        """
        for key in list(self._versions):
            yield from list(self._versions.get(key, {}).values())

    def after(self, key: Key) -> Iterator[Mapping]:
        """The mappings whose keys are larger than *key*, in order."""
        ordered = self._in_order()
        start = bisect_right(ordered, key, key=attrgetter("key"))
        return islice(ordered, start, None)

    def _in_order(self) -> list[Mapping]:
        """All mappings in order. They are sorted once between two changes."""
        if self._ordered is None:
            rows = [m for versions in self._versions.values() for m in versions.values()]
            self._ordered = sorted(rows, key=attrgetter("program", "version", "netid"))
        return self._ordered

    def get(self, program: int, version: int, netid: str) -> Mapping | None:
        """The mapping of exactly this version, or None."""
        versions = self._versions.get((program, netid))
        return versions.get(version) if versions else None

    def find(self, program: int, version: int, netid: str) -> Mapping | None:
        """The mapping of this version, else the latest of another version, or None."""
        versions = self._versions.get((program, netid))
        if not versions:
            return None
        return versions.get(version) or versions[next(reversed(versions))]

    def add(self, new: Mapping) -> None:
        """Add *new*, whose key must be free."""
        self._versions.setdefault((new.program, new.netid), {})[new.version] = new
        self._ordered = None
        self._count += 1

    def discard(self, old: Mapping) -> None:
        """Remove *old*, which must be registered."""
        self._ordered = None
        versions = self._versions[old.program, old.netid]
        del versions[old.version]
        if not versions:
            del self._versions[old.program, old.netid]
        self._count -= 1
