"""What the machines of a cluster share, as a copy that every one of them keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from portmapd.registry.change import ChangeKind, ClusterChange
from portmapd.registry.shared import ClusterHost, Shared, SharedMapping, SharedService

#: Is called with the changes of one transaction. It must neither raise nor change the copy.
ClusterFollower = Callable[[Sequence[ClusterChange]], None]

_CAME: dict[type, ChangeKind] = {
    SharedService: ChangeKind.REGISTERED,
    SharedMapping: ChangeKind.MAPPED,
}
_WENT: dict[type, ChangeKind] = {
    SharedService: ChangeKind.DEREGISTERED,
    SharedMapping: ChangeKind.UNMAPPED,
}


class ClusterCopy:
    """The entries of a cluster by their keys. It does no I/O and has no clock.

    :ivar hosts: the machines, by their names.
    :ivar counts: how many services each machine shares.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, ClusterHost] = {}
        self.counts: Counter[str] = Counter()
        self._serial = 0
        #: Each entry with a serial of its own, in the order of the serials.
        self._entries: dict[str, tuple[int, Shared]] = {}
        #: The keys of each name's services. A single one, as most names have, has no container.
        self._names: dict[str, str | dict[str, None]] = {}
        self._followers: list[ClusterFollower] = []

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def follow(self, follower: ClusterFollower, *kinds: ChangeKind) -> Callable[[], None]:
        """Call *follower* with every later change of services and mappings.

        :param kinds: as a registry has it; all changes are of the visible kinds.
        :return: a function that removes the follower.
        """
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)

    def of(self, name: str) -> Iterator[tuple[int, SharedService]]:
        """The services of that name, each with its serial, in the order of their serials."""
        keys = self._names.get(name, ())
        for key in (keys,) if isinstance(keys, str) else keys:
            serial, service = self._entries[key]
            assert isinstance(service, SharedService)
            yield serial, service

    def after(self, serial: int) -> Iterator[tuple[int, SharedService | SharedMapping]]:
        """The services and mappings with a later serial, each with its own, in their order."""
        for place, entry in self._entries.values():
            if place > serial and not isinstance(entry, ClusterHost):
                yield place, entry

    def entries(self) -> dict[str, Shared]:
        """All entries, by their keys."""
        return {key: entry for key, (_, entry) in self._entries.items()}

    def change(self, new: Mapping[str, Shared], gone: Iterable[str] = ()) -> None:
        """Put entries in, in place of those with their keys, and take others out.

        :param new: the entries, by their keys.
        :param gone: keys; unknown ones are passed over.
        """
        changes: list[ClusterChange] = []
        for key in gone:
            if key not in new:
                self._discard(key, changes)
        for key, entry in new.items():
            known = self._entries.get(key)
            if known is None or known[1] != entry:
                self._discard(key, changes)
                self._add(key, entry, changes)
        if changes:
            for follower in tuple(self._followers):
                follower(changes)

    def _add(self, key: str, entry: Shared, changes: list[ClusterChange]) -> None:
        self._serial += 1
        self._entries[key] = self._serial, entry
        if isinstance(entry, ClusterHost):
            self.hosts[entry.name] = entry
            return
        if isinstance(entry, SharedService):
            self.counts[entry.host] += 1
            self._add_name(key, entry.name)
        changes.append(ClusterChange(_CAME[type(entry)], entry))

    def _add_name(self, key: str, name: str) -> None:
        known = self._names.setdefault(name, key)
        if isinstance(known, dict):
            known[key] = None
        elif known != key:
            self._names[name] = {known: None, key: None}

    def _discard(self, key: str, changes: list[ClusterChange]) -> None:
        _, entry = self._entries.pop(key, (0, None))
        if entry is None:
            return
        if isinstance(entry, ClusterHost):
            self.hosts.pop(entry.name, None)
            return
        if isinstance(entry, SharedService):
            self._count_down(entry.host)
            self._discard_name(key, entry.name)
        changes.append(ClusterChange(_WENT[type(entry)], entry))

    def _count_down(self, host: str) -> None:
        self.counts[host] -= 1
        if not self.counts[host]:
            del self.counts[host]

    def _discard_name(self, key: str, name: str) -> None:
        known = self._names[name]
        if isinstance(known, dict):
            del known[key]
        if known == key or not known:
            del self._names[name]
