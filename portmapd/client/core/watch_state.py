"""What one watcher knows, kept consistent over listings and changes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from portmapd.client.values import (
    Change,
    ClusterMapping,
    ClusterService,
    Kind,
    RpcMapping,
    Service,
    Subject,
)

#: The most changes that wait for a consumer before those that cancel out are left out.
MAX_CHANGES = 10_000

_SERVICES, _MAPPINGS = (Service, ClusterService), (RpcMapping, ClusterMapping)
_CAME: dict[type, Kind] = {
    **dict.fromkeys(_SERVICES, "registered"),
    **dict.fromkeys(_MAPPINGS, "mapped"),
}
_WENT: dict[type, Kind] = {
    **dict.fromkeys(_SERVICES, "deregistered"),
    **dict.fromkeys(_MAPPINGS, "unmapped"),
}
_COMING = frozenset(_CAME.values())


class WatchState:
    """What one watcher knows to be registered, and the changes that it has not taken yet.

    In whichever order listings and changes come, the changes that the watcher takes add up to what
    is registered, and nothing goes that did not come. What a process registered on two connections
    comes twice.

    :param names: the names that are watched; empty: everything.
    """

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self.names = names
        self.changes: deque[Change] = deque()
        self._known: Counter[Subject] = Counter()
        #: The number of changes beyond which those that cancel out are left out.
        self._limit = MAX_CHANGES

    def wants(self, subject: Subject) -> bool:
        """Is *subject* watched?"""
        return not self.names or (isinstance(subject, _SERVICES) and subject.name in self.names)

    def listed(self, subjects: Iterable[Subject], during: Iterable[Change] = ()) -> None:
        """Take in a listing of everything that is registered.

        :param during: what changed meanwhile, which the listing may have or not.
        """
        now = Counter(subject for subject in subjects if self.wants(subject))
        for change in during:
            if self.wants(change.subject):
                present = max(now[change.subject], 1) if change.kind in _COMING else 0
                now[change.subject] = present
        before, self._known = self._known, +now
        self._add_difference(before, now)
        self._bound()

    def changed(self, change: Change) -> None:
        """Take in a change."""
        subject = change.subject
        if not self.wants(subject):
            return
        if change.kind in _COMING:
            self._known[subject] += 1
        elif self._known[subject] > 1:
            self._known[subject] -= 1
        elif self._known.pop(subject, 0) == 0:
            return
        self.changes.append(change)
        self._bound()

    def _add_difference(self, before: Counter[Subject], now: Counter[Subject]) -> None:
        """Add the changes from *before* to *now*; what goes makes room first."""
        gone, come = before - now, now - before
        self.changes.extend([Change(_WENT[type(s)], s) for s in gone.elements()])
        self.changes.extend([Change(_CAME[type(s)], s) for s in come.elements()])

    def _bound(self) -> None:
        """Leave out what came and went again, if too much waits for the consumer.

        What is left may be as much as is registered. As much again may come before the next time;
        otherwise each change would cost as much as all of them.
        """
        if len(self.changes) <= self._limit:
            return
        taken = self._taken()
        self.changes.clear()
        self._add_difference(taken, self._known)
        self._limit = max(MAX_CHANGES, 2 * len(self.changes))

    def _taken(self) -> Counter[Subject]:
        """Return what the consumer knows: everything less the changes that it has not taken."""
        taken = self._known.copy()
        for change in self.changes:
            taken[change.subject] += -1 if change.kind in _COMING else 1
        return taken
