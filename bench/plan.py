"""How long and how often the benchmark measures."""

from attrs import frozen


@frozen
class Plan:
    """One run's sizes.

    rounds: how often the servers take their turn.
    calm_rounds: undisturbed ones that are enough for a row; with fewer, all count.
    seconds: of load for one server in one round.
    starts: of each server, for the time to the first answer.
    idle_seconds: of rest in which the liveness check's cost is taken.
    many: mappings in the large registry.
    names: in the large registry of named services; ten on each of its connections.
    storms: how often all the connections of many clients are made and broken.
    """

    rounds: int
    calm_rounds: int
    seconds: float
    starts: int
    idle_seconds: float
    many: int
    names: int
    storms: int


FULL = Plan(
    rounds=15,
    calm_rounds=5,
    seconds=0.5,
    starts=9,
    idle_seconds=10.0,
    many=1_000_000,
    names=100_000,
    storms=5,
)
QUICK = Plan(
    rounds=5,
    calm_rounds=2,
    seconds=0.3,
    starts=3,
    idle_seconds=3.0,
    many=50_000,
    names=20_000,
    storms=2,
)
