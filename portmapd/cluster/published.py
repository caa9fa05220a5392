"""What this machine shares, and what of it etcd has not been told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice

from portmapd.cluster.entry import Layout, encode_mapping, encode_service
from portmapd.cluster.reached import Reached
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.mapping import Mapping as RpcMapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import SHARED, NamedService


class Published:
    """The entries of this machine, which follow its registry.

    :param layout: the keys of the cluster.
    :param host: what this machine is called there.
    :param reached: where other machines reach it.
    :param changed: is called when there is something to write.
    :ivar wanted: the entries that etcd is to have, by their keys.
    """

    def __init__(
        self, layout: Layout, host: str, reached: Reached, changed: Callable[[], object]
    ) -> None:
        self.wanted: dict[str, bytes] = {}
        self._layout = layout
        self._host = host
        self._reached = reached
        self._changed = changed
        #: How many registrations an entry stands for: a process may make one on two connections.
        self._counts: Counter[str] = Counter()
        #: The keys of what is to be written or deleted, in the order of the changes.
        self._unwritten: dict[str, None] = {}

    def __len__(self) -> int:
        """How many entries are to be written or deleted."""
        return len(self._unwritten)

    def follow(self, registry: Registry) -> Callable[[], None]:
        """Share what is registered, and what will be.

        :return: a function that ends that.
        """
        for service in registry.services():
            self._add_service(service)
        for mapping in registry.mappings:
            self._add_mapping(mapping)
        changes: dict[ChangeKind, Callable[..., None]] = {
            ChangeKind.REGISTERED: self._add_service,
            ChangeKind.DEREGISTERED: self._drop_service,
            ChangeKind.MAPPED: self._add_mapping,
            ChangeKind.UNMAPPED: self._drop_mapping,
        }
        ends = [registry.follow(partial(self._each, on), kind) for kind, on in changes.items()]

        def end() -> None:
            for each in ends:
                each()

        return end

    def take(self, limit: int) -> dict[str, bytes | None]:
        """Take so many entries that are to be written, by their keys; None: to be deleted."""
        keys = list(islice(self._unwritten, limit))
        for key in keys:
            del self._unwritten[key]
        return {key: self.wanted.get(key) for key in keys}

    def put_back(self, keys: Iterable[str]) -> None:
        """These were not written: they are to be written as they will be then."""
        self._unwritten |= dict.fromkeys(keys)

    def compare(self, found: Mapping[str, bytes]) -> None:
        """Have everything written that etcd lacks, or has differently.

        :param found: what it has under our lease, by the keys.
        """
        self.put_back(key for key, value in self.wanted.items() if found.get(key) != value)

    def unwanted(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are not wanted."""
        return [key for key in keys if key not in self.wanted]

    def _each(self, change: Callable[..., None], changes: Sequence[ChangeRecord]) -> None:
        before = len(self._unwritten)
        for each in changes:
            change(each.subject)
        if len(self._unwritten) > before:
            self._changed()

    def _add_service(self, service: NamedService) -> None:
        if service.flags & SHARED:
            key = self._layout.service(service, self._host)
            self._add(key, encode_service(service, self._reached.address))

    def _drop_service(self, service: NamedService) -> None:
        if service.flags & SHARED:
            self._drop(self._layout.service(service, self._host))

    def _add_mapping(self, mapping: RpcMapping) -> None:
        address = self._reached.address_of(mapping)
        if address is not None:
            self._add(
                self._layout.mapping(mapping, self._host), encode_mapping(address, mapping.owner)
            )

    def _drop_mapping(self, mapping: RpcMapping) -> None:
        if self._reached.address_of(mapping) is not None:
            self._drop(self._layout.mapping(mapping, self._host))

    def _add(self, key: str, value: bytes) -> None:
        self._counts[key] += 1
        self.wanted[key] = value
        self._unwritten[key] = None

    def _drop(self, key: str) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key], self.wanted[key]
            self._unwritten[key] = None
