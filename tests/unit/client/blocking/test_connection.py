"""A connection that blocks: answers, events, and whatever interrupts them."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader
from portmapd.client.blocking.connection import Dialer, SyncConnection, run
from portmapd.client.blocking.deadline import Deadline
from portmapd.client.core.channel_protocol import OVERFLOW, Overflow
from portmapd.client.values import Change, Service
from portmapd.errors import (
    BadArguments,
    CallTimedOut,
    DaemonUnreachable,
    LimitExceeded,
    Terminated,
    UnsupportedVersion,
)

EVENT = c.encode_event("registered", c.SERVICE_ROW, ("a", 104, 7, "80", ""))
GREETING = {"version": 1, "instance": "x", "limit": 1, "uid": 0, "pid": 1}
CHANGE = Change("registered", Service("a", 104, 7, 80, ""))


async def waits_for_nothing() -> str:
    """Give a result."""
    return "done"


async def fails() -> None:
    """Raise an error."""
    raise ZeroDivisionError


class Waits:
    """What only an event loop could wait for."""

    def __await__(self) -> Any:
        yield


async def waits() -> None:
    """Wait for it."""
    await Waits()


class RunTests(SynchronousTestCase):
    """The driver of coroutines."""

    def test_result(self) -> None:
        """It gives the result, or raises the error."""
        self.assertEqual(run(waits_for_nothing()), "done")
        self.assertRaises(ZeroDivisionError, run, fails())

    def test_waiting(self) -> None:
        """A coroutine that waits for an event loop is refused."""
        self.assertRaises(RuntimeError, run, waits())


class SyncConnectionTests(SynchronousTestCase):
    """A connection on a pair of sockets."""

    def setUp(self) -> None:
        self.events: list[Change | Overflow] = []
        skt, self.daemon = socket.socketpair(socket.AF_UNIX)
        skt.setblocking(False)
        self.connection = SyncConnection("/s", skt, Deadline(0.2), self.events.append)
        self.addCleanup(self.connection.close)
        self.addCleanup(self.daemon.close)
        self.greeted()

    def greeted(self) -> None:
        """Have the daemon answer the greeting, which comes with the first command."""
        self.assertEqual(self.ask(lambda box: c.UNWATCH.reply(box[b"_ask"], {}), c.UNWATCH, 2), {})

    def ask(
        self, answer: Callable[[Box], bytes], command: c.Command = c.UNWATCH, boxes: int = 1
    ) -> Any:
        """Ask a command; the daemon sends what *answer* makes of it.

        :param boxes: how many come at once; all but the last one are greetings.
        """

        def serve() -> None:
            *greetings, box = BoxReader().feed(self.daemon.recv(65_536))
            self.assertEqual(len(greetings), boxes - 1)
            for greeting in greetings:
                self.daemon.sendall(c.HELLO.reply(greeting[b"_ask"], GREETING))
            if data := answer(box):
                self.daemon.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return run(self.connection.ask(command, {}))
        finally:
            thread.join()

    def test_answer(self) -> None:
        """The answer is given by name; events before it are told, late answers ignored."""
        late = c.UNWATCH.reply(b"77", {})
        answer = self.ask(
            lambda box: late + EVENT + c.LIST.reply(box[b"_ask"], {"services": []}), c.LIST
        )
        self.assertEqual(answer, {"services": [], "more": None})
        self.assertEqual(self.events, [CHANGE])

    def test_refusal(self) -> None:
        """A refusal is raised, and the connection stays."""
        with self.assertRaises(LimitExceeded):
            self.ask(lambda box: c.encode_refusal(box[b"_ask"], LimitExceeded("10")))
        self.assertTrue(self.connection.is_idle)
        self.assertEqual(self.ask(lambda box: c.UNWATCH.reply(box[b"_ask"], {})), {})

    def test_bad_arguments(self) -> None:
        """An argument that cannot be sent is refused, and the connection stays."""
        with self.assertRaises(BadArguments):
            run(self.connection.ask(c.LIST, {"names": [7]}))
        self.assertTrue(self.connection.is_idle)

    def test_interrupted(self) -> None:
        """Whatever else interrupts a command closes the connection."""
        readable, writable = os.pipe()
        self.addCleanup(os.close, readable)
        os.close(writable)
        for deadline, kind in (
            (Deadline(0.01), CallTimedOut),
            (Deadline(None, readable), Terminated),
        ):
            self.setUp()
            self.connection.deadline = deadline
            self.assertRaises(kind, run, self.connection.ask(c.UNWATCH, {}))
            self.assertFalse(self.connection.is_own)
            self.assertRaises(DaemonUnreachable, self.connection.check)

    def test_lost(self) -> None:
        """The end of the connection is told as such, whenever it comes."""
        self.connection.check()

        def hang_up(box: Box) -> bytes:
            self.daemon.shutdown(socket.SHUT_WR)
            return b""

        with self.assertRaises(DaemonUnreachable) as caught:
            self.ask(hang_up)
        self.assertIn("at /s was lost", str(caught.exception))
        self.assertRaises(DaemonUnreachable, run, self.connection.ask(c.UNWATCH, {}))

    def test_something_else(self) -> None:
        """What is not a portmapd closes the connection."""
        with self.assertRaises(DaemonUnreachable) as caught:
            self.ask(lambda box: b"220 mail.example.com ESMTP\r\n")
        self.assertIn("/s is not a portmapd", str(caught.exception))
        self.assertFalse(self.connection.is_own)

    def test_listen(self) -> None:
        """An event is waited for, and told."""
        self.daemon.sendall(EVENT + c.OVERFLOW_BOX)
        self.connection.listen()
        self.assertEqual(self.events, [CHANGE])
        self.connection.listen()
        self.assertEqual(self.events, [CHANGE, OVERFLOW])
        self.assertRaises(CallTimedOut, self.connection.listen)

    def test_large_command(self) -> None:
        """A command that does not fit the socket's buffer is sent as the daemon reads."""
        names = ["a" * 250] * 250
        received: list[Box] = []

        def serve() -> None:
            reader = BoxReader()
            while not received:
                received.extend(reader.feed(self.daemon.recv(1_000)))
            self.daemon.sendall(c.WATCH.reply(received[0][b"_ask"], {}))

        self.daemon.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self.connection.deadline = Deadline(10)
        thread = threading.Thread(target=serve)
        thread.start()
        self.assertEqual(run(self.connection.ask(c.WATCH, {"names": names})), {})
        thread.join()

    def test_idle(self) -> None:
        """With something to read, such as the end, it is not idle; nor when it is closed."""
        self.assertTrue(self.connection.is_idle)
        self.daemon.close()
        self.assertFalse(self.connection.is_idle)
        self.connection.close()
        self.assertFalse(self.connection.is_idle)
        self.assertEqual(self.connection.fileno(), -1)

    def test_shut_down(self) -> None:
        """It ends the connection, and leaves the descriptor to who waits for it."""
        self.connection.shut_down()
        self.assertEqual(self.daemon.recv(1), b"")
        self.assertGreaterEqual(self.connection.fileno(), 0)
        self.connection.shut_down()

    def test_order(self) -> None:
        """Work is done one after the other, and sleeping takes its time."""

        async def work() -> list[str]:
            await self.connection.sleep(0.001)
            return await self.connection.gather([waits_for_nothing(), waits_for_nothing()])

        self.assertEqual(run(work()), ["done", "done"])


class OpenTests(SynchronousTestCase):
    """Connecting to a daemon."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name) / "s")
        self.server = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.server.close)
        self.server.bind(self.path)

    def open(self, answer: Callable[[bytes], bytes], timeout: float = 10) -> SyncConnection:
        """Connect and ask; the daemon answers the greeting, and then the command."""
        self.server.listen()

        def serve() -> None:
            skt, _ = self.server.accept()
            self.addCleanup(skt.close)
            greeting, box = BoxReader().feed(skt.recv(65_536))
            self.assertEqual((greeting[b"_command"], box[b"_command"]), (b"Hello", b"Unwatch"))
            if data := answer(greeting[b"_ask"]):
                skt.sendall(data + c.UNWATCH.reply(box[b"_ask"], {}))

        thread = threading.Thread(target=serve)
        thread.start()
        connection = run(SyncConnection.open(self.path, Deadline(timeout)))
        self.addCleanup(connection.close)
        try:
            self.assertEqual(run(connection.ask(c.UNWATCH, {})), {})
        finally:
            thread.join()
            self.last = connection
        return connection

    def test_greeting(self) -> None:
        """The daemon is greeted before anything else."""
        self.assertTrue(self.open(lambda tag: c.HELLO.reply(tag, GREETING)).is_own)

    def test_refused(self) -> None:
        """If the daemon refuses the greeting, that is raised, and the connection closed."""
        refusal = UnsupportedVersion("version 1: this daemon speaks 2")
        with self.assertRaises(UnsupportedVersion):
            self.open(lambda tag: c.encode_refusal(tag, refusal))
        self.assertFalse(self.last.is_own)

    def test_silence(self) -> None:
        """A daemon that does not answer runs out of time."""
        with self.assertRaises(CallTimedOut):
            self.open(lambda tag: b"", 0.1)

    def test_nobody(self) -> None:
        """Where nobody listens there is no daemon."""
        with self.assertRaises(DaemonUnreachable):
            run(SyncConnection.open(self.path, Deadline(1)))

    def test_dial_in_time(self) -> None:
        """A terminator that is readable already lets nothing begin."""
        self.server.listen()
        readable, writable = os.pipe()
        self.addCleanup(os.close, readable)
        os.close(writable)
        dialer = Dialer(Deadline(1, readable))
        self.assertRaises(Terminated, run, dialer.dial(self.path, 1))
