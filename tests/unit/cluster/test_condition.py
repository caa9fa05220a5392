"""How a machine stands in its cluster."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.cluster.condition import FOLLOWING, LEASE, WRITING, Condition
from portmapd.errors import EtcdFull, EtcdRefused, EtcdUnavailable, NameTaken


class ConditionTests(SynchronousTestCase):
    """What is in the way, and how often that is told."""

    def setUp(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.patch(Condition, "_log", self)
        self.condition = Condition("one")

    def emit(self, level: object, text: str, event: str, **fields: object) -> None:
        """Take a line of the log."""
        self.told.append((event, str(fields.get("state", ""))))

    def test_joined(self) -> None:
        """A machine has joined once it has a lease and a copy."""
        self.condition.succeeded(LEASE)
        self.assertEqual((self.condition.state, self.told), ("joining", []))
        self.condition.succeeded(FOLLOWING)
        self.assertEqual((self.condition.state, self.told), ("joined", [("cluster-joined", "")]))

    def test_told_once(self) -> None:
        """However often all activities fail for one reason, and heal, there is a line for each."""
        for activity in (LEASE, FOLLOWING):
            self.condition.succeeded(activity)
        for _ in range(50):
            for activity in (LEASE, FOLLOWING, WRITING):
                self.condition.failed(activity, EtcdUnavailable("no member answers"))
        self.assertEqual(self.condition.state, "unreachable")
        self.assertEqual(self.condition.why, "no member answers")
        for activity in (WRITING, FOLLOWING, LEASE):
            self.condition.succeeded(activity)
        self.assertEqual(
            self.told,
            [("cluster-joined", ""), ("cluster-trouble", "unreachable"), ("cluster-joined", "")],
        )
        self.assertEqual(self.condition.failures, {"unreachable": 150})

    def test_states(self) -> None:
        """What is in the way tells the state."""
        for error, state in (
            (EtcdFull("space exceeded"), "full"),
            (EtcdRefused("permission denied"), "refused"),
            (NameTaken("another one"), "name-taken"),
        ):
            self.condition.failed(LEASE, error)
            self.assertEqual(self.condition.state, state)
