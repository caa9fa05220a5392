"""Connections that a service manager keeps, once a second, as far as they have changed."""

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.server.channel import ChannelProtocol
from portmapd.server.handover.keeping import MAX_KEPT, PERIOD, Keeping
from portmapd.server.handover.passed import Descriptors
from portmapd.server.handover.store import NAME, DescriptorStore, take_kept
from tests.support.service_manager import THERE, Manager


class Connections:
    """Connections without a socket.

    :ivar there: each with its holder.
    :ivar images: how many images were made of them.
    """

    def __init__(self) -> None:
        self.there: dict[ChannelProtocol, Holder] = {}
        self.images = 0

    def keepable(self, limit: int) -> Mapping[ChannelProtocol, Holder]:
        """All of them."""
        assert limit == MAX_KEPT
        return dict(self.there)

    def pass_on_local(
        self, channels: Mapping[ChannelProtocol, Holder], descriptors: Descriptors
    ) -> Mapping[str, Any]:
        """Their serials."""
        self.images += 1
        serials = [holder.serial for holder in channels.values()]
        return {"own": 1, "listening": [], "registry": {}, "serials": serials}


class KeepingTests(SynchronousTestCase):
    """Two connections that hold something."""

    def setUp(self) -> None:
        self.manager = Manager()
        self.addCleanup(self.manager.close, NAME)
        self.registry = Registry()
        self.clock = Clock()
        self.connections = Connections()
        store = DescriptorStore(THERE, self.manager.send)
        self.keeping = Keeping(store, self.clock, self.connections, self.registry)
        self.first, self.second = self.connect(), self.connect()
        self.keeping.startService()

    def connect(self) -> ChannelProtocol:
        """A further connection, whose holder has a name and a mapping."""
        channel = ChannelProtocol()
        holder = self.registry.open(Holder(104, len(self.connections.there) + 1, "/bin/service"))
        self.registry.register(holder.new_service(f"name{holder.serial}", "80", 2))
        self.registry.map(mapping(holder.serial, 1, "udp", "127.0.0.1.3.9", holder=holder))
        self.connections.there[channel] = holder
        return channel

    def kept(self) -> tuple[list[int], frozenset[int]] | None:
        """The serials of the last image and the places that are marked, as after a crash."""
        taken = take_kept(self.manager.kept)
        self.manager.kept = []
        if taken is None:
            return None
        self.addCleanup(taken.received.close)
        return taken.data["serials"], taken.touched

    def look(self) -> None:
        """Let the time between two looks pass."""
        self.clock.advance(PERIOD)

    def assert_marked(self, lost: ChannelProtocol) -> None:
        """The next process sees a mark of that connection alone."""
        self.assertEqual(self.kept(), ([1, 2], {list(self.connections.there).index(lost)}))

    def test_once(self) -> None:
        """An image is made at the first look, and none while nothing changes."""
        self.assertIsNone(self.kept())
        self.look()
        self.look()
        self.assertEqual(self.connections.images, 1)
        self.assertEqual(self.kept(), ([1, 2], frozenset()))

    def test_heard(self) -> None:
        """A connection that says anything is marked until the next look."""
        self.look()
        assert self.second.touched is not None
        self.second.touched()
        self.assert_marked(self.second)
        self.look()
        self.assertEqual(self.kept(), ([1, 2], frozenset()))

    def test_came_and_went(self) -> None:
        """A connection that came, or that holds nothing any more, makes another image."""
        self.look()
        self.connect()
        self.look()
        self.assertEqual(self.kept(), ([1, 2, 3], frozenset()))
        del self.connections.there[self.first]
        self.look()
        self.assertEqual(self.kept(), ([2, 3], frozenset()))
        self.assertIsNone(self.first.touched)

    def test_unset(self) -> None:
        """A connection is marked whose mapping the superuser unsets."""
        self.look()
        (unset,) = [each for each in self.registry.mappings if each.program == 1]
        self.registry.unmap(unset)
        self.assert_marked(self.first)

    def test_name_lost(self) -> None:
        """A connection is marked whose name is another machine's now."""
        self.look()
        self.registry.deregister(self.connections.there[self.second], ("name2", "80"))
        self.assert_marked(self.second)

    def test_executable_cleared(self) -> None:
        """A connection is marked whose process runs another program now."""
        self.look()
        self.registry.clear_executable(self.connections.there[self.first])
        self.assert_marked(self.first)

    def test_nothing_to_keep(self) -> None:
        """Without connections the manager keeps nothing."""
        self.look()
        self.connections.there.clear()
        self.look()
        self.assertIsNone(self.kept())

    def test_end(self) -> None:
        """After the end nothing is kept, and nothing is marked."""
        self.look()
        self.keeping.stopService()
        self.assertIsNone(self.kept())
        self.assertIsNone(self.first.touched)
        self.registry.deregister(self.connections.there[self.first], ("name1", "80"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_manager_takes_nothing(self) -> None:
        """If the manager takes nothing, it is asked again at each look."""
        self.manager.is_there = False
        self.look()
        self.assertIsNone(self.first.touched)
        self.manager.is_there = True
        self.look()
        self.assertEqual(self.kept(), ([1, 2], frozenset()))
