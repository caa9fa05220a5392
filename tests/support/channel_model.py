"""The local channel beside a model of its rules: what can be done, on both at once."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field

from portmapd.errors import Refusal
from portmapd.registry.mapping import mapping
from tests.support.channel_rules import (
    BAD_NAMES,
    BAD_NETIDS,
    BAD_PORTS,
    PID2EXE,
    RESERVED,
    Process,
    Row,
    Rules,
)
from tests.support.channel_rules import Connection as Held
from tests.support.channel_sessions import Connection, Host

LIMIT = 6
#: The most connections at a time.
CROWD = 14

USERS = {1: 0, 2: 104, 3: 104, 4: 105}
EXECUTABLES = ("/bin/a", "/bin/b", "")
NAMES = ("a", "b", "c")
#: Now and then what is refused, or reserved.
ODD_NAMES = (*NAMES, *BAD_NAMES, *RESERVED, PID2EXE[0])
PORTS = ("80", "81", "/run/s")
ODD_PORTS = (*PORTS, *BAD_PORTS)
PROGRAMS, ODD_PROGRAMS = (1, 2), (1, -1, 100000)
NETIDS, ODD_NETIDS = ("tcp", "udp"), ("tcp", *BAD_NETIDS)
ADDRESS, OTHER_ADDRESS = "127.0.0.1.0.80", "127.0.0.1.0.81"


@define(eq=False)
class Twin:
    """A connection as the daemon and as the model have it.

    :ivar names: what it watches; None: nothing.
    :ivar copy: what was listed when it began to, followed by the events.
    """

    real: Connection
    held: Held
    names: tuple[str, ...] | None = None
    copy: Counter[Row] = field(factory=Counter)
    paused: bool = False

    def follow(self) -> None:
        """Take the events in; each must tell of what was not there, or was."""
        for change, *row in self.real.told():
            key = tuple(row)
            if change in {"registered", "mapped"}:
                assert not (change == "mapped" and self.copy[key]), f"{row} came twice"
                self.copy[key] += 1
            else:
                assert change in {"deregistered", "unmapped"}, change
                assert self.copy[key] > 0, f"{row} went and was not there"
                self.copy[key] -= 1


class World:
    """A daemon beside the model; each operation is done on both, and must have the same end.

    :param random: chooses what is done.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.host = Host(LIMIT)
        self.rules = Rules(LIMIT)
        self.twins: list[Twin] = []
        self.processes = {pid: Process(pid, uid, "/bin/a") for pid, uid in USERS.items()}

    def some(self, kinds: tuple[Any, ...], odd: tuple[Any, ...] = ()) -> Any:
        """One of *kinds*; seldom one of *odd*."""
        return self.random.choice(odd if odd and self.random.random() < 0.04 else kinds)

    def twin(self) -> Twin:
        """Some connection."""
        if not self.twins:
            self.connect()
        return self.random.choice(self.twins)

    def done(self, faults: set[str], call: Callable[..., object], *arguments: Any) -> bool:
        """Make the call; it must be refused for one of the faults, or done if there are none."""
        told = "nothing"
        try:
            call(*arguments)
        except Refusal as refusal:
            told = refusal.code
        assert told in (faults or {"nothing"}), f"told {told}, and not {faults}"
        return not faults

    # Operations

    def connect(self) -> None:
        """A process connects."""
        if len(self.twins) >= CROWD:
            self.close()
        process = self.processes[self.some(tuple(USERS))]
        real = self.host.connect(process.uid, process.pid, process.exe)
        self.twins.append(Twin(real, self.rules.connect(process)))

    def close(self) -> None:
        """A connection ends."""
        self._end(self.twin())

    def exit(self) -> None:
        """A process ends; another one gets its pid."""
        pid = self.some(tuple(USERS))
        for twin in [twin for twin in self.twins if twin.held.process.pid == pid]:
            self._end(twin)
        self.host.exit(pid)
        self.processes[pid] = Process(pid, USERS[pid], self.some(EXECUTABLES))

    def execute(self) -> None:
        """A process becomes another program; its connections stay."""
        process = self.processes[self.some(tuple(USERS))]
        process.exe = self.some(EXECUTABLES)
        for twin in self.twins:
            if twin.held.process is process:
                twin.real.process.exe = process.exe

    def look(self) -> None:
        """The executable of a connection's process is looked at, as it is a while after it came."""
        twin = self.twin()
        twin.real.session.find_executable()
        self.rules.look(twin.held)

    def register(self) -> None:
        """Some services are registered."""
        twin = self.twin()
        new = [self._service() for _ in range(self.random.randrange(4))]
        if self.done(self.rules.faults(twin.held, new), twin.real.register, *new):
            twin.held.services |= {(name, port): flags for name, port, flags in new}

    def _service(self) -> tuple[str, str, int]:
        if self.random.random() < 0.1:
            return PID2EXE
        flags = self.some((0, 0, 0, 1, 2, 3), (8, -1))
        return self.some(NAMES, ODD_NAMES), self.some(PORTS, ODD_PORTS), flags

    def deregister(self) -> None:
        """Some registrations are undone."""
        twin = self.twin()
        held = tuple(twin.held.services) or (("a", "80"),)
        keys = [self.some(held, (("a", "80"),)) for _ in range(self.random.randrange(1, 3))]
        faults = {"NOT_REGISTERED" for key in keys if key not in twin.held.services}
        if self.done(faults, twin.real.deregister, *keys):
            for key in set(keys):
                del twin.held.services[key]

    def set(self) -> None:
        """Some mappings are set."""
        twin = self.twin()
        new = [self._mapping() for _ in range(self.random.randrange(3))]
        if self.done(self.rules.mapping_faults(twin.held, new), twin.real.set, *new):
            twin.held.mappings |= {(p, v, netid): address for p, v, netid, address in new}

    def _mapping(self) -> tuple[int, int, str, str]:
        netid = self.some(NETIDS, ODD_NETIDS)
        return self.some(PROGRAMS, ODD_PROGRAMS), self.some((1, 2, 3)), netid, ADDRESS

    def unset(self) -> None:
        """Some mappings are unset."""
        twin = self.twin()
        held = tuple((*key, address) for key, address in twin.held.mappings.items())
        others = ((1, 1, "tcp", ADDRESS), (1, 1, "tcp", OTHER_ADDRESS))
        old = [self.some(held or others, others) for _ in range(self.random.randrange(1, 3))]
        faults = {"NOT_REGISTERED" for each in old if each not in held}
        if self.done(faults, twin.real.unset, *old):
            for each in set(old):
                del twin.held.mappings[each[:3]]

    def set_elsewhere(self) -> None:
        """An RPC caller sets a mapping, if its place is free."""
        key = (self.some(PROGRAMS), self.some((1, 2, 3)), self.some(NETIDS))
        if key not in self.rules.mapped():
            self.host.registry.map(mapping(*key, OTHER_ADDRESS, "unknown"))
            self.rules.others[key] = (OTHER_ADDRESS, "unknown")

    def unset_elsewhere(self) -> None:
        """The superuser unsets any mapping."""
        registered = list(self.host.registry.mappings)
        if registered:
            chosen = self.random.choice(registered)
            self.host.registry.unmap(chosen)
            self.rules.others.pop(chosen.key, None)
            for twin in self.twins:
                twin.held.mappings.pop(chosen.key, None)

    def watch(self) -> None:
        """A connection watches from now on."""
        twin = self.twin()
        self.resume(twin)
        names = self.some(((), ("a",), ("b", "c"), (PID2EXE[0], "a")))
        twin.real.watch(*names)
        twin.names, twin.copy = names, self.expected(names)

    def unwatch(self) -> None:
        """A connection watches no more."""
        twin = self.twin()
        self.resume(twin)
        twin.real.unwatch()
        twin.names = None

    def pause(self) -> None:
        """A peer does not read."""
        twin = self.twin()
        twin.real.session.pause()
        twin.paused = True

    def resume(self, twin: Twin | None = None) -> None:
        """A peer reads again."""
        twin = twin or self.twin()
        twin.real.session.resume()
        twin.paused = False
        twin.follow()

    def _end(self, twin: Twin) -> None:
        self.twins.remove(twin)
        self.rules.close(twin.held)
        twin.real.close()

    def end(self) -> None:
        """Everything ends: nothing is left."""
        for twin in tuple(self.twins):
            self._end(twin)
        self.host.registry.unmap(*list(self.host.registry.mappings))
        assert self._registered() == []
        assert [list(self.host.registry.holders_of(pid)) for pid in USERS] == [[]] * len(USERS)

    # What must agree

    def expected(self, names: tuple[str, ...]) -> Counter[Row]:
        """What a watcher of these names must know."""
        known = self.rules.services(names)
        if not names:
            known.update(self.rules.mappings())
        return known

    def check_watchers(self) -> None:
        """A watcher that listed, and followed the events, knows what is registered."""
        for twin in self.twins:
            if twin.paused:
                continue
            twin.follow()
            if twin.names is not None:
                assert twin.copy == self.expected(twin.names)

    def check_listings(self) -> None:
        """Listings and registry are what the rules say."""
        assert Counter(self._registered()) == self.rules.services()
        assert sorted(self._mapped()) == self.rules.mappings()
        for twin in self.twins:
            held = twin.real.holder.allowances
            counted = (held.services.held, held.mappings.held)
            assert counted == twin.held.process.held
        lister = self.twin().real
        assert lister.mappings() == self.rules.mappings()
        names, users, pids = (self.some(((), kinds[:1], kinds[1:])) for kinds in _FILTERS)
        listed = lister.services(names=list(names), users=list(users), pids=list(pids))
        assert Counter(listed) == self.rules.services(names, users, pids)

    def _registered(self) -> list[Row]:
        return [(s.name, s.uid, s.pid, s.port, s.exe) for s in self.host.registry.services()]

    def _mapped(self) -> list[Row]:
        return [(*m.key, m.address, m.owner) for m in self.host.registry.mappings]


_FILTERS: tuple[tuple[Any, ...], ...] = (("a", "b", PID2EXE[0]), (104, 0, 105), (2, 1, 3, 4))
#: Every operation, and how often it comes.
WEIGHTS: dict[Callable[[World], None], int] = {
    World.connect: 8,
    World.close: 6,
    World.exit: 1,
    World.execute: 1,
    World.look: 3,
    World.register: 30,
    World.deregister: 14,
    World.set: 12,
    World.unset: 8,
    World.set_elsewhere: 3,
    World.unset_elsewhere: 3,
    World.watch: 5,
    World.unwatch: 1,
    World.pause: 3,
    World.resume: 5,
}
