"""The registry: mappings and holders, and who is told of what."""

from collections.abc import Sequence
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import (
    AlreadyRegistered,
    InvalidMapping,
    LimitExceeded,
)
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.holder import Holder, allowances, owner_of
from portmapd.registry.mapping import (
    FIRST,
    MAX_RUN,
    SUPERUSER,
    Key,
    Mapping,
    Mappings,
    mapping,
)
from portmapd.registry.registry import Registry


class RegistryTestCase(SynchronousTestCase):
    """A registry, and all that it told of.

    :ivar told: the changes of each transaction, in order.
    """

    def setUp(self) -> None:
        self.registry = Registry()
        self.told: list[list[ChangeRecord]] = []
        self.registry.follow(lambda changes: self.told.append(list(changes)), *ChangeKind)

    def holder(self, uid: int = 104, pid: int = 1, limit: int | None = None) -> Holder:
        """An open holder."""
        return self.registry.open(Holder(uid, pid, "/bin/service", allowances(limit, limit)))

    def register(self, holder: Holder, *names: str, port: str = "80", flags: int = 0) -> None:
        """Register names for *holder*, in one transaction."""
        self.registry.register(*(holder.new_service(name, port, flags) for name in names))

    def names(self) -> list[str]:
        """The names of all services, in the order of listings."""
        return [service.name for service in self.registry.services()]


def udp(program: int, version: int, port: int = 111, holder: Holder | None = None) -> Mapping:
    """A mapping over UDP."""
    return mapping(program, version, "udp", f"0.0.0.0.0.{port}", holder=holder)


class MappingTests(SynchronousTestCase):
    """What a mapping may be."""

    def test_fields(self) -> None:
        """A mapping knows its key and the port of its address."""
        made = mapping(100005, 3, "tcp", "127.0.0.1.8.1", "104")
        self.assertEqual(made, Mapping(100005, 3, "tcp", "127.0.0.1.8.1", "104", 2049))
        self.assertEqual(made.key, (100005, 3, "tcp"))
        self.assertEqual(mapping(1, 1, "local", "/run/s").port, 0)
        self.assertEqual(mapping(1, 1, "local", "/run/s").owner, SUPERUSER)

    def test_limits(self) -> None:
        """Program and version have 32 bits."""
        for number in (0, 0xFFFF_FFFF):
            self.assertEqual(mapping(number, number, "local", "/s").program, number)
        for number in (-1, 1 << 32):
            with self.assertRaisesRegex(InvalidMapping, f"program {number} is not in the range"):
                mapping(number, 0, "local", "/s")
            with self.assertRaisesRegex(InvalidMapping, f"version {number} is not in the range"):
                mapping(0, number, "local", "/s")

    def test_netid(self) -> None:
        """Unknown netids are refused, and the known ones named."""
        for netid in ("", "UDP", "sctp", "ticlts", "udp ", "udp\0"):
            with self.assertRaisesRegex(InvalidMapping, "none of udp, tcp, udp6, tcp6, local"):
                mapping(1, 1, netid, "0.0.0.0.0.1")

    def test_address(self) -> None:
        """The address must be one of the netid's."""
        for netid, address in (("udp", "::1.0.1"), ("udp6", "127.0.0.1.0.1"), ("local", "")):
            with self.assertRaisesRegex(InvalidMapping, "address"):
                mapping(1, 1, netid, address)


class OrderTests(SynchronousTestCase):
    """All mappings in order, in runs."""

    def check(self, mappings: Mappings, model: dict[Key, Mapping]) -> None:
        """The mappings are those of a simple model, by each way that leads to them."""
        ordered = [model[key] for key in sorted(model)]
        self.assertEqual((len(mappings), list(mappings)), (len(model), ordered))
        for key in [ordered[0].key, ordered[-1].key, (3, 2**31, "udp")]:
            self.assertEqual(list(mappings.after(key)), [m for m in ordered if m.key > key])

    def test_model(self) -> None:
        """Mappings that come and go in any order are those of a simple model, in order."""
        random, mappings = Random(1), Mappings()
        model: dict[Key, Mapping] = {}
        for turn in range(6_000):
            program, version = random.randrange(700), random.randrange(3)
            new = udp(program, version)
            old = model.pop(new.key, None)
            if old is None:
                model[new.key] = new
                mappings.add(new)
            else:
                mappings.discard(old)
            self.assertIs(mappings.get(program, version, "udp"), model.get(new.key))
            if not turn % 500:
                self.check(mappings, model)
        self.check(mappings, model)
        for old in model.values():
            mappings.discard(old)
        self.assertEqual((len(mappings), list(mappings)), (0, []))
        self.assertIsNone(mappings.run_after(FIRST))

    def test_ascending_runs_are_full(self) -> None:
        """Mappings that come in order leave no room in their runs."""
        mappings = Mappings()
        for program in range(3 * MAX_RUN):
            mappings.add(udp(program, 9))
        sizes: list[int] = []
        key = FIRST
        while run := mappings.run_after(key):
            sizes.append(len(run.rows))
            key = run.last
        self.assertEqual(sizes, [MAX_RUN] * 3)

    def test_change_leaves_other_runs(self) -> None:
        """A change makes one run anew; a run that was handed out stays as it is."""
        mappings = Mappings()
        for program in range(3 * MAX_RUN):
            mappings.add(udp(2 * program, 9))
        first = mappings.run_after(FIRST)
        assert first is not None
        second = mappings.run_after(first.last)
        rows = first.rows
        mappings.discard(rows[5])
        self.assertIs(mappings.run_after(first.last), second)
        self.assertIs(first.rows, rows)
        self.assertIsNot(mappings.run_after(FIRST), first)

    def test_changes_while_iterating(self) -> None:
        """What is there all the time is found once, whatever else comes and goes."""
        mappings = Mappings()
        for program in range(0, 2_000, 2):
            mappings.add(udp(program, 9))
        found: list[int] = []
        for each in mappings:
            found.append(each.program)
            if each.program % 4 == 0:
                mappings.discard(each)
                mappings.add(udp(each.program // 2 * 2 + 1, 9))
        even = [program for program in found if not program % 2]
        self.assertEqual(even, list(range(0, 2_000, 2)))

    def test_versions(self) -> None:
        """The latest version stands in for one that is not registered."""
        mappings = Mappings()
        for version in (3, 1, 2):
            mappings.add(udp(7, version))
        found = [mappings.find(7, version, "udp") for version in (1, 2, 3, 9)]
        self.assertEqual([m and m.version for m in found], [1, 2, 3, 2])
        mappings.discard(udp(7, 2))
        found = [mappings.find(7, version, netid) for version, netid in ((9, "udp"), (9, "no"))]
        self.assertEqual([m and m.version for m in found], [1, None])


class MappingsTests(RegistryTestCase):
    """Mappings that nobody holds."""

    def test_map(self) -> None:
        """A mapping is found by its key, and only by that."""
        made = udp(1, 2)
        self.registry.map(made)
        mappings = self.registry.mappings
        self.assertIs(mappings.get(1, 2, "udp"), made)
        for key in ((1, 2, "tcp"), (1, 3, "udp"), (2, 2, "udp")):
            self.assertIsNone(mappings.get(*key))

    def test_find_another_version(self) -> None:
        """The latest other version stands in for one that is not there."""
        self.registry.map(udp(1, 7), udp(1, 2), udp(2, 9))
        mappings = self.registry.mappings
        self.assertEqual(mappings.find(1, 7, "udp"), udp(1, 7))
        self.assertEqual(mappings.find(1, 5, "udp"), udp(1, 2))
        self.assertIsNone(mappings.find(1, 7, "tcp"))
        self.assertIsNone(mappings.find(3, 9, "udp"))

    def test_order(self) -> None:
        """They are listed in the order of their keys, and counted."""
        made = [udp(3, 1), udp(1, 2), udp(1, 1), mapping(1, 1, "tcp", "0.0.0.0.0.1")]
        self.registry.map(*made)
        keys = [m.key for m in self.registry.mappings]
        self.assertEqual(keys, [(1, 1, "tcp"), (1, 1, "udp"), (1, 2, "udp"), (3, 1, "udp")])
        self.assertEqual(len(self.registry.mappings), 4)

    def test_after(self) -> None:
        """A listing goes on behind any key, be it there or not."""
        made = [udp(program, 1) for program in (1, 2, 4)]
        self.registry.map(*made)
        mappings = self.registry.mappings
        self.assertEqual(list(mappings.after((0, 0, ""))), made)
        self.assertEqual(list(mappings.after((1, 1, "udp"))), made[1:])
        self.assertEqual(list(mappings.after((3, 9, "tcp"))), made[2:])
        self.assertEqual(list(mappings.after((4, 1, "udp"))), [])

    def test_listing_survives_changes(self) -> None:
        """A listing that began before a change shows what was there."""
        self.registry.map(udp(1, 1), udp(2, 1))
        listing = iter(self.registry.mappings)
        next(listing)
        self.registry.unmap(udp(2, 1))
        self.assertEqual(list(listing), [udp(2, 1)])
        self.assertEqual(list(self.registry.mappings), [udp(1, 1)])

    def test_taken(self) -> None:
        """A key is taken once; all of a refused transaction is refused."""
        self.registry.map(udp(1, 1))
        self.told.clear()
        with self.assertRaisesRegex(
            AlreadyRegistered, "program 1 version 1 on udp is mapped to .* by owner superuser"
        ):
            self.registry.map(udp(2, 1), udp(1, 1, 222), udp(3, 1))
        self.assertEqual(list(self.registry.mappings), [udp(1, 1)])
        self.assertEqual(self.told, [])

    def test_twice_in_one_transaction(self) -> None:
        """Neither may one transaction take a key twice."""
        self.assertRaises(AlreadyRegistered, self.registry.map, udp(1, 1), udp(1, 1, 222))
        self.assertEqual(len(self.registry.mappings), 0)

    def test_unmap(self) -> None:
        """What is taken out is gone, and its key is free."""
        self.registry.map(udp(1, 1), udp(1, 2), udp(1, 3))
        self.registry.unmap(udp(1, 1), udp(1, 3))
        self.assertEqual(list(self.registry.mappings), [udp(1, 2)])
        self.registry.unmap(udp(1, 2))
        self.assertIsNone(self.registry.mappings.find(1, 1, "udp"))
        self.registry.map(udp(1, 1, 222))
        self.assertEqual(len(self.registry.mappings), 1)

    def test_replace(self) -> None:
        """Another address takes the place of the first, under the same key."""
        self.registry.map(udp(1, 1))
        self.registry.replace(udp(1, 1), udp(1, 1, 222))
        self.assertEqual(list(self.registry.mappings), [udp(1, 1, 222)])


class FollowerTests(RegistryTestCase):
    """Who is told of what, and when."""

    def test_mappings(self) -> None:
        """Every transaction is told at once, a replacement as leaving and coming."""
        one, two, three = udp(1, 1), udp(2, 1), udp(2, 1, 222)
        self.registry.map(one, two)
        self.registry.replace(two, three)
        self.registry.unmap(one)
        mapped, unmapped = ChangeKind.MAPPED, ChangeKind.UNMAPPED
        self.assertEqual(
            self.told,
            [
                [ChangeRecord(mapped, one), ChangeRecord(mapped, two)],
                [ChangeRecord(unmapped, two)],
                [ChangeRecord(mapped, three)],
                [ChangeRecord(unmapped, one)],
            ],
        )

    def test_services(self) -> None:
        """So are the services of a holder, in their order, and its end."""
        holder = self.holder()
        one, two = holder.new_service("a", "1", 0), holder.new_service("b", "2", 0)
        held = udp(1, 1, holder=holder)
        self.registry.register(one, two)
        self.registry.map(held)
        self.registry.deregister(holder, ("b", "2"))
        self.registry.close(holder)
        self.assertEqual(
            self.told,
            [
                [
                    ChangeRecord(ChangeKind.REGISTERED, one),
                    ChangeRecord(ChangeKind.REGISTERED, two),
                ],
                [ChangeRecord(ChangeKind.MAPPED, held)],
                [ChangeRecord(ChangeKind.DEREGISTERED, two)],
                [ChangeRecord(ChangeKind.DEREGISTERED, one)],
                [ChangeRecord(ChangeKind.UNMAPPED, held)],
            ],
        )

    def test_told_when_done(self) -> None:
        """Whoever is told finds it done, all of the transaction."""
        counts: list[tuple[ChangeKind, int]] = []

        def look(changes: Sequence[ChangeRecord]) -> None:
            counts.append((changes[0].kind, len(self.registry.mappings)))

        self.registry.follow(look, ChangeKind.MAPPED, ChangeKind.UNMAPPED)
        self.registry.map(udp(1, 1), udp(2, 1))
        self.registry.unmap(udp(1, 1), udp(2, 1))
        self.assertEqual(counts, [(ChangeKind.MAPPED, 2), (ChangeKind.UNMAPPED, 0)])

    def test_kinds(self) -> None:
        """Only the kinds that one follows are told, in the order of following."""
        order: list[str] = []
        self.registry.follow(lambda changes: order.append("one"), ChangeKind.UNMAPPED)
        self.registry.follow(lambda changes: order.append("two"), ChangeKind.UNMAPPED)
        self.registry.map(udp(1, 1))
        self.assertEqual(order, [])
        self.registry.unmap(udp(1, 1))
        self.assertEqual(order, ["one", "two"])

    def test_end(self) -> None:
        """Who ends following is told no more, even while all are told."""
        seen: list[str] = []

        def once(changes: Sequence[ChangeRecord]) -> None:
            seen.append("once")
            end()

        end = self.registry.follow(once, *ChangeKind)
        self.registry.follow(lambda changes: seen.append("always"), ChangeKind.MAPPED)
        self.registry.map(udp(1, 1))
        self.registry.map(udp(2, 1))
        self.assertEqual(seen, ["once", "always", "always"])

    def test_nothing(self) -> None:
        """Nobody is told of nothing."""
        self.registry.map()
        self.registry.unmap()
        self.registry.register()
        self.registry.close(self.holder())
        self.assertEqual(self.told, [])


class HolderTests(RegistryTestCase):
    """Registrations live exactly as long as their holder."""

    def test_owner(self) -> None:
        """Owners are named as rpcbind names them."""
        self.assertEqual((owner_of(0), owner_of(104)), ("superuser", "104"))
        self.assertEqual(self.holder(uid=104).owner, "104")

    def test_close(self) -> None:
        """All of a holder goes with it, and nothing else."""
        holder, other = self.holder(), self.holder()
        for h, name in ((holder, "a"), (other, "b")):
            self.register(h, name)
        self.registry.map(udp(1, 1, holder=holder), udp(2, 1, holder=other), udp(3, 1))
        self.registry.close(holder)
        self.assertEqual(self.names(), ["b"])
        self.assertEqual([m.program for m in self.registry.mappings], [2, 3])
        self.assertEqual((holder.allowances.services.held, holder.allowances.mappings.held), (0, 0))

    def test_close_twice(self) -> None:
        """A holder ends once."""
        holder = self.holder()
        self.register(holder, "a")
        self.registry.close(holder)
        told = list(self.told)
        self.registry.close(holder)
        self.assertEqual(self.told, told)

    def test_unmap_of_a_held_mapping(self) -> None:
        """What was taken out before does not stand in the way of the end."""
        holder = self.holder()
        held = udp(1, 1, holder=holder)
        self.registry.map(held)
        self.registry.unmap(held)
        self.assertEqual((holder.mappings, holder.allowances.mappings.held), ({}, 0))
        self.registry.map(udp(1, 1))
        self.registry.close(holder)
        self.assertEqual(list(self.registry.mappings), [udp(1, 1)])

    def test_taken_by_a_holder(self) -> None:
        """The message names the process that holds a mapping."""
        self.registry.map(udp(1, 1, holder=self.holder(pid=77)))
        with self.assertRaisesRegex(AlreadyRegistered, "by uid 104, pid 77"):
            self.registry.map(udp(1, 1))

    def test_holders_of_a_process(self) -> None:
        """A process may have several holders, each until it is closed."""
        one, two, other = self.holder(pid=1), self.holder(pid=1), self.holder(pid=2)
        self.assertEqual(list(self.registry.holders_of(1)), [one, two])
        self.registry.close(one)
        self.assertEqual(list(self.registry.holders_of(1)), [two])
        self.registry.close(two)
        self.assertEqual(list(self.registry.holders_of(1)), [])
        self.assertEqual(list(self.registry.holders_of(2)), [other])

    def test_holders_in_order(self) -> None:
        """Holders are listed from any serial on."""
        holders = [self.holder() for _ in range(4)]
        self.registry.close(holders[1])
        left = list(self.registry.holders_after(holders[1].serial))
        self.assertEqual(left, holders[2:])

    def test_allowance(self) -> None:
        """A process may hold so many, all its connections together, and not one more."""
        one = self.holder(limit=3)
        two = self.registry.open(sibling(one))
        self.register(one, "a", "b")
        told = r"may hold 3 services \(--max-services\).* holds 2 and asks for 2 more"
        with self.assertRaisesRegex(LimitExceeded, told):
            self.register(two, "c", "d")
        self.register(two, "c")
        self.assertRaises(LimitExceeded, self.register, one, "d")
        self.registry.close(one)
        self.register(two, "d", "e")
        self.assertEqual(self.names(), ["c", "d", "e"])

    def test_mappings_count_apart(self) -> None:
        """A held mapping counts among the mappings, and takes no service's place."""
        holder = self.holder(limit=1)
        self.registry.map(udp(1, 1, holder=holder))
        with self.assertRaisesRegex(LimitExceeded, r"may hold 1 mappings \(--max-mappings\)"):
            holder.allowances.mappings.check(1)
        self.register(holder, "a")
        self.assertRaises(LimitExceeded, self.register, holder, "b")
        self.registry.close(holder)
        self.assertEqual((holder.allowances.services.held, holder.allowances.mappings.held), (0, 0))


def sibling(holder: Holder) -> Holder:
    """Another connection of the same process."""
    return Holder(holder.uid, holder.pid, holder.exe, holder.allowances)
