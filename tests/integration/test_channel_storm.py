"""Thousands of connections that come, and end, at once."""

import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import Pmap, encode_pmap
from portmapd.oncrpc.xdr import uint
from tests.support.exchange import connect, exchange, question
from tests.support.namespace import eventually
from tests.support.talk import Served

PROCESSES = 5
#: Five thousand connections in all; fewer where the limits do not allow as many.
EACH = min(1_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 3 // 4 - 100) // PROCESSES)

#: The mapping that is asked for: the port mapper's own.
OWN = encode_pmap(Pmap(100000, 2, 17, 0))


class Asker:
    """Asks for a port over UDP, again and again.

    :ivar answered: how often it was answered.
    """

    def __init__(self, port: int) -> None:
        self._skt = connect(socket.SOCK_DGRAM, "127.0.0.1", port)
        self._port = uint(port)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answered = 0
        self.failure: Exception | None = None

    def _ask(self) -> None:
        try:
            while not self._stopped.is_set():
                asked = question(2, 3, OWN)
                assert decode_reply(exchange(self._skt, asked)) == self._port
                self.answered += 1
        except Exception as error:  # It is for the test to raise.
            self.failure = error

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask in the block; every question must be answered."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()
            self._skt.close()
        if self.failure is not None:
            raise self.failure


@pytest.mark.options("--max-services", str(EACH))
def test_storm(channel: Served) -> None:
    """Five thousand connections register, and are killed: none is left, and UDP is answered."""
    asker = Asker(channel.daemon.port)
    before = channel.daemon.descriptors
    with ExitStack() as stack, channel.talk() as talk, asker.asking():
        processes = [stack.enter_context(channel.registrant()) for _ in range(PROCESSES)]
        for process in processes:
            process.ask("crowd", channel.path, EACH)
        assert [process.told() for process in processes] == [EACH] * PROCESSES
        names = [f"crowd.{process.pid}.{n}" for process in processes for n in range(EACH)]
        assert sorted(talk.names()) == sorted(names)
        quiet = asker.answered
        eventually(lambda: asker.answered > quiet, "UDP is answered among so many")
        for process in processes:
            process.kill()
        eventually(lambda: not talk.names(), "all registrations are gone")
        assert talk.hello()["pid"] == os.getpid()
    assert asker.answered > 100
    eventually(lambda: channel.daemon.descriptors <= before, "its descriptors are closed")
