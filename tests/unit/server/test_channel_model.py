"""The local channel beside a model of its rules: any operations, and a hundred thousand of them."""

from collections.abc import Callable
from random import Random, SystemRandom

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from tests.support.channel_model import WEIGHTS, World
from tests.support.rpc_samples import PROPERTY

OPERATIONS = 100_000
#: A thorough look at everything is taken after so many operations.
LOOK = 20


class Machine(RuleBasedStateMachine):
    """Operations that hypothesis chooses."""

    @initialize(random=st.randoms(use_true_random=False))
    def begin(self, random: Random) -> None:
        """Nothing is registered."""
        self.world = World(random)

    @rule(operation=st.sampled_from([each for each, n in WEIGHTS.items() for _ in range(n)]))
    def operate(self, operation: Callable[[World], None]) -> None:
        """One operation, and a thorough look."""
        operation(self.world)
        self.world.check_watchers()
        self.world.check_listings()


class ModelTests(SynchronousTestCase):
    """Registry, listings and watchers agree with the rules."""

    def test_any_operations(self) -> None:
        """After any few operations."""
        shape = settings(PROPERTY, max_examples=60, stateful_step_count=40)
        run_state_machine_as_test(Machine, settings=shape)

    def test_soak(self) -> None:
        """After each of a hundred thousand operations, and then all of it can go."""
        seed = SystemRandom().getrandbits(32)
        world = World(Random(seed))
        operations = world.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=OPERATIONS)
        for number, operation in enumerate(operations):
            try:
                operation(world)
                world.check_watchers()
                if number % LOOK == 0:
                    world.check_listings()
            except Exception as error:
                note = f"operation {number}, {operation.__name__}, with seed {seed}"
                raise AssertionError(note) from error
        world.check_listings()
        world.end()
