"""Keeping a copy of what the machines of a cluster share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from portmapd.cluster.entry import Layout
from portmapd.errors import Compacted, EtcdError, EtcdUnavailable
from portmapd.etcd.client import EtcdClient, Watch
from portmapd.etcd.messages import Changes
from portmapd.registry.cluster_copy import ClusterCopy
from portmapd.registry.shared import ClusterHost, Shared, SharedMapping, SharedService

_KINDS: list[Callable[..., Shared]] = [ClusterHost, SharedService, SharedMapping]


class Follower:
    """Follows etcd from one revision to the next.

    Over a connection that breaks, it goes on where it was. Where etcd has forgotten what changed
    meanwhile, everything is read again, and followers of the copy are told the difference.

    :param etcd: the client of etcd.
    :param layout: the keys of the cluster.
    :param copy: is kept up to date.
    :param now: the seconds of a clock.
    :param current: is called when the copy is current.
    :ivar revision: that of the copy; 0: nothing was read yet.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        layout: Layout,
        copy: ClusterCopy,
        now: Callable[[], float],
        current: Callable[[], object],
    ) -> None:
        self.revision = 0
        self._etcd = etcd
        self._layout = layout
        self._copy = copy
        self._now = now
        self._current = current
        self._watch: Watch | None = None
        #: When the copy was known to be current for the last time; None: never.
        self._seen: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the copy was known to be current; 0 while it is; None: there is none."""
        if self._seen is None:
            return None
        return 0.0 if self._watch is not None else max(self._now() - self._seen, 0.0)

    async def follow(self) -> None:
        """Follow until that fails.

        :raises EtcdError: etcd cannot be followed.
        """
        try:
            if not self.revision:
                await self._load()
            await self._follow()
        except Compacted:
            self.revision = 0
            raise

    async def _load(self) -> None:
        """Read everything, page by page."""
        keys: set[str] = set()
        revision = 0
        async for page in self._etcd.pages(self._layout.prefix):
            read = ((each.key, self._layout.read(each.key, each.value)) for each in page.keys)
            entries = {key: entry for key, entry in read if entry is not None}
            self._copy.change(entries)
            keys |= entries.keys()
            revision = revision or page.revision
        self._copy.change({}, [key for key in self._copy.entries() if key not in keys])
        self.revision = revision

    async def _follow(self) -> None:
        watch = await self._etcd.watch(self._layout.prefix, self.revision + 1, self._changed)
        self._watch, self._seen = watch, self._now()
        self._current()
        try:
            why = await watch.ended
        finally:
            self._watch = None
            watch.close()
        if why is not None:
            raise why

    def _changed(self, changes: Changes) -> None:
        new: dict[str, Shared] = {}
        gone: list[str] = []
        for key, kept in changes.changed:
            entry = None if kept is None else self._layout.read(key, kept.value)
            if key in new or key in gone:
                # Twice at once: followers are told of each change.
                self._copy.change(new, gone)
                new, gone = {}, []
            if entry is None:
                gone.append(key)
            else:
                new[key] = entry
        self._copy.change(new, gone)
        self.revision = max(self.revision, changes.revision)
        self._seen = self._now()

    async def check(self) -> None:
        """End a watch whose member is cut off from the others: it would tell nothing any more."""
        watch = self._watch
        if watch is None:
            return
        try:
            if await self._etcd.status(watch.member):
                self._seen = self._now()
                return
            why = EtcdUnavailable(f"{watch.member} has no leader")
        except EtcdError as error:
            why = EtcdUnavailable(str(error))
        self._etcd.pass_over(watch.member)
        watch.close(why)

    def pass_on(self) -> list[Any]:
        """The copy, for another process of this machine, as a value of JSON."""
        rows = [
            [key, _KINDS.index(type(each)), *each] for key, each in self._copy.entries().items()
        ]
        return [self.revision, self._seen, rows]

    def take_over(self, passed: list[Any]) -> None:
        """Go on where another process was."""
        self.revision, self._seen, rows = passed
        self._copy.change({key: _KINDS[kind](*fields) for key, kind, *fields in rows})

    def stop(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.close()
