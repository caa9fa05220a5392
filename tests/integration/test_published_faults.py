"""Faults that were published of port mappers and of RPC libraries: none of them is here.

Others have their tests where they belong: state files (CVE-2010-2061, CVE-2010-2064) in
``test_state``; CALLIT as a proxy (CVE-1999-0168) and amplification (TA14-017A) in
``test_strangers`` and ``test_forwarding``; empty and endless fragments in ``test_limits``.
"""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from portmapd.errors import ProcedureUnavailable
from portmapd.oncrpc.message import decode_call, decode_reply, success
from portmapd.oncrpc.program import (
    Pmap,
    RemoteCall,
    encode_pmap,
    encode_remote_call,
    read_call_result,
)
from portmapd.oncrpc.xdr import Reader, uint
from tests.support.exchange import connect, connect_local, exchange, question
from tests.support.host import Daemon, daemon
from tests.support.namespace import eventually

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
HOST = "127.0.0.1"
NULL = question(2, 0)
PROGRAM = 200100

#: The descriptors that a process has who has next to none.
FEW = 64
#: How much memory may come and go, in bytes.
NOISE = 4 << 20


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Daemon]:
    """Give a daemon."""
    with daemon(tmp_path) as made:
        yield made


def test_announced_lengths(running: Daemon) -> None:
    """CVE-2017-8779: a length that is announced, and not there, takes no memory."""
    lies = [
        question(version, procedure, numbers + uint(0xFFFF_FFFF))
        for version, procedure, numbers in (
            (4, 7, b""),
            (4, 8, uint(16)),
            (4, 5, uint(7) + uint(1) + uint(1)),
            (2, 5, uint(7) + uint(1) + uint(1)),
            (3, 3, uint(7) + uint(1)),
        )
    ]
    with connect(UDP, HOST, running.port) as skt, connect(UDP, HOST, running.port) as probe:

        def flood(rounds: int) -> None:
            for _ in range(rounds):
                for lie in lies * 20:
                    skt.send(lie)
                exchange(probe, NULL)
            skt.settimeout(0)

        flood(10)
        before = running.resident
        # A hundred of them each.
        flood(1_000)
        assert running.resident < before + NOISE


def processor_time(pid: int) -> float:
    """How long a process has worked, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serves_newcomers(running: Daemon) -> bool:
    """Whether a new stream is served."""
    with connect(TCP, HOST, running.port) as newcomer:
        try:
            return decode_reply(exchange(newcomer, NULL)) == b""
        except EOFError:
            return False


def test_no_descriptors_left(running: Daemon) -> None:
    """CVE-2018-14622, CVE-2021-46828: a process out of descriptors serves whom it has, at rest."""
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
    with (
        connect(UDP, HOST, running.port) as datagrams,
        connect_local(running.path) as local,
        connect(TCP, HOST, running.port) as stream,
    ):
        for skt in (local, stream):
            exchange(skt, NULL)
        with ExitStack() as idle:
            for _ in range(2 * FEW):
                idle.enter_context(connect(TCP, HOST, running.port))
            eventually(lambda: running.descriptors == FEW, "every descriptor is taken")
            for skt in (datagrams, local, stream):
                assert decode_reply(exchange(skt, NULL)) == b""
            before = processor_time(running.pid)
            time.sleep(1)
            assert processor_time(running.pid) < before + 0.5
        eventually(lambda: serves_newcomers(running), "there is room again")


@contextmanager
def echoing() -> Iterator[int]:
    """Run a service over UDP that answers a call with its arguments; give its port."""
    with socket.socket(socket.AF_INET, UDP) as skt:
        skt.bind((HOST, 0))
        thread = Thread(target=_echo, args=(skt,))
        thread.start()
        try:
            yield skt.getsockname()[1]
        finally:
            skt.sendto(b"end", skt.getsockname())
            thread.join()


def _echo(skt: socket.socket) -> None:
    while (message := skt.recvfrom(1000))[0] != b"end":
        call = decode_call(message[0])
        skt.sendto(success(call.xid, call.arguments), message[1])


def test_callers_who_leave(running: Daemon) -> None:
    """CVE-2015-7236: of many callers at once, some of whom leave, each gets its own answer."""
    with echoing() as port, connect(UDP, HOST, running.port) as skt, ExitStack() as stack:
        exchange(skt, question(2, 1, encode_pmap(Pmap(PROGRAM, 1, 17, port))))
        for turn in range(60):
            callers = [stack.enter_context(connect(UDP, HOST, running.port)) for _ in range(90)]
            texts = [f"{turn} {number:5}".encode().ljust(12) for number in range(90)]
            for caller, text in zip(callers, texts, strict=True):
                caller.send(question(2, 5, encode_remote_call(RemoteCall(PROGRAM, 1, 7, text))))
            for caller in callers[::2]:
                caller.close()
            for caller, text in zip(callers[1::2], texts[1::2], strict=True):
                answer = Reader(decode_reply(caller.recv(1000)))
                assert read_call_result(answer).results == text
            stack.close()


def test_largest_record_mark(running: Daemon) -> None:
    """A record that announces 2 GiB is closed at once, and takes no memory."""
    with connect(TCP, HOST, running.port) as witness, ExitStack() as stack:
        exchange(witness, NULL)
        before = running.resident
        for head in (0x7FFF_FFFF, 0xFFFF_FFFF, 0x8001_0001):
            skt = stack.enter_context(connect(TCP, HOST, running.port))
            skt.sendall(uint(head) + bytes(1000))
            try:
                assert skt.recv(1) == b""
            except ConnectionResetError:
                pass
        assert decode_reply(exchange(witness, NULL)) == b""
        assert running.resident < before + NOISE


@pytest.mark.parametrize("kind", [UDP, TCP])
def test_largest_procedure(running: Daemon, kind: socket.SocketKind) -> None:
    """The largest procedure is PROC_UNAVAIL, in every version."""
    with connect(kind, HOST, running.port) as skt:
        for version in (2, 3, 4):
            with pytest.raises(ProcedureUnavailable):
                decode_reply(exchange(skt, question(version, 0xFFFF_FFFF)))
        assert decode_reply(exchange(skt, NULL)) == b""


def test_repeated_xids(running: Daemon) -> None:
    """Calls with one xid are calls of their own: no reply is another's."""
    with connect(UDP, HOST, running.port) as one, connect(UDP, HOST, running.port) as two:
        for port in (4000, 5000):
            exchange(one, question(2, 1, encode_pmap(Pmap(PROGRAM, port, 17, port))))
        asked = [question(2, 3, encode_pmap(Pmap(PROGRAM, port, 17))) for port in (4000, 5000)]
        first, second = (NULL[:4] + message[4:] for message in asked)
        for _ in range(100):
            for skt, message in ((one, first), (one, second), (two, second)):
                skt.send(message)
            assert [decode_reply(one.recv(1000)) for _ in range(2)] == [uint(4000), uint(5000)]
            assert decode_reply(two.recv(1000)) == uint(5000)
