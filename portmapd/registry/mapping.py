"""RPC mappings, and the index of all of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING

from attrs import define, field, setters

from portmapd.errors import InvalidMapping
from portmapd.oncrpc.netid import NETIDS, Netid, canonical_address

if TYPE_CHECKING:
    from portmapd.registry.holder import Holder

#: A mapping's key: program, version, netid.
Key = tuple[int, int, str]

#: The owner that may change every mapping.
SUPERUSER = "superuser"

#: Who has an address bound; a user is None if the kernel does not tell whose the socket is.
Users = frozenset[int | None]
NOBODY: Users = frozenset()

#: The most mappings of a run.
MAX_RUN = 256


# There may be a million: what is known of a service has no object of its own.
@define(unsafe_hash=True, on_setattr=setters.frozen, weakref_slot=False)
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
    :param users: the owner, and who had the address bound when it was first seen bound: a user who
        binds it later gains nothing. Empty: it was not seen bound. It is all of a mapping that may
        change.
    """

    program: int
    version: int
    netid: str
    address: str
    owner: str
    port: int
    holder: Holder | None = field(default=None, eq=False, repr=False)
    users: Users = field(default=NOBODY, eq=False, repr=False, on_setattr=setters.NO_OP)

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
    known = known_netid(netid)
    canonical, port = canonical_address(known, address)
    return Mapping(program, version, known.name, canonical, _shared(owner), port, holder)


@lru_cache(maxsize=1_024)
def _shared(owner: str) -> str:
    """One text for all mappings of an owner."""
    return owner


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


key_of = attrgetter("program", "version", "netid")


class Run:
    """Mappings that follow one another in the order of their keys. It never changes.

    :ivar rows: at least one mapping.
    :ivar encoded: the run as somebody encodes it, by what names the encoding; None: not yet.
    """

    __slots__ = ("encoded", "rows")

    def __init__(self, rows: tuple[Mapping, ...]) -> None:
        self.rows = rows
        self.encoded: dict[int, bytes] | None = None

    @property
    def last(self) -> Key:
        """The largest key."""
        return self.rows[-1].key


class _Runs:
    """All mappings in the order of their keys.

    A change makes one run anew, or two, and leaves the others as they are: neither the work nor
    what has to be encoded again grows with the number of mappings.
    """

    def __init__(self) -> None:
        self._runs: list[Run] = []
        #: The last key of each run.
        self._lasts: list[Key] = []

    def add(self, new: Mapping) -> None:
        """Add *new*, whose key must be free."""
        if not self._runs:
            self._put(slice(0, 0), (new,))
            return
        place = min(bisect_left(self._lasts, new.key), len(self._runs) - 1)
        rows = self._runs[place].rows
        at = bisect_left(rows, new.key, key=key_of)
        where = slice(place, place + 1)
        if len(rows) < MAX_RUN:
            self._put(where, (*rows[:at], new, *rows[at:]))
        elif at == MAX_RUN:
            # Many mappings come in their order; their runs are full.
            self._put(where, rows, (new,))
        else:
            half = MAX_RUN // 2
            grown = (*rows[:at], new, *rows[at:])
            self._put(where, grown[:half], grown[half:])

    def discard(self, old: Mapping) -> None:
        """Remove *old*, which must be there."""
        place = bisect_left(self._lasts, old.key)
        rows = self._runs[place].rows
        at = bisect_left(rows, old.key, key=key_of)
        left = (*rows[:at], *rows[at + 1 :])
        self._put(slice(place, place + 1), *([left] if left else []))

    def _put(self, where: slice, *rows: tuple[Mapping, ...]) -> None:
        runs = [Run(each) for each in rows]
        self._runs[where] = runs
        self._lasts[where] = [run.last for run in runs]

    def after(self, key: Key) -> Run | None:
        """The next mappings whose keys are larger than *key*; None: there are none."""
        place = bisect_right(self._lasts, key)
        if place == len(self._runs):
            return None
        run = self._runs[place]
        at = bisect_right(run.rows, key, key=key_of)
        return Run(run.rows[at:]) if at else run


class Mappings:
    """Every mapping, by netid and program, then by version; and all of them in order.

    The levels answer both questions of callers in constant time: which address does this version
    have, and is another version registered. A program that has one version on a netid, as most
    have, costs one entry and no container.
    """

    def __init__(self) -> None:
        self._netids: dict[str, dict[int, Mapping | dict[int, Mapping]]] = {
            netid: {} for netid in NETIDS
        }
        self._count = 0
        self._runs = _Runs()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Mapping]:
        """All mappings, in the order of their keys; see :meth:`after`."""
        return self.after(FIRST)

    def after(self, key: Key) -> Iterator[Mapping]:
        """The mappings whose keys are larger than *key*, in order.

        There may be changes meanwhile. What is registered all the time is found once.
        """
        while (run := self._runs.after(key)) is not None:
            yield from run.rows
            key = run.last

    def run_after(self, key: Key) -> Run | None:
        """The next mappings whose keys are larger than *key*; None: there are none."""
        return self._runs.after(key)

    def get(self, program: int, version: int, netid: str) -> Mapping | None:
        """The mapping of exactly this version, or None."""
        found = self._netids.get(netid, _NOTHING).get(program)
        if isinstance(found, dict):
            return found.get(version)
        return found if found is not None and found.version == version else None

    def find(self, program: int, version: int, netid: str) -> Mapping | None:
        """The mapping of this version, else the latest of another version, or None."""
        found = self._netids.get(netid, _NOTHING).get(program)
        if isinstance(found, dict):
            return found.get(version) or found[next(reversed(found))]
        return found

    def add(self, new: Mapping) -> None:
        """Add *new*, whose key must be free."""
        programs = self._netids[new.netid]
        found = programs.setdefault(new.program, new)
        if isinstance(found, dict):
            found[new.version] = new
        elif found is not new:
            programs[new.program] = {found.version: found, new.version: new}
        self._runs.add(new)
        self._count += 1

    def discard(self, old: Mapping) -> None:
        """Remove *old*, which must be registered."""
        programs = self._netids[old.netid]
        found = programs[old.program]
        if isinstance(found, dict):
            del found[old.version]
        if found is old or not found:
            del programs[old.program]
        self._runs.discard(old)
        self._count -= 1


#: Before the first key.
FIRST: Key = -1, -1, ""
_NOTHING: dict[int, Mapping | dict[int, Mapping]] = {}
