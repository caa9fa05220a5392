"""What is passed on of each socket."""

import json
import os
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.config import Config
from portmapd.errors import InvalidState
from portmapd.server.handover.passed import (
    Descriptors,
    PassedConnection,
    PassedStream,
    PassedWatch,
    Received,
)
from portmapd.server.handover.taken_over import TakenOver

STREAM = PassedStream(3, b"\0in", b"out\xff", "it is broken", True)
WATCH = PassedWatch(["a"], True, b"\0event", False)
CONNECTION = PassedConnection(STREAM, 1, True, 7, WATCH, [b"\0tag"])


class RowTests(SynchronousTestCase):
    """Rows of JSON."""

    def test_round_trip(self) -> None:
        """Everything comes back."""
        for value in (STREAM, WATCH, CONNECTION, PassedConnection(STREAM, None, False, None, None)):
            row = json.loads(json.dumps(value.encode()))
            again = type(value).decode(row)
            self.assertEqual(again.encode(), value.encode())

    def test_malformed(self) -> None:
        """Rows that lack something, or have something else in its place, are refused."""
        for value in (STREAM, WATCH, CONNECTION):
            row = value.encode()
            for wrong in (row[:-1], [*row, 1], None, 7, [], [None] * len(row)):
                with self.assertRaises(InvalidState):
                    type(value).decode(wrong)  # type: ignore[arg-type]


class ReceivedTests(SynchronousTestCase):
    """Descriptors that have come."""

    def setUp(self) -> None:
        self.read, self.write = os.pipe()

    def test_taken_once(self) -> None:
        """Each is taken once, in its place."""
        received = Received([self.read, self.write])
        self.assertEqual(received.take(1), self.write)
        for place in (1, 2, "0"):
            with self.assertRaisesRegex(InvalidState, "there is no descriptor"):
                received.take(place)  # type: ignore[arg-type]
        os.close(self.write)
        received.close()
        with self.assertRaises(OSError):
            os.fstat(self.read)

    def test_no_socket(self) -> None:
        """What is no socket is closed, and refused."""
        received = Received([self.read])
        with self.assertRaisesRegex(InvalidState, "descriptor 0 is no socket"):
            received.socket(0)
        with self.assertRaises(OSError):
            os.fstat(self.read)
        os.close(self.write)


class SocketTests(SynchronousTestCase):
    """Listening sockets, as a new process serves them."""

    def setUp(self) -> None:
        self.descriptors = Descriptors()
        self.config = Config(port=1111, interfaces=["127.0.0.1"], rpc_socket="/r", state=None)

    def taken(self, kind: str, place: str, port: int | None, *, is_made: bool) -> TakenOver:
        """What another process has passed on."""
        row = {
            "kind": kind,
            "place": place,
            "port": port,
            "descriptors": [self.descriptors.add(socket.socket().detach())],
            "is_made": is_made,
        }
        received = Received(self.descriptors.numbers)
        self.addCleanup(received.close)
        return TakenOver({"listening": [row]}, received)

    def test_handed_in(self) -> None:
        """A service manager's are that again, and decide what is served by default."""
        sockets = self.taken("tcp", "192.0.2.1", 1111, is_made=False).handed_in()
        self.assertEqual(sockets.options["interfaces"], ("192.0.2.1",))
        self.assertEqual(sockets.made, set())
        for skt in (*sockets.tcp.values(),):
            skt[0].close()

    def test_made(self) -> None:
        """A process's own are served as far as the options say so now."""
        for kind, place, port, count in (
            ("tcp", "127.0.0.1", 1111, 1),
            ("tcp", "127.0.0.1", 1112, 0),
            ("tcp", "192.0.2.1", 1111, 0),
            ("rpc", "/r", None, 1),
            ("rpc", "\0/r", None, 1),
            ("rpc", "/other", None, 0),
        ):
            taken = self.taken(kind, place, port, is_made=True)
            sockets = taken.handed_in()
            self.assertEqual(sockets.options, {})
            taken.add_made(sockets, self.config)
            found = [*sockets.tcp.values(), [*sockets.rpc.values()]]
            self.assertEqual(sum(map(len, found)), count, place)
            # Their files are removed in the end, unlike those of a service manager.
            self.assertEqual(sockets.made, {(kind, place)} if count else set())
            for skt in (each for sockets_of_one in found for each in sockets_of_one):
                skt.close()

    def test_malformed(self) -> None:
        """Other rows are refused."""
        wrong: list[dict[str, Any]] = [{}, {"listening": None}, {"listening": [{}]}]
        for data in (*wrong, {"listening": [{"kind": "x"}]}):
            with self.assertRaisesRegex(InvalidState, "the sockets cannot be read"):
                TakenOver(data, Received([])).handed_in()
