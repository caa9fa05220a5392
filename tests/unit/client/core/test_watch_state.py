"""A watcher's view: the changes that are taken add up to what is registered."""

from collections import Counter

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.core import watch_state
from portmapd.client.core.watch_state import WatchState
from portmapd.client.values import Change, RpcMapping, Service, Subject
from tests.support.rpc_samples import PROPERTY

A = Service("a", 104, 7, 80, "")
B = Service("b", 104, 7, 81, "")
MAPPING = RpcMapping(9, 1, "tcp", "127.0.0.1.0.80", "104")

#: Changes that wait before those that cancel out are left out, in these tests.
FEW = 6


def came(subject: Subject) -> Change:
    """It was registered."""
    return Change("registered" if isinstance(subject, Service) else "mapped", subject)


def went(subject: Subject) -> Change:
    """It is registered no more."""
    return Change("deregistered" if isinstance(subject, Service) else "unmapped", subject)


class Consumer:
    """Takes changes, and keeps what they add up to."""

    def __init__(self, view: WatchState) -> None:
        self._view = view
        self.known: Counter[Subject] = Counter()

    def take(self, most: int = 1_000_000) -> list[Change]:
        """Take so many changes at most.

        :raises AssertionError: something goes that did not come.
        """
        taken: list[Change] = []
        while self._view.changes and len(taken) < most:
            change = self._view.changes.popleft()
            self.known[change.subject] += 1 if change.kind in {"registered", "mapped"} else -1
            assert self.known[change.subject] >= 0, change
            taken.append(change)
        return taken


class WatchStateTests(SynchronousTestCase):
    """What a consumer takes."""

    def setUp(self) -> None:
        self.view = WatchState()
        self.consumer = Consumer(self.view)

    def test_beginning(self) -> None:
        """It begins with what is registered."""
        self.view.listed([A, MAPPING])
        self.assertEqual(self.consumer.take(), [came(A), came(MAPPING)])

    def test_events(self) -> None:
        """Changes come in order."""
        changes = [came(A), came(MAPPING), went(A), came(A), went(MAPPING)]
        for change in changes:
            self.view.changed(change)
        self.assertEqual(self.consumer.take(), changes)

    def test_difference(self) -> None:
        """A further listing gives what is different; what goes comes first."""
        self.view.listed([A])
        self.consumer.take()
        moved = A._replace(pid=8)
        self.view.listed([moved, MAPPING])
        self.assertEqual(self.consumer.take(), [went(A), came(moved), came(MAPPING)])
        self.view.listed([MAPPING, moved])
        self.assertEqual(self.consumer.take(), [])

    def test_equal_services(self) -> None:
        """What stands twice comes twice, and goes twice."""
        self.view.listed([A])
        self.view.changed(came(A))
        self.view.changed(went(A))
        self.assertEqual(self.consumer.take(), [came(A), came(A), went(A)])
        self.view.listed([])
        self.assertEqual(self.consumer.take(), [went(A)])

    def test_unknown(self) -> None:
        """Nothing goes that did not come."""
        self.view.changed(went(A))
        self.view.listed([], during=[went(B)])
        self.assertEqual(self.consumer.take(), [])

    def test_names(self) -> None:
        """Other names, and mappings, are not told of if names are watched."""
        view = WatchState(frozenset({"a"}))
        view.listed([A, B, MAPPING], during=[came(B)])
        for change in (came(B), came(MAPPING), went(A)):
            view.changed(change)
        self.assertEqual(list(view.changes), [came(A), went(A)])

    def test_during(self) -> None:
        """What happened while it was listed counts, whether the listing has it or not."""
        for listed in ([A], [B], [A, B], []):
            view = WatchState()
            view.listed(listed, during=[went(A), came(B)])
            self.assertEqual(list(view.changes), [came(B)], listed)

    def test_compaction(self) -> None:
        """Of very many changes, those that cancel out are left out."""
        self.view.listed([A])
        self.consumer.take()
        for _ in range(watch_state.MAX_CHANGES):
            self.view.changed(went(A))
            self.view.changed(came(A))
            self.assertLessEqual(len(self.view.changes), watch_state.MAX_CHANGES)
        self.view.changed(came(B))
        self.consumer.take()
        self.assertEqual(+self.consumer.known, Counter([A, B]))

    def test_compaction_is_rare(self) -> None:
        """With much registered and nothing taken, changes stay cheap, and are bounded."""
        self.patch(watch_state, "MAX_CHANGES", FEW)
        view = WatchState()
        services = [A._replace(port=port) for port in range(1, 1_001)]
        view.listed(services)
        compactions, before = 0, len(view.changes)
        for _ in range(3_000):
            view.changed(came(B))
            view.changed(went(B))
            compactions += len(view.changes) <= before
            before = len(view.changes)
            self.assertLessEqual(before, 2 * len(services) + 2)
        self.assertLessEqual(compactions, 10)
        self.assertEqual([change.kind for change in view.changes][:1_000], ["registered"] * 1_000)


@frozen
class Listing:
    """The registry is listed.

    :param moves: what happens between its first page and its last.
    :param luck: of each thing that moved, whether the listing has it.
    """

    moves: list[Subject]
    luck: list[bool]


_SUBJECTS = st.sampled_from([A, B, A._replace(pid=8), MAPPING, MAPPING._replace(netid="udp")])
_LISTINGS = st.builds(
    Listing,
    st.lists(_SUBJECTS, max_size=4),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
#: A subject comes or goes, a listing is made, or the consumer takes so many changes.
_STEPS = st.lists(st.one_of(_SUBJECTS, _LISTINGS, st.integers(0, 5)))


class Story:
    """A registry of things that stand once or not at all, a view of it, and its consumer."""

    def __init__(self, names: frozenset[str]) -> None:
        self.view = WatchState(names)
        self.consumer = Consumer(self.view)
        self.stands: dict[Subject, None] = {}
        self.is_listed = False

    def tell(self, step: "Subject | Listing | int") -> None:
        """Let *step* happen."""
        if isinstance(step, int):
            self.consumer.take(step)
        elif isinstance(step, Listing):
            self._list(step)
        else:
            change = self._move(step)
            if self.is_listed:
                self.view.changed(change)

    def _move(self, subject: Subject) -> Change:
        if subject in self.stands:
            del self.stands[subject]
            return went(subject)
        self.stands[subject] = None
        return came(subject)

    def _list(self, step: Listing) -> None:
        listed = dict(self.stands)
        during = [self._move(subject) for subject in step.moves]
        for change, lucky in zip(during, step.luck, strict=False):
            listed.pop(change.subject, None)
            if lucky:
                listed[change.subject] = None
        self.view.listed(listed, during)
        self.is_listed = True


class WatchStateProperties(SynchronousTestCase):
    """What holds whatever happens."""

    @PROPERTY
    @given(_STEPS, st.sampled_from([frozenset[str](), frozenset({"a"})]), st.booleans())
    def test_adds_up(
        self, steps: list[Subject | Listing | int], names: frozenset[str], many: bool
    ) -> None:
        """The changes that are taken add up to what is registered, few or many waiting."""
        self.patch(watch_state, "MAX_CHANGES", 10_000 if many else FEW)
        story = Story(names)
        for step in (*steps, Listing([], [])):
            story.tell(step)
            # No more of them stand, and are known to the consumer, than there are subjects.
            self.assertLessEqual(len(story.view.changes), max(watch_state.MAX_CHANGES, 4 * 5))
        story.consumer.take()
        wanted = Counter(subject for subject in story.stands if story.view.wants(subject))
        self.assertEqual(+story.consumer.known, wanted)
