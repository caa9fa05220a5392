"""What a caller can take: so many streams, so much memory, so much time, and no more."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread

from portmapd.config import MAX_STREAMS
from portmapd.oncrpc.message import decode_reply, xid_of
from portmapd.oncrpc.program import Pmap, encode_pmap
from portmapd.oncrpc.record import MAX_FRAGMENTS, MAX_RECORD, mark
from portmapd.oncrpc.xdr import uint
from tests.support.embedded import asking, asynchronous, serving
from tests.support.exchange import (
    connect,
    connect_local,
    exchange,
    question,
    receive_record,
    run_as,
)
from tests.support.host import Daemon, daemon

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
HOST = "127.0.0.1"
NULL = question(2, 0)


def is_served(skt: socket.socket) -> bool:
    """Whether a stream is answered, or closed."""
    try:
        return decode_reply(exchange(skt, question(2, 0))) == b""
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return False


def is_closed(skt: socket.socket) -> bool:
    """Whether the other end closes a stream, instead of call_server."""
    try:
        return skt.recv(1) == b""
    except ConnectionResetError:
        return True


@asynchronous
async def test_streams() -> None:
    """When there are as many streams as may be, the one that was idle longest goes for the next."""

    def fill() -> None:
        with ExitStack() as stack:
            streams = [stack.enter_context(connect(TCP, HOST, service.port)) for _ in range(4)]
            assert all(map(is_served, streams))
            assert is_served(streams[0])
            for going in (streams[1], streams[2]):
                assert is_served(stack.enter_context(connect(TCP, HOST, service.port)))
                assert going.recv(1) == b""
            assert is_served(streams[0])

    async with serving(max_streams=4) as service:
        await deferToThread(fill)


def idle_as(uid: int, port: int, count: int) -> list[socket.socket]:
    """Idle streams of a user."""
    return run_as(uid, lambda: [connect(TCP, HOST, port) for _ in range(count)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
def test_users(tmp_path: Path) -> None:
    """One user with all streams shuts nobody out, not even itself; a few lines say so."""
    with daemon(tmp_path) as running, ExitStack() as stack:
        with connect(TCP, HOST, running.port) as root:
            assert is_served(root)
            for skt in idle_as(1000, running.port, MAX_STREAMS + 6):
                stack.enter_context(skt)
            for uid in (0, 1000, 1001):
                (skt,) = idle_as(uid, running.port, 1)
                with skt:
                    assert is_served(skt)
            assert is_served(root)
        lines = (tmp_path / "twistd.log").read_text().count("it was idle longest")
        assert 1 <= lines <= 10


@asynchronous
async def test_idle() -> None:
    """A stream without a whole call is closed in order after a time; the start of one is none."""

    def wait(beginning: bytes) -> bytes:
        with connect(TCP, HOST, service.port) as skt:
            skt.sendall(beginning)
            return skt.recv(1)

    async with serving(idle=0.2) as service:
        for beginning in (b"", mark(NULL)[:-1]):
            assert await deferToThread(wait, beginning) == b""


@asynchronous
async def test_pipelined() -> None:
    """Calls that are sent without waiting are answered in order, the known and the unknown ones."""

    def converse() -> list[int]:
        with connect(TCP, HOST, service.port) as skt:
            skt.sendall(b"".join(map(mark, calls)))
            return [xid_of(receive_record(skt)) for _ in calls]

    getports = [encode_pmap(Pmap(200000 + n, 1, 17, 0)) for n in range(7)]
    calls = [
        question(2, 4) if n % 50 == 0 else question(2, 3, getports[n % 7]) for n in range(2000)
    ]
    async with serving() as service:
        assert await deferToThread(converse) == [xid_of(call) for call in calls]


def padded(size: int) -> bytes:
    """A call of NULL of that size; its surplus arguments are ignored."""
    call = question(2, 0)
    return call + bytes(size - len(call))


@asynchronous
async def test_longest_record() -> None:
    """A record of 64 KiB is served, in one fragment or several; a longer one closes the stream."""

    def converse() -> None:
        with connect(TCP, HOST, service.port) as skt:
            for size in (1000, MAX_RECORD):
                assert decode_reply(exchange(skt, padded(size))) == b""
            assert decode_reply(_in_fragments(skt, padded(MAX_RECORD), 16)) == b""
            skt.sendall(uint(0x8000_0000 | (MAX_RECORD + 1)))
            assert is_closed(skt)

    assert MAX_RECORD == 65_536
    async with serving() as service, asking(service.port) as client:
        await deferToThread(converse)
        await client.null()


@asynchronous
async def test_fragments() -> None:
    """Fragments that are too many, or too long together, close the stream."""

    def converse(fragment: bytes, count: int) -> bool:
        with connect(TCP, HOST, service.port) as skt:
            assert is_served(skt)
            skt.sendall(fragment * count)
            return is_closed(skt)

    async with serving() as service:
        tiny, large = uint(1) + b"x", uint(40_000) + bytes(40_000)
        assert await deferToThread(converse, tiny, MAX_FRAGMENTS + 1)
        assert await deferToThread(converse, large, 2)


def _in_fragments(skt: socket.socket, message: bytes, count: int) -> bytes:
    size = len(message) // count
    parts = [message[n * size : (n + 1) * size] for n in range(count - 1)]
    last = message[(count - 1) * size :]
    skt.sendall(b"".join(uint(len(part)) + part for part in parts) + mark(last))
    return receive_record(skt)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Daemon]:
    """Give a daemon with a thousand mappings, so that DUMP is a long answer."""
    with daemon(tmp_path) as running:
        with connect_local(running.path) as skt:
            for n in range(1000):
                call = question(2, 1, encode_pmap(Pmap(200000 + n, 1, 17, 4000)))
                assert decode_reply(exchange(skt, call)) == uint(1)
        yield running


def test_unread_answers(filled: Daemon) -> None:
    """A peer that never reads its answers costs bounded memory, and no one else anything."""
    dumps = b"".join(mark(question(2, 4)) for _ in range(500))
    with ExitStack() as stack, connect(UDP, HOST, filled.port) as datagrams:
        exchange(datagrams, NULL)
        before = filled.resident
        streams = [stack.enter_context(connect(TCP, HOST, filled.port)) for _ in range(30)]
        streams += [stack.enter_context(connect_local(filled.path)) for _ in range(10)]
        for skt in streams:
            skt.setblocking(False)
        for _ in range(20):
            for skt in streams:
                _push(skt, dumps)
            exchange(datagrams, NULL)
        # Their answers are 20,000 bytes each: all of them would be 8 GB, those of one push 400 MB.
        assert filled.resident - before < 60 << 20


def _push(skt: socket.socket, data: bytes) -> None:
    """Send as much as the other end takes now."""
    try:
        skt.send(data)
    except BlockingIOError:
        return


def test_silent_streams(tmp_path: Path) -> None:
    """Streams that announce a record of 64 KiB and wait cost no 64 KiB each."""
    with daemon(tmp_path) as running, ExitStack() as stack:
        with connect(UDP, HOST, running.port) as datagrams:
            exchange(datagrams, NULL)
            before = running.resident
            for _ in range(MAX_STREAMS // 2):
                skt = stack.enter_context(connect(TCP, HOST, running.port))
                assert is_served(skt)
                skt.sendall(mark(bytes(MAX_RECORD))[:8])
            exchange(datagrams, NULL)
        assert running.resident - before < 15 << 20
