"""Lists of very many mappings: complete, and no burden to others, read or not."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread

import pytest

from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import PROGRAM, Pmap, encode_pmap, read_pmap, read_rpcb
from portmapd.oncrpc.record import mark
from portmapd.oncrpc.xdr import Reader, uint
from tests.support.exchange import connect, connect_local, exchange, question, receive_record
from tests.support.host import Daemon, daemon

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
HOST = "127.0.0.1"
NULL = question(2, 0)
FIRST, COUNT = 200_000, 10_000
#: Ports of mappings are of no service here.
PORT = 4_000
NETIDS = {6: "tcp", 17: "udp"}


def set_all(skt: socket.socket, numbers: range) -> None:
    """Have mappings of these programs set over UDP and TCP."""
    for start in range(numbers.start, numbers.stop, 100):
        some = range(start, min(start + 100, numbers.stop))
        calls = [
            mark(question(2, 1, encode_pmap(Pmap(number, 1, protocol, PORT))))
            for number in some
            for protocol in NETIDS
        ]
        skt.sendall(b"".join(calls))
        for _ in calls:
            assert decode_reply(receive_record(skt)) == uint(1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Give a daemon with 20,000 mappings."""
    folder = tmp_path_factory.mktemp("filled")
    with daemon(folder) as running, connect_local(running.path) as skt:
        set_all(skt, range(FIRST, FIRST + COUNT))
        yield running


def listed(skt: socket.socket, version: int) -> set[tuple[int, str]]:
    """The programs and netids in the list of all mappings, without the port mapper's own."""
    body = Reader(decode_reply(exchange(skt, question(version, 4))))
    if version == 2:
        rows = [(row.program, NETIDS[row.protocol]) for row in body.items(read_pmap)]
    else:
        rows = [(row.program, row.netid) for row in body.items(read_rpcb)]
    found = [row for row in rows if row[0] != PROGRAM]
    assert found == sorted(set(found))
    return set(found)


def every(numbers: range) -> set[tuple[int, str]]:
    """All of these programs, on both netids."""
    return {(number, netid) for number in numbers for netid in NETIDS.values()}


@pytest.mark.parametrize("version", [2, 3, 4])
def test_complete(filled: Daemon, version: int) -> None:
    """A long list has every mapping, over each kind of stream; the next reply comes behind it."""
    with connect_local(filled.path) as local, connect(TCP, HOST, filled.port) as tcp:
        for skt in (local, tcp):
            assert listed(skt, version) == every(range(FIRST, FIRST + COUNT))
            assert decode_reply(exchange(skt, NULL)) == b""


def test_changes(filled: Daemon) -> None:
    """A mapping is in the next list once it is set, and not once it is unset."""
    with connect_local(filled.path) as skt:
        for number in (1, FIRST + COUNT // 2, FIRST + COUNT):
            changed = encode_pmap(Pmap(number, 2, 17, PORT))
            before = listed(skt, 2)
            exchange(skt, question(2, 1, changed))
            rows = Reader(decode_reply(exchange(skt, question(2, 4)))).sequence(read_pmap)
            assert (number, 2) in [(row.program, row.version) for row in rows]
            exchange(skt, question(2, 2, changed))
            assert listed(skt, 2) == before


def test_pipelined(filled: Daemon) -> None:
    """Lists that are asked for all at once come one after the other, other replies between them."""
    with connect_local(filled.path) as skt:
        skt.sendall((mark(question(3, 4)) + mark(NULL)) * 5)
        sizes = [len(receive_record(skt)) for _ in range(10)]
    assert sizes[1::2] == [24] * 5
    assert len(set(sizes[::2])) == 1
    assert sizes[0] > 1 << 20


def test_unread(filled: Daemon) -> None:
    """Callers who do not read a long list take a bounded memory, whatever its length."""
    with ExitStack() as stack, connect(UDP, HOST, filled.port) as datagrams:
        with connect_local(filled.path) as reader:
            listed(reader, 3)
        before = filled.resident
        for _ in range(100):
            skt = stack.enter_context(connect_local(filled.path))
            skt.sendall(mark(question(3, 4)) * 10)
            exchange(datagrams, NULL)
        # Each would have a list of more than a megabyte.
        assert filled.resident - before < 40 << 20
        assert decode_reply(exchange(datagrams, NULL)) == b""


def test_changed_while_read(filled: Daemon) -> None:
    """What is registered all the time is in a list once, whatever is set and unset meanwhile."""
    done = False

    def change() -> None:
        with connect_local(filled.path) as skt:
            while not done:
                for number in range(FIRST, FIRST + COUNT, 100):
                    changed = encode_pmap(Pmap(number, 2, 17, PORT))
                    exchange(skt, question(2, 1, changed))
                    exchange(skt, question(2, 2, changed))

    changing = Thread(target=change)
    changing.start()
    try:
        with connect_local(filled.path) as skt:
            for _ in range(5):
                rows = Reader(decode_reply(exchange(skt, question(2, 4)))).sequence(read_pmap)
                found = [row.program for row in rows if row.version == 1]
                assert found == [n for n in range(FIRST, FIRST + COUNT) for _ in NETIDS]
    finally:
        done = True
        changing.join()


def test_datagram(filled: Daemon) -> None:
    """A list that fits no datagram is refused over UDP, and is not made."""
    with connect(UDP, HOST, filled.port) as skt:
        for version in (2, 3, 4):
            # SYSTEM_ERR (RFC 5531, 9)
            assert exchange(skt, question(version, 4))[-4:] == uint(5)
