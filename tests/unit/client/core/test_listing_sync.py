"""Counting services page by page while they come and go."""

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.core.listing_sync import PORTION, ListingSync
from portmapd.client.values import Change, Service

A = Service("a", 104, 7, 80, "")
B = Service("b", 104, 8, 81, "")


def came(service: Service) -> Change:
    """It was registered."""
    return Change("registered", service)


def went(service: Service) -> Change:
    """It is registered no more."""
    return Change("deregistered", service)


class ListingSyncTests(SynchronousTestCase):
    """What is counted, and what is counted again."""

    def setUp(self) -> None:
        self.sync = ListingSync()

    def count(self, *services: Service, during: tuple[Change, ...] = ()) -> None:
        """Let a listing come, and these changes before it is read."""
        for change in during:
            self.sync.changed(change)
        self.sync.listed(services)

    def counts(self, *services: Service) -> None:
        """Assert that these are registered, for sure."""
        self.assertEqual(+self.sync.counts, Counter(services))
        self.assertEqual(self.sync.unsure, set())

    def test_listing(self) -> None:
        """What is listed is counted, and what is listed twice counts twice."""
        self.count(A, B, A)
        self.counts(A, A, B)

    def test_told_before(self) -> None:
        """What is told before a listing is read may be in it or not: it is counted again."""
        for listing in ((A,), (B,), ()):
            self.sync = ListingSync()
            self.count(*listing, during=(came(A), went(B)))
            self.assertEqual(self.sync.unsure, {A, B})
            self.sync.again()
            self.count(A)
            self.counts(A)

    def test_after_the_last_page(self) -> None:
        """What happens after the last page is added."""
        self.count(A)
        self.sync.changed(came(A))
        self.sync.changed(came(B))
        self.sync.changed(went(B))
        self.counts(A, A)

    def test_between_pages(self) -> None:
        """What happens between pages is unsure, and counted again, alone."""
        self.count(A, B, during=(came(A),))
        self.assertEqual(self.sync.unsure, {A})
        self.assertEqual(self.sync.again(), {"names": ["a"], "pids": [7]})
        self.sync.changed(came(B))
        self.count(A, A, A, A._replace(port=9))
        self.counts(A, A, A, B, B)

    def test_unsure_again(self) -> None:
        """What happens between the pages of the second count is counted a third time."""
        self.count(A, during=(came(A), came(B)))
        self.sync.again()
        self.count(A, B, during=(went(A),))
        self.assertEqual(self.sync.unsure, {A})
        self.sync.again()
        self.count()
        self.counts(B)

    def test_portions(self) -> None:
        """Very many are counted again a portion at a time, and the rest stays unsure until then."""
        many = [A._replace(port=port) for port in range(1, 2 * PORTION + 2)]
        self.count(during=tuple(came(service) for service in many))
        for _ in range(3):
            self.sync.again()
            self.count(*many, *many)
        self.counts(*many, *many)
