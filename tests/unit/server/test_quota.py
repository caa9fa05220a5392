"""Who may have how many connections, and which one has to go."""

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import LimitExceeded
from portmapd.server.quota import FEW, Budget, OpenStreams, Quota


class BudgetTests(SynchronousTestCase):
    """Memory, a user and in all."""

    def setUp(self) -> None:
        self.budget = Budget("watched names", 80)

    def assert_refused(self, uid: int, more: int, message: str) -> None:
        """The refusal says what there is too much of, and whose it is."""
        error = self.assertRaises(LimitExceeded, self.budget.take, uid, more)
        self.assertIn(message, str(error))

    def test_user(self) -> None:
        """A user has a quarter; what it gives back it may take again."""
        self.budget.take(7, 20)
        self.assert_refused(7, 1, "one user may have 20 watched names; uid 7 has 20 and asks for 1")
        self.budget.take(7, -5)
        self.assert_refused(7, 6, "uid 7 has 15 and asks for 6 more")
        self.budget.take(7, 5)

    def test_all(self) -> None:
        """All users together leave an eighth to root, who has no more than there is."""
        for uid in (1, 2, 3):
            self.budget.take(uid, 20)
        self.assert_refused(4, 11, "all users together may have 70 watched names; they have 60")
        self.budget.take(4, 10)
        self.assert_refused(5, 1, "they have 70, and uid 5 asks for 1")
        self.budget.take(0, 10)
        self.assert_refused(0, 1, "may have 80 watched names; they have 80, and uid 0")


class QuotaTests(SynchronousTestCase):
    """Connections that are not taken from anyone."""

    def setUp(self) -> None:
        self.limit = 40 * FEW
        self.quota = Quota(self.limit)
        self.room = self.limit

    def take(self, who: str, count: int) -> int:
        """How many of so many further connections *who* may have."""
        taken = 0
        for _ in range(count):
            if self.quota.take(who, self.room):
                taken += 1
                self.room -= 1
            else:
                self.quota.give_back(who)
        return taken

    def test_share(self) -> None:
        """A user has a quarter, again and again."""
        for _ in range(2):
            self.assertEqual(self.take("a", self.limit), self.limit // 4)
            for _ in range(self.limit // 4):
                self.quota.give_back("a")
                self.room += 1

    def test_kept(self) -> None:
        """Whatever users take, there is room for newcomers, and for root after that."""
        for who in "abcdef":
            self.take(who, self.limit)
        for number in range(1_000):
            taken = self.take(f"newcomer {number}", 1)
            if number < 2 * FEW:
                self.assertEqual(taken, 1)
        self.assertGreaterEqual(self.room, self.limit // 8 - 1)
        self.assertEqual(self.take("a", 1), 0)


@define(eq=False)
class Stream:
    """A stream that was used then."""

    used: int


class OpenStreamsTests(SynchronousTestCase):
    """Streams that make room for others."""

    def test_owner(self) -> None:
        """Beyond the owner's share, its own goes that was not used for the longest time."""
        streams = OpenStreams[Stream](8)
        first, second, third, other = map(Stream, (3, 2, 4, 1))
        for each, owner in ((first, 1000), (other, 1001), (second, 1000)):
            self.assertIsNone(streams.add(each, owner))
        self.assertIs(streams.add(third, 1000), second)
        streams.remove(first)
        self.assertIsNone(streams.add(Stream(5), 1000))

    def test_all(self) -> None:
        """Beyond the limit, anyone's goes; root has no share."""
        streams = OpenStreams[Stream](4)
        for used in range(4):
            self.assertIsNone(streams.add(Stream(used), None))
        for used in range(4, 9):
            surplus = streams.add(Stream(used), None)
            assert surplus is not None
            self.assertEqual(surplus.used, used - 4)

    def test_removed_twice(self) -> None:
        """A stream that had to go is closed later, which changes nothing more."""
        streams = OpenStreams[Stream](1)
        first, second = Stream(0), Stream(1)
        streams.add(first, None)
        self.assertIs(streams.add(second, 1000), first)
        for _ in range(2):
            streams.remove(first)
        self.assertTrue(streams.is_crowded)
        streams.remove(second)
        self.assertFalse(streams.is_crowded)
