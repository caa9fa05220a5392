"""A consumer's view of what is registered, kept consistent over listings and events; pure."""

from collections import Counter, deque
from collections.abc import Iterable

from portmapd.client.values import Change, RpcMapping, Service

Subject = Service | RpcMapping

#: The most changes that wait for a consumer before those that cancel out are left out.
MAX_CHANGES = 10_000

_CAME = {Service: "registered", RpcMapping: "mapped"}
_WENT = {Service: "deregistered", RpcMapping: "unmapped"}
_COMING = frozenset(_CAME.values())


class View:
    """What one watcher knows to be registered, and the changes that it has not taken yet.

    Whatever is told, in whichever order listings and events come, the changes that are taken add
    up to a set: nothing goes that did not come.

    :param names: the names that are watched; empty: everything is.
    """

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self.names = names
        self.changes: deque[Change] = deque()
        self._known: Counter[Subject] = Counter()

    def wants(self, subject: Subject) -> bool:
        """Is *subject* watched?"""
        return not self.names or (isinstance(subject, Service) and subject.name in self.names)

    def listed(self, subjects: Iterable[Subject], during: Iterable[Change] = ()) -> None:
        """This, and nothing else, is registered now.

        :param during: what happened while it was listed, which the listing may have or not.
        """
        now = Counter(subject for subject in subjects if self.wants(subject))
        for change in during:
            if self.wants(change.subject):
                present = max(now[change.subject], 1) if change.kind in _COMING else 0
                now[change.subject] = present
        before = self._known
        self._known = now
        for subject in (before - now).elements():
            self.changes.append(Change(_WENT[type(subject)], subject))
        for subject in (now - before).elements():
            self.changes.append(Change(_CAME[type(subject)], subject))

    def happened(self, change: Change) -> None:
        """The daemon told of *change*."""
        subject = change.subject
        if not self.wants(subject):
            return
        if change.kind in _COMING:
            self._known[subject] += 1
        elif self._known[subject] > 0:
            self._known[subject] -= 1
        else:
            return
        self.changes.append(change)
        if len(self.changes) > MAX_CHANGES:
            self._compact()

    def _compact(self) -> None:
        """Forget what came and went again before the consumer took it."""
        net: Counter[Subject] = Counter()
        for change in self.changes:
            net[change.subject] += 1 if change.kind in _COMING else -1
        self.changes.clear()
        for subject, count in net.items():
            kinds = _CAME if count > 0 else _WENT
            self.changes.extend([Change(kinds[type(subject)], subject)] * abs(count))
