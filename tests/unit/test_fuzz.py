"""What is fuzzed keeps its promises for the inputs that fuzzing begins with."""

from twisted.trial.unittest import SynchronousTestCase

from fuzz.targets import TARGETS


class TargetTests(SynchronousTestCase):
    """Every target, without a fuzzer."""

    def test_seeds(self) -> None:
        """Each seed, whatever is cut off it, breaks no promise."""
        for target in TARGETS.values():
            self.assertTrue(target.seeds)
            for seed in target.seeds:
                for end in range(0, len(seed) + 1, 3):
                    target.run(seed[:end])
