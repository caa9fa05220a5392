"""Hostile peers: each takes one thing that others need, for as long as it is let."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count, cycle, repeat
from types import MappingProxyType

from bench.load import FIRST_PROGRAM
from bench.servers import HOST
from bench.soak.ordinary import callit, getport, set_service
from bench.soak.role import CROWD, Role, Target
from portmapd.channel import commands as c
from portmapd.channel.box import MAX_VALUE, encode_box
from portmapd.errors import Refusal
from portmapd.oncrpc.message import decode_call, success
from portmapd.oncrpc.program import (
    Pmap,
    PmapProcedure,
    Rpcb,
    RpcbProcedure,
    encode_pmap,
    encode_rpcb,
)
from portmapd.oncrpc.record import mark
from tests.support.exchange import PATIENCE, exchange, question
from tests.support.talk import Talk

#: DUMPs on one stream.
PIPELINED = 10_000
#: Streams that never read, that send slowly, and local connections of one user.
DEAF, SLOW, CONNECTIONS = 300, 300, 3_000
#: Users, each with so many connections, that disconnect at once.
USERS, EACH = 10, 1_000
#: Datagrams that are sent at a time, and seconds from then to the next time: 3,000 a second, which
#: leaves room in the queue of the socket for those of others.
BURST, REST = 30, 0.01
#: Commands that are sent at a time.
COMMANDS = 100
#: Names of 4 bytes that fit a box.
NAMES = [f"{number:04x}" for number in range(10_900)]
#: Services of one process, with the longest names.
SERVICES = [(f"{number:04}" + "x" * 200, "80", 0) for number in range(1_000)]
#: Programs that nobody registered.
INVENTED = FIRST_PROGRAM + 0x0800_0000

DUMP = question(2, PmapProcedure.PMAPPROC_DUMP)
UNFINISHED = encode_box({b"_command": bytes(MAX_VALUE), b"x" * 255: bytes(MAX_VALUE)})[:-1]


def nothing(target: Target) -> Iterator[None]:
    """Nothing: what is seen is the machine's own."""
    yield from repeat(None)


def pipelined_dumps(target: Target) -> Iterator[None]:
    """One stream sends 10,000 DUMPs, and reads the replies."""
    with target.stream() as skt:
        size = len(exchange(skt, DUMP)) + len(mark(b""))
        calls = mark(DUMP) * PIPELINED
        while True:
            pump(skt, calls, size * PIPELINED)
            yield


def pump(skt: socket.socket, data: bytes, expected: int) -> None:
    """Send, and read meanwhile, until so many bytes have come.

    :raises TimeoutError: none come any more.
    :raises EOFError: the connection was closed instead.
    """
    skt.setblocking(False)
    rest = memoryview(data)
    while expected > 0:
        readable, writable, _ = select.select([skt], [skt] if rest else [], [], PATIENCE)
        if not readable and not writable:
            raise TimeoutError("nothing comes any more")
        if writable:
            rest = rest[skt.send(rest) :]
        if readable:
            expected -= _some(skt)


def _some(skt: socket.socket) -> int:
    data = skt.recv(1 << 18)
    if not data:
        raise EOFError("closed")
    return len(data)


def never_reads(target: Target) -> Iterator[None]:
    """Streams send DUMPs until nothing is taken any more, and read no reply."""
    calls = mark(DUMP) * PIPELINED
    while True:
        streams = [target.stream() for _ in target.some(DEAF)]
        for skt in streams:
            skt.settimeout(0.01)
            _send(skt, calls)
        yield
        time.sleep(1)


def _send(skt: socket.socket, data: bytes) -> None:
    """Send what is taken; the server may have closed the connection, too."""
    with suppress(OSError):
        skt.sendall(data)


def slow_senders(target: Target) -> Iterator[None]:
    """Streams send a call byte by byte."""
    streams = [target.stream() for _ in target.some(SLOW)]
    for byte in cycle(mark(DUMP)):
        for skt in streams:
            _send(skt, bytes([byte]))
        yield


def registers(target: Target) -> Iterator[None]:
    """A local client registers and deregisters, a hundred times in one go."""
    services = {"services": [("loop", "80", 0)]}
    gone = {"services": [("loop", "80")]}
    asked = [c.REGISTER.ask(b"1", services), c.DEREGISTER.ask(b"1", gone)] * COMMANDS
    with target.talk() as talk:
        while True:
            ask_all(talk, asked)
            yield


def ask_all(talk: Talk, asked: list[bytes]) -> None:
    """Send all commands in one go, and read the answers."""
    talk.send(b"".join(asked))
    for _ in asked:
        talk.answer()


def lists(target: Target) -> Iterator[None]:
    """A local client with 1,000 services asks for List after List."""
    asked = [c.LIST.ask(b"1", {})] * COMMANDS
    with target.talk() as talk:
        for first in range(0, len(SERVICES), 200):
            talk.register(*SERVICES[first : first + 200])
        while True:
            ask_all(talk, asked)
            yield


def disconnects(target: Target) -> Iterator[None]:
    """Ten processes, each of another user and with 1,000 connections, are killed at once."""
    while True:
        with _connected(target) as children:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
        yield


@contextmanager
def _connected(target: Target) -> Iterator[list[int]]:
    """Processes that have connected."""
    here, there = socket.socketpair()
    with here, there:
        children = [_fork(target, CROWD + number, here, there) for number in range(USERS)]
        for _ in children:
            here.recv(1)
        yield children
    for pid in children:
        os.waitpid(pid, 0)


def _fork(target: Target, uid: int, here: socket.socket, there: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        here.close()
        os.setuid(uid)
        kept = [*_registered(target)]
        there.send(b"1")
        # It ends with its parent.
        there.recv(1)
        kept.clear()
    finally:
        there.send(b"0")
        os._exit(0)


def _registered(target: Target) -> Iterator[Talk]:
    """Connections, each with a service unless there was no room for it."""
    talks = [target.talk() for _ in target.some(EACH)]
    for number, talk in enumerate(talks):
        _send(talk.skt, c.REGISTER.ask(b"1", {"services": [(f"crowd.{number}", "80", 0)]}))
    for talk in talks:
        with suppress(EOFError):
            talk.answer()
            yield talk


def sets_and_dumps(target: Target) -> Iterator[None]:
    """SET, DUMP over TCP, UNSET, as fast as they are answered."""
    with target.datagrams() as skt, target.stream() as stream:
        for number in count():
            pmap = encode_pmap(Pmap(INVENTED + number % 100, 1, 17, 1024))
            exchange(skt, question(2, PmapProcedure.PMAPPROC_SET, pmap))
            exchange(stream, DUMP)
            exchange(skt, question(2, PmapProcedure.PMAPPROC_UNSET, pmap))
            yield


def dumps(target: Target) -> Iterator[None]:
    """DUMP of all there is, again and again."""
    with target.stream() as stream:
        while True:
            exchange(stream, DUMP)
            yield


def forwarded_flood(target: Target) -> Iterator[None]:
    """3,000 calls a second are to be forwarded to a service that answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service, target.datagrams() as skt:
        service.bind((HOST, 0))
        call = callit(set_service(skt, service))
        service.setblocking(False)
        skt.setblocking(False)
        while True:
            flood(skt, [call] * BURST)
            for asked, forwarder in datagrams(service):
                service.sendto(success(decode_call(asked).xid, b""), forwarder)
            yield


def silent_service(target: Target) -> Iterator[None]:
    """3,000 calls a second are to be forwarded to a service that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service, target.datagrams() as skt:
        service.bind((HOST, 0))
        program = set_service(skt, service)
        skt.setblocking(False)
        while True:
            # Otherwise they would be taken for one call that is sent again.
            flood(skt, [callit(program) for _ in range(BURST)])
            yield


def flood(skt: socket.socket, calls: Iterable[bytes]) -> None:
    """Send these calls, and throw away what has come."""
    for call in calls:
        with suppress(BlockingIOError, ConnectionRefusedError):
            skt.send(call)
    for _ in datagrams(skt):
        """It was asked for no reason."""


def datagrams(skt: socket.socket) -> Iterator[tuple[bytes, tuple[str, int]]]:
    """What has come."""
    with suppress(BlockingIOError):
        while True:
            yield skt.recvfrom(65_535)


def statistics(target: Target) -> Iterator[None]:
    """Lookups and forwarded calls of programs that nobody registered, then GETSTAT."""
    stat = question(4, RpcbProcedure.RPCBPROC_GETSTAT)
    with target.datagrams() as skt:
        skt.setblocking(False)
        for first in count(INVENTED, BURST):
            invented = range(first, first + BURST // 3)
            flood(skt, [lookup(program) for program in invented])
            flood(skt, [callit(program) for program in invented])
            flood(skt, [stat] * (BURST // 3))
            yield


def lookup(program: int) -> bytes:
    """GETADDR of version 4."""
    rpcb = Rpcb(program, 1, f"udp{program}", "127.0.0.1.0.1")
    return question(4, RpcbProcedure.RPCBPROC_GETADDR, encode_rpcb(rpcb))


def unfinished_boxes(target: Target) -> Iterator[None]:
    """3,000 connections send a box of 130,000 bytes, but for the last one."""
    while True:
        talks = [target.talk() for _ in target.some(CONNECTIONS)]
        for talk in talks:
            talk.skt.settimeout(0.05)
            _send(talk.skt, UNFINISHED)
        yield


def watched_names(target: Target) -> Iterator[None]:
    """64 connections watch as many names as fit a box, again and again."""
    talks = [target.talk() for _ in range(64)]
    asked = c.WATCH.ask(b"1", {"names": NAMES})
    while True:
        for talk in talks:
            talk.send(asked)
        for talk in talks:
            talk.answer()
        yield


def watchers(target: Target) -> Iterator[None]:
    """3,000 connections watch everything, read nothing, and another one makes changes."""
    watching = [target.talk() for _ in target.some(CONNECTIONS)]
    for talk in watching:
        with suppress(Refusal):
            talk.ask(c.WATCH)
    yield from registers(target)


def host_sockets(target: Target) -> Iterator[None]:
    """A user of 15,000 UDP sockets SETs and UNSETs."""
    every = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in target.some(15_000)]
    for skt in every:
        skt.bind((HOST, 0))
    with target.datagrams() as asking:
        for skt in cycle(every):
            pmap = encode_pmap(Pmap(INVENTED, 1, 17, skt.getsockname()[1]))
            exchange(asking, question(2, PmapProcedure.PMAPPROC_SET, pmap))
            exchange(asking, question(2, PmapProcedure.PMAPPROC_UNSET, pmap))
            yield


def garbage_datagrams(target: Target) -> None:
    """Bytes that are no call, cut calls, lengths that lie."""
    whole = callit(INVENTED)
    with target.datagrams() as skt:
        for datagram in (b"", b"\xff" * 40, whole[:-3], whole[:-4] + b"\xff" * 4):
            skt.send(datagram)


def record_of_2_gib(target: Target) -> None:
    """A record mark that announces 2 GiB."""
    with target.stream() as skt:
        skt.sendall(b"\xff\xff\xff\xff" + bytes(1_000))


def endless_fragments(target: Target) -> None:
    """Fragments without data, none of them the last."""
    with target.stream() as skt:
        _send(skt, bytes(4) * 2_000)


def unfinished_box(target: Target) -> None:
    """A box whose connection ends before it does."""
    with target.talk() as talk:
        talk.send(UNFINISHED)


def no_box(target: Target) -> None:
    """Bytes that are no box."""
    with target.talk() as talk:
        talk.send(b"GET / HTTP/1.1\r\n\r\n")


def unread_answers(target: Target) -> None:
    """Commands whose answers are not read."""
    with target.talk() as talk:
        talk.send(c.LIST.ask(b"1", {}) * 10)


def unread_dumps(target: Target) -> None:
    """DUMPs whose replies are not read."""
    with target.stream() as skt:
        skt.sendall(mark(DUMP) * 10)


def unread_getport(target: Target) -> None:
    """A call whose caller has left when it is answered."""
    with target.datagrams() as skt:
        skt.send(getport())


def nobody_is_called(target: Target) -> None:
    """A call to be forwarded to a program that nobody registered."""
    with target.datagrams() as skt:
        skt.send(callit(INVENTED))


#: What a peer does that does a little of everything.
MALICE: tuple[Callable[[Target], None], ...] = (
    garbage_datagrams,
    record_of_2_gib,
    endless_fragments,
    unfinished_box,
    no_box,
    unread_answers,
    unread_dumps,
    unread_getport,
    nobody_is_called,
)


def mixed(target: Target) -> Iterator[None]:
    """A little of everything."""
    for act in cycle(MALICE):
        # To be sent away is what it is for.
        with suppress(OSError):
            act(target)
        yield


#: A little of everything.
MIXED = Role(mixed, period=0.002)

HOSTILE: Mapping[str, Role] = MappingProxyType(
    {
        "nobody": Role(nothing, period=0.1, is_rpc=True),
        "10,000 pipelined DUMPs": Role(pipelined_dumps, is_rpc=True),
        "streams that never read": Role(never_reads, is_rpc=True, mappings=1_000),
        "slow senders": Role(slow_senders, period=0.05, is_rpc=True),
        "SET, DUMP, UNSET": Role(sets_and_dumps, is_rpc=True, mappings=10_000),
        "DUMP of 1,000,000": Role(dumps, is_rpc=True, mappings=1_000_000),
        "forwarded calls": Role(forwarded_flood, period=REST),
        "a service that never answers": Role(silent_service, period=REST),
        "GETSTAT's tables": Role(statistics, period=REST, is_rpc=True),
        "15,000 sockets, and SETs": Role(host_sockets, is_rpc=True),
        "Register and Deregister": Role(registers),
        "endless Lists": Role(lists, options=("--max-services", "1000")),
        "10,000 disconnects": Role(disconnects, uid=0, options=("--max-services", "1000")),
        "unfinished boxes": Role(unfinished_boxes),
        "watched names": Role(watched_names),
        "3,000 watchers": Role(watchers),
        "a little of everything": MIXED,
    }
)
