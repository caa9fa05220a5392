"""How the daemon ends: what has arrived is answered, nothing is left, and it takes no second."""

import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from portmapd.channel import commands as c
from portmapd.oncrpc.record import mark
from tests.support.exchange import connect, question
from tests.support.talk import Served

#: How many local clients there are when it ends; ``PORTMAPD_CONNECTIONS=10000`` for long.
CONNECTIONS = int(os.environ.get("PORTMAPD_CONNECTIONS", "1000"))
WATCHERS = CONNECTIONS // 10
#: What has arrived when it ends: more than one turn takes in.
DATAGRAMS, STREAMS, CALLS = 150, 30, 10
NULL = question(2, 0)
#: The size of the reply to that.
REPLY = 24


def received(skt: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    parts = []
    while part := skt.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_answers_first(channel: Served) -> None:
    """Requests that have arrived before SIGTERM are answered; then the connections are closed."""
    daemon = channel.daemon
    with ExitStack() as stack:
        udp = stack.enter_context(connect(socket.SOCK_DGRAM, "127.0.0.1", daemon.port))
        tcp = [
            stack.enter_context(connect(socket.SOCK_STREAM, "127.0.0.1", daemon.port))
            for _ in range(STREAMS)
        ]
        local = [stack.enter_context(channel.talk()) for _ in range(STREAMS)]
        for talk in local:
            talk.hello()
        os.kill(daemon.pid, signal.SIGSTOP)
        for _ in range(DATAGRAMS):
            udp.send(NULL)
        for skt in tcp:
            skt.sendall(mark(NULL) * CALLS)
        for talk in local:
            talk.send(c.LIST.ask(b"t", {}))
        os.kill(daemon.pid, signal.SIGTERM)
        os.kill(daemon.pid, signal.SIGCONT)
        assert daemon.wait() == 0
        assert [len(udp.recv(99)) for _ in range(DATAGRAMS)] == [REPLY] * DATAGRAMS
        assert {len(received(skt)) for skt in tcp} == {CALLS * (REPLY + 4)}
        for talk in local:
            assert talk.answer()[b"_answer"] == b"t"
            with pytest.raises(EOFError):
                talk.box()
    assert not Path(channel.path).exists()
    assert not Path(daemon.path).exists()


def test_many_connections(channel: Served) -> None:
    """It ends in time, however many registrations it takes away from however many watchers."""
    with ExitStack() as stack:
        clients = [stack.enter_context(channel.talk()) for _ in range(CONNECTIONS)]
        for number, talk in enumerate(clients):
            if number < WATCHERS:
                talk.ask(c.WATCH)
            # The limit is that of a process, which these are all of.
            if number < 10:
                talk.register((f"n{number}", "7", 0))
        begun = time.monotonic()
        os.kill(channel.daemon.pid, signal.SIGTERM)
        assert channel.daemon.wait() == 0
        # A second, and some more where others have the processors.
        assert time.monotonic() - begun < 5


def test_peer_that_does_not_read(channel: Served) -> None:
    """Nobody keeps it from ending, who does not read the answers."""
    ask = c.LIST.ask(b"t", {}) * 100
    with channel.talk() as talk:
        talk.skt.setblocking(False)
        try:
            while True:
                talk.skt.send(ask)
        except BlockingIOError:
            pass
        os.kill(channel.daemon.pid, signal.SIGTERM)
        assert channel.daemon.wait() == 0


def test_interrupted(channel: Served) -> None:
    """Twice SIGTERM is as good as once."""
    os.kill(channel.daemon.pid, signal.SIGTERM)
    os.kill(channel.daemon.pid, signal.SIGTERM)
    assert channel.daemon.wait() == 0
