"""A name has one holder at a time: what processes saw while the cluster broke in many ways."""

import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

import pytest
from attrs import define, field, frozen

from tests.support.machines import TTL, Machine, Network, cluster

pytestmark = pytest.mark.programs("etcd", "etcdctl", "curl")

BOTH = 5
NAMES = ("a", "b", "c")
#: Operations of a whole run; with puts in place of transactions, two holders are seen much earlier.
OPERATIONS, FEW = 1_000, 200
#: Steps between two faults.
EACH = 30

#: twistd whose port mapper writes claims whatever there is.
PUT = """
import sys
from attrs import evolve
from portmapd.cluster.names import Names
transaction = Names._transaction
Names._transaction = lambda *args: evolve(transaction(*args), compares=[])
sys.argv[0] = "twistd"
from twisted.scripts.twistd import run
run()
"""


@frozen
class Tenure:
    """A time in which a client had a name for certain, in seconds."""

    name: str
    client: str
    begun: float
    ended: float


@define
class Run:
    """Clients that take names and give them back.

    :param network: the machines.
    :ivar held: since when each client has its name.
    """

    network: Network
    random: random.Random
    held: dict[tuple[str, str, str], float] = field(factory=dict)
    tenures: list[Tenure] = field(factory=list)
    count: int = 0
    #: How much of what each machine lost was noted.
    seen: dict[str, int] = field(factory=dict)

    def step(self) -> None:
        """One operation on each machine, all at one time."""
        doing = []
        for machine in self.network.machines:
            client, name = f"{machine.name}-{self.random.randrange(2)}", self.random.choice(NAMES)
            key = machine.name, client, name
            operation = "dereg" if key in self.held else "reg"
            asked: dict[str, str | int] = {"by": client, "name": name}
            if operation == "reg":
                asked |= {"port": 4711, "flags": BOTH}
            doing.append((key, operation, machine, machine.begin(operation, **asked)))
        for key, operation, machine, serial in doing:
            outcome = machine.outcome(serial)
            self.count += 1
            if operation == "dereg":
                self.end(key, outcome["begun"])
            elif "error" not in outcome:
                self.held[key] = outcome["ended"]
        for machine in self.network.machines:
            self._note_lost(machine)

    def end(self, key: tuple[str, str, str], when: float) -> None:
        """A client has a name no longer."""
        begun = self.held.get(key)
        # It may have lost the name, and have it again.
        if begun is not None and begun <= when:
            del self.held[key]
            _, client, name = key
            self.tenures.append(Tenure(name, client, begun, when))

    def _note_lost(self, machine: Machine) -> None:
        """Note what clients were told that they have lost."""
        lost = machine.do("lost")
        for client, name, when in lost[self.seen.get(machine.name, 0) :]:
            self.end((machine.name, client, name), when)
        self.seen[machine.name] = len(lost)

    def finish(self) -> None:
        """The end: what is held is held until now."""
        for key in list(self.held):
            self.end(key, time.monotonic())

    def two_holders(self) -> list[tuple[Tenure, Tenure]]:
        """Times in which two clients had a name."""
        found = []
        for name in NAMES:
            ours = sorted((t for t in self.tenures if t.name == name), key=lambda t: t.begun)
            found += [
                (first, second)
                for at, first in enumerate(ours)
                for second in ours[at + 1 :]
                if second.begun < first.ended and second.client != first.client
            ]
        return found


@contextmanager
def cut(network: Network, machine: Machine) -> Iterator[None]:
    """Cut a machine off in the block."""
    network.cut(machine)
    yield
    network.mend(machine)


@contextmanager
def killed(network: Network, machine: Machine) -> Iterator[None]:
    """Have a member of etcd dead in the block."""
    assert machine.etcd is not None
    machine.etcd.process.stop(SIGKILL)
    yield
    machine.etcd.again()


def play(network: Network, operations: int, *, has_faults: bool) -> Run:
    """Do so many operations while links are cut, and members of etcd are killed."""
    chance = random.Random(4711)
    run = Run(network, chance)
    while run.count < operations:
        for _ in range(EACH):
            run.step()
        if has_faults:
            fault = chance.choice((cut, killed))
            ends = time.monotonic() + chance.uniform(0.5, 2) * TTL
            with fault(network, chance.choice(network.machines)):
                while time.monotonic() < ends:
                    run.step()
    run.finish()
    return run


def test_one_holder(tmp_path: Path) -> None:
    """In a thousand operations with cut links and killed members no name has two holders."""
    with cluster(tmp_path) as network:
        run = play(network, OPERATIONS, has_faults=True)
    assert run.count >= OPERATIONS
    assert len(run.tenures) > OPERATIONS / 10
    assert run.two_holders() == []


def test_put_is_not_enough(tmp_path: Path) -> None:
    """The same without the condition of the transaction is found out."""
    with cluster(tmp_path, program=(sys.executable, "-c", PUT)) as network:
        run = play(network, FEW, has_faults=False)
    assert run.two_holders() != []
