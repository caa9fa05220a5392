"""Mappings by place: each is found where its service may be bound, and nowhere else."""

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from portmapd.registry.mapping import Mapping, mapping
from portmapd.registry.places import Places

NETIDS = {"udp": "0.0.0.0.0.{}", "tcp6": "::.0.{}", "local": "/run/{}"}


def place(made: Mapping) -> int | str:
    """Where the service of a mapping is."""
    return made.port or made.address


class PlacesTests(SynchronousTestCase):
    """Mappings that come and go."""

    def test_model(self) -> None:
        """Every place has the mappings that were put there, in the order of their keys."""
        random, places = Random(1), Places()
        inside: set[int] = set()
        made = [
            mapping(program, version, netid, address.format(port))
            for program in range(4)
            for version in range(3)
            for netid, address in NETIDS.items()
            for port in (1, 2)
        ]
        for _ in range(2_000):
            number = random.randrange(len(made))
            if number in inside:
                places.discard(made[number])
            else:
                places.add(made[number])
            inside ^= {number}
            one = made[random.randrange(len(made))]
            there = [
                each
                for at, each in enumerate(made)
                if at in inside and each.netid == one.netid and place(each) == place(one)
            ]
            found = places.at(one.netid, place(one))
            self.assertEqual([m.key for m in found], sorted(m.key for m in there))
        for number in inside:
            places.discard(made[number])
        self.assertEqual([places.places(netid) for netid in NETIDS], [{}, {}, {}])

    def test_twice(self) -> None:
        """A mapping is in once; to take out what is not in does nothing."""
        places = Places()
        one, other = (mapping(program, 1, "udp", "0.0.0.0.0.9") for program in (1, 2))
        places.discard(one)
        for each in (one, one, other, one):
            places.add(each)
        self.assertEqual(list(places.at("udp", 9)), [one, other])
        places.discard(mapping(1, 1, "udp", "0.0.0.0.0.9"))
        self.assertEqual(list(places.at("udp", 9)), [one, other])

    def test_same_key(self) -> None:
        """A mapping that takes the place of an equal one is another one."""
        places = Places()
        old, new = (mapping(1, 1, "udp", "0.0.0.0.0.9") for _ in range(2))
        places.add(old)
        places.add(new)
        places.discard(old)
        (left,) = places.at("udp", 9)
        self.assertIs(left, new)
