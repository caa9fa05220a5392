"""Batches of datagrams: how many a turn takes in."""

import socket
from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from portmapd.portmapper.traffic import Traffic
from portmapd.server.fast import recvmmsg
from portmapd.server.fast.recvmmsg import SLOTS, TURN, Batch


class TurnTests(SynchronousTestCase):
    """A turn is bounded in time, too."""

    def setUp(self) -> None:
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for skt in (self.server, self.client):
            self.addCleanup(skt.close)
        self.server.bind(("127.0.0.1", 0))
        self.server.setblocking(False)
        self.client.connect(self.server.getsockname())
        self.batch = Batch(self.server, informed=False, traffic=Traffic())

    def turn(self, took: float) -> int:
        """How many datagrams a turn takes in that lasts so long."""
        times = count(step=took)
        self.patch(recvmmsg, "monotonic", lambda: 1 + next(times))
        taken: list[bytes] = []
        self.batch.serve({}, lambda message, *_: taken.append(message))
        return len(taken)

    def send(self, datagrams: int) -> None:
        """Send so many."""
        for _ in range(datagrams):
            self.client.send(b"call")

    def test_fewer(self) -> None:
        """After a turn that took too long, the next one takes in half, but always one."""
        self.send(128)
        turns = [self.turn(2 * TURN) for _ in range(9)]
        self.assertEqual(turns, [64, 32, 16, 8, 4, 2, 1, 1, 0])

    def test_more(self) -> None:
        """After short turns, it takes in as many as before."""
        self.send(208)
        self.turn(2 * TURN)
        self.turn(2 * TURN)
        self.assertEqual([self.turn(TURN / 2) for _ in range(3)], [16, 32, SLOTS])
