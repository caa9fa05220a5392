"""Counting services by listings, page by page, while they come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from portmapd.client.values import Change, ClusterService, Service

#: A service of this machine, or of the cluster.
Listed = Service | ClusterService

#: How many services are counted again at a time: as a rule, one page has them.
PORTION = 100


class ListingSync:
    """Counts how often each service is registered: a process may do so on several connections.

    The daemon lists page by page. What changes meanwhile may be in the listing or not, and is told
    before the listing is read or after, so it is unsure. Unsure services are counted again, in a
    listing of them alone, until nothing is unsure; all others are kept up to date by their changes.

    It begins with a listing of everything. Call :meth:`listed` for each listing.

    :ivar counts: how often each service is registered; meaningless for unsure services.
    :ivar unsure: the services that must be listed again.
    """

    def __init__(self) -> None:
        self.counts: Counter[Listed] = Counter()
        self.unsure: set[Listed] = set()
        #: What the current listing is of; None: everything.
        self._scope: set[Listed] | None = None

    def again(self) -> dict[str, Any]:
        """Begin to count some of the unsure services again.

        :return: the filters of the listing.
        """
        self._scope = scope = set(sorted(self.unsure, key=_identity)[:PORTION])
        self.unsure -= scope
        return {
            "names": sorted({service.name for service in scope}),
            "pids": sorted({service.pid for service in scope}),
        }

    def listed(self, services: Iterable[Listed]) -> None:
        """The last page has come; *services* are those of all pages."""
        found = Counter(services)
        for service in found if self._scope is None else self._scope:
            self.counts[service] = found[service]
        self._scope = set()

    def changed(self, change: Change) -> None:
        """A service was registered or deregistered."""
        service = change.subject
        assert isinstance(service, Service | ClusterService)
        if self._scope is None or service in self._scope:
            self.unsure.add(service)
        else:
            self.counts[service] += 1 if change.kind == "registered" else -1


def _identity(service: Listed) -> tuple[str, int, str]:
    return service.name, service.pid, str(service.port)
