"""What a port mapper registers of itself."""

import os

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.commands import ITSELF
from portmapd.errors import ConfigurationError
from portmapd.registry.change import ChangeKind
from portmapd.registry.registry import Registry
from portmapd.server.own_entries import OwnEntries

ADDRESSES = {"udp": "0.0.0.0.0.111", "local": "/run/rpcbind.sock"}
SOCKET = "/run/portmapd/socket"


class OwnEntriesTests(SynchronousTestCase):
    """Program 100000 and the local channel in the registry."""

    def setUp(self) -> None:
        self.registry = Registry()
        self.entries = OwnEntries(self.registry, ADDRESSES, SOCKET)

    def mappings(self) -> list[tuple[int, str]]:
        return sorted((each.version, each.netid) for each in self.registry.mappings)

    def services(self) -> list[tuple[str, str | int]]:
        return [(each.name, each.port) for each in self.registry.services()]

    def test_register(self) -> None:
        """Every version is listed at every address, and the channel by its path."""
        self.entries.register()
        wanted = [(version, netid) for version in (2, 3, 4) for netid in ("local", "udp")]
        self.assertEqual(self.mappings(), wanted)
        self.assertEqual(self.services(), [(ITSELF, SOCKET)])

    def test_register_twice(self) -> None:
        """Registering again changes nothing."""
        self.entries.register()
        serial = self.entries.serial
        self.entries.register()
        self.assertEqual(self.entries.serial, serial)

    def test_second_port_mapper(self) -> None:
        """Another port mapper in the same registry is refused, and leaves nothing there."""
        self.entries.register()
        before = self.mappings()
        other = OwnEntries(self.registry, {"udp": "0.0.0.0.39.127"}, None)
        with self.assertRaisesRegex(ConfigurationError, "one registry can have one port mapper"):
            other.register()
        self.assertEqual(self.mappings(), before)
        self.assertEqual(len(list(self.registry.holders_after(0))), 1)

    def test_close(self) -> None:
        """Nothing is left; closing again does no harm."""
        self.entries.register()
        self.entries.close()
        self.entries.close()
        self.assertEqual((self.mappings(), self.services()), ([], []))

    def moved(self, addresses: dict[str, str], local_socket: str | None) -> list[ChangeKind]:
        """The changes when a process takes over that serves there."""
        self.entries.register()
        (service,) = self.registry.services()
        self.registry.move(service.holder, 65_534, 1)
        changes: list[ChangeKind] = []
        self.registry.follow(lambda batch: changes.extend(c.kind for c in batch), *ChangeKind)
        entries = OwnEntries(self.registry, addresses, local_socket)
        entries.take_over(service.holder)
        entries.move()
        return changes

    def test_move(self) -> None:
        """A process that serves the same is the holder from then on; no mapping goes or comes."""
        changes = self.moved(dict(ADDRESSES), SOCKET)
        self.assertEqual(changes, [ChangeKind.DEREGISTERED, ChangeKind.REGISTERED])
        (service,) = self.registry.services()
        self.assertEqual((service.holder.uid, service.holder.pid), (os.geteuid(), os.getpid()))

    def test_move_elsewhere(self) -> None:
        """Another process that serves elsewhere registers what it serves."""
        changes = self.moved({"udp": "0.0.0.0.0.111"}, None)
        self.assertLessEqual({ChangeKind.UNMAPPED, ChangeKind.MAPPED}, set(changes))
        self.assertEqual(self.mappings(), [(2, "udp"), (3, "udp"), (4, "udp")])
        self.assertEqual(self.services(), [])
