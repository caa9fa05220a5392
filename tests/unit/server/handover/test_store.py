"""What a service manager keeps, and gives back."""

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidState
from portmapd.server.handed_in_sockets import HandedInDescriptor
from portmapd.server.handover.image import encode_image
from portmapd.server.handover.marks import Marks
from portmapd.server.handover.passed import Descriptors, PassedConnection, PassedStream, PassedWatch
from portmapd.server.handover.store import NAME, VARIABLE, DescriptorStore, take_kept
from portmapd.server.handover.taken_over import TakenOver
from tests.support.service_manager import THERE, Manager

WHOLE = {"own": 1, "listening": [], "registry": {}}


class StoreTests(SynchronousTestCase):
    """An image, with descriptors, over the end of a process."""

    def setUp(self) -> None:
        self.manager = Manager()
        self.addCleanup(self.manager.close, NAME)
        self.store = DescriptorStore(THERE, self.manager.send)
        self.descriptors = Descriptors()
        self.marks = Marks(3)
        self.addCleanup(self.marks.close)

    def keep(self, image: dict[str, object]) -> bool:
        """Have an image kept."""
        return self.store.keep(image, self.descriptors, self.marks)

    def taken(self) -> TakenOver:
        """What the next process gets."""
        kept, self.manager.kept = self.manager.kept, []
        taken = take_kept(kept)
        assert taken is not None
        self.addCleanup(taken.received.close)
        return taken

    def pair(self) -> tuple[socket.socket, int]:
        """One end of a connection, and the place of the other one among the descriptors."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        near.settimeout(5)
        return near, self.descriptors.add(far.fileno())

    def test_is_there(self) -> None:
        """There is one if the manager says for how many descriptors it has room."""
        for environ in ({}, {VARIABLE: "4"}, {**THERE, VARIABLE: "0"}, {**THERE, VARIABLE: "x"}):
            self.assertFalse(DescriptorStore(environ).is_there, environ)
        self.assertTrue(DescriptorStore(THERE).is_there)

    def test_kept(self) -> None:
        """An image of any length and hundreds of descriptors are kept, as one descriptor."""
        ends = [self.pair() for _ in range(400)]
        self.assertTrue(self.keep({**WHOLE, "long": "x" * 3_000_000}))
        self.assertEqual(len(self.manager.kept), 1)
        taken = self.taken()
        self.assertEqual((taken.data["long"], taken.is_whole), ("x" * 3_000_000, True))
        for near, place in ends:
            with taken.received.socket(place) as skt:
                skt.send(b"here")
            self.assertEqual(near.recv(9), b"here")

    def test_replaced(self) -> None:
        """Another image takes the place of the first; after a clearing there is none."""
        self.keep({**WHOLE, "own": 1})
        self.keep({**WHOLE, "own": 2})
        self.assertEqual(len(self.manager.kept), 1)
        self.assertEqual(self.taken().data["own"], 2)
        self.keep(WHOLE)
        self.store.clear()
        self.assertIsNone(take_kept(self.manager.kept))

    def test_no_manager(self) -> None:
        """Nothing is kept if the manager does not take it."""
        store = DescriptorStore(THERE, Manager(is_there=False).send)
        self.assertFalse(store.keep(WHOLE, self.descriptors, self.marks))

    def test_others(self) -> None:
        """The sockets of a socket unit are left alone."""
        kept = HandedInDescriptor(os.dup(self.marks.fileno()), "udp")
        self.addCleanup(os.close, kept.number)
        self.assertIsNone(take_kept([kept]))
        os.fstat(kept.number)

    def test_unusable(self) -> None:
        """What is no image is closed, and the error says why."""
        near, far = socket.socketpair()
        near.close()
        file = os.memfd_create("image")
        os.write(file, encode_image(WHOLE))
        for number, why in ((far.detach(), "has ended"), (file, "not in a socket")):
            error = self.assertRaises(InvalidState, take_kept, [HandedInDescriptor(number, NAME)])
            self.assertIn(why, str(error))
            self.assertRaises(OSError, os.fstat, number)

    def test_touched(self) -> None:
        """After a crash, a connection that was touched is closed, with what it held."""
        ends = [self.pair() for _ in range(3)]
        watch = PassedWatch(["a"], is_on=True, events=b"", has_overflowed=False)
        rows = [
            PassedConnection(PassedStream(place), None, False, serial, watch).encode()
            for serial, (_, place) in enumerate(ends, 11)
        ]
        registry = {
            "serial": 13,
            "holders": [[serial, 0, 1, "", 1] for serial in (11, 12, 13)],
            "services": [[serial, f"n{serial}", "80", 0, 1] for serial in (11, 12, 13)],
            "held": [[12, 100_003, 3, "tcp", "0.0.0.0.8.1", "0"]],
        }
        streams = {"instance": "i", "processes": [], "connections": rows}
        self.keep({"listening": [{"kind": "channel", "streams": streams}], "registry": registry})
        self.marks.mark(1)
        taken = self.taken()
        self.assertFalse(taken.is_whole)
        self.assertEqual([row[0] for row in taken.data["registry"]["holders"]], [11, 13])
        self.assertEqual([row[1] for row in taken.data["registry"]["services"]], ["n11", "n13"])
        self.assertEqual(taken.data["registry"]["held"], [])
        left = [
            PassedConnection.decode(row)
            for row in taken.data["listening"][0]["streams"]["connections"]
        ]
        self.assertEqual([each.holder for each in left], [11, 13])
        self.assertTrue(all(each.watch and each.watch.has_overflowed for each in left))
        self.assertEqual(ends[1][0].recv(9), b"")
        for near, _ in (ends[0], ends[2]):
            near.setblocking(False)
            self.assertRaises(BlockingIOError, near.recv, 9)
