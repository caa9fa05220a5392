"""A named service, and the index of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from attrs import define, field

from portmapd.channel.service import Flags

if TYPE_CHECKING:
    from portmapd.registry.holder import Holder

# Plain numbers: members of an enumeration take ten times as long to combine.
EXCLUSIVE, PUBLIC, SHARED = int(Flags.EXCLUSIVE), int(Flags.PUBLIC), int(Flags.SHARED)

#: Names with this ending belong to the port mapper.
RESERVED = ".portmapd"


# Not frozen, which would double the time of a registration; nothing changes one all the same.
@define(eq=False, weakref_slot=False)
class NamedService:
    """A name that a process registered, under its uid, for a port.

    :param name: 1 to 255 bytes without spaces and control characters.
    :param port: a decimal port, 1 to 65535, or the absolute path of a UNIX socket; ``*`` for the
        announcement of an executable.
    :param flags: :data:`EXCLUSIVE`, :data:`PUBLIC`, :data:`SHARED`, some of them together, or 0.
    :param serial: its place among its holder's services.
    :param holder: whose connection it lives with.
    """

    name: str
    port: str
    flags: int
    serial: int
    holder: Holder = field(repr=False)

    @property
    def uid(self) -> int:
        """The user under whom it is registered."""
        return self.holder.uid

    @property
    def pid(self) -> int:
        """The process that registered it."""
        return self.holder.pid

    @property
    def is_exclusive(self) -> bool:
        """Does it keep the user's other processes from the name?"""
        return bool(self.flags & EXCLUSIVE)

    @property
    def exe(self) -> str:
        """The path of the process's executable; empty unless it is public and known."""
        return self.holder.exe or "" if self.flags & PUBLIC else ""

    @property
    def place(self) -> tuple[int, int]:
        """Its place in listings: constant, and different from every other service's."""
        return self.holder.serial, self.serial


class Names:
    """Every service by its name.

    A name that one service has, as most do, costs one entry and no container.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, NamedService | dict[NamedService, None]] = {}
        self._exclusive: dict[tuple[str, int], int] = {}

    def __iter__(self) -> Iterator[NamedService]:
        """All services; those of one name in the order of registration."""
        for found in self._by_name.values():
            if isinstance(found, NamedService):
                yield found
            else:
                yield from found

    def of(self, name: str) -> Iterable[NamedService]:
        """The services of that name, in the order of registration."""
        found = self._by_name.get(name, ())
        return (found,) if isinstance(found, NamedService) else found

    def first(self, name: str, uid: int) -> NamedService | None:
        """The first service of that name and user, or None."""
        return next((s for s in self.of(name) if s.holder.uid == uid), None)

    def is_exclusive(self, name: str, uid: int) -> bool:
        """Is the name taken exclusively for that user?"""
        return (name, uid) in self._exclusive

    def add(self, new: NamedService) -> None:
        """Put *new* in."""
        found = self._by_name.setdefault(new.name, new)
        if found is not new:
            if isinstance(found, NamedService):
                found = self._by_name[new.name] = {found: None}
            found[new] = None
        if new.flags & EXCLUSIVE:
            key = new.name, new.uid
            self._exclusive[key] = self._exclusive.get(key, 0) + 1

    def discard(self, old: NamedService) -> None:
        """Take *old* out; it must be in."""
        found = self._by_name[old.name]
        if isinstance(found, dict):
            del found[old]
        if found is old or not found:
            del self._by_name[old.name]
        if old.flags & EXCLUSIVE:
            self._release(old.name, old.uid)

    def _release(self, name: str, uid: int) -> None:
        left = self._exclusive.pop((name, uid)) - 1
        if left:
            self._exclusive[name, uid] = left
