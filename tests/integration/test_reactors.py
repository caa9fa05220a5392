"""Both halves on every reactor, on Twisted's own transports and on the fast engine."""

import array
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest
from attrs import frozen

from portmapd.channel import commands as c
from portmapd.errors import AlreadyRegistered, LimitExceeded
from portmapd.oncrpc.message import decode_call, decode_reply, success, xid_of
from portmapd.oncrpc.program import CallResult, Pmap, encode_call_result, encode_pmap
from portmapd.oncrpc.record import mark
from portmapd.oncrpc.xdr import uint
from tests.support.exchange import connect, connect_local, exchange, question, receive_record
from tests.support.host import Daemon
from tests.support.namespace import eventually
from tests.support.reactor_server import CHANNEL_SOCKET, HOST, REACTORS, reactor_server
from tests.support.registrant import Registrant
from tests.support.rpc_samples import remote_call
from tests.support.talk import Talk

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
SET, UNSET, GETPORT, DUMP, CALLIT = range(1, 6)
ME = (os.geteuid(), os.getpid())
#: How long a call over UDP may take while others are busy, in seconds. What was measured is below
#: a tenth of it.
LATENCY = 0.5


@frozen
class Served:
    """A port mapper.

    :param how: ``plain`` or ``fast``.
    """

    daemon: Daemon
    folder: Path
    how: str

    def connect(self, netid: str) -> socket.socket:
        """A socket that is connected over ``udp``, ``tcp`` or ``local``."""
        if netid == "local":
            return connect_local(self.daemon.path)
        return connect(UDP if netid == "udp" else TCP, HOST, self.daemon.port)

    def talk(self) -> Talk:
        """A connection of this process to the local channel."""
        return Talk(str(self.folder / CHANNEL_SOCKET))


@pytest.fixture(scope="module", params=["plain", "fast"])
def how(request: pytest.FixtureRequest) -> str:
    """Give the kind of transports."""
    return str(request.param)


@pytest.fixture(scope="module", params=REACTORS)
def server(
    request: pytest.FixtureRequest, how: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Give a port mapper, which all tests of this module share."""
    folder = tmp_path_factory.mktemp("server")
    with reactor_server(str(request.param), how, folder) as daemon:
        yield Served(daemon, folder, how)


netids = pytest.mark.parametrize("netid", ["udp", "tcp", "local"])


def ask(skt: socket.socket, procedure: int, arguments: bytes = b"") -> bytes:
    """The results of a call of version 2."""
    return decode_reply(exchange(skt, question(2, procedure, arguments)))


def pmap(program: int, port: int = 0) -> bytes:
    """The arguments that name a program over UDP."""
    return encode_pmap(Pmap(program, 1, 17, port))


@netids
def test_rpc(server: Served, netid: str) -> None:
    """SET, GETPORT, DUMP and UNSET are answered, from the cache, too."""
    with server.connect(netid) as skt:
        assert ask(skt, SET, pmap(200100, 9)) == uint(1)
        for _ in range(3):
            assert ask(skt, GETPORT, pmap(200100)) == uint(9)
            assert pmap(200100, 9) in ask(skt, DUMP)
        assert ask(skt, UNSET, pmap(200100)) == uint(1)
        assert ask(skt, GETPORT, pmap(200100)) == uint(0)


@netids
def test_callit(server: Served, netid: str) -> None:
    """A call is forwarded, and its answer comes back over the transport of the caller."""
    with socket.socket(type=UDP) as service, server.connect(netid) as skt:
        service.bind((HOST, 0))
        service.settimeout(10)
        port = service.getsockname()[1]
        assert ask(skt, SET, pmap(200101, port)) == uint(1)
        call = question(2, CALLIT, remote_call(200101, 1, 7, b"text"))
        skt.sendall(call if netid == "udp" else mark(call))
        made, caller = service.recvfrom(1_000)
        assert decode_call(made).arguments == b"text"
        service.sendto(success(xid_of(made), b"results!"), caller)
        reply = skt.recv(1_000) if netid == "udp" else receive_record(skt)
        assert xid_of(reply) == xid_of(call)
        assert decode_reply(reply) == encode_call_result(CallResult(port, b"results!"))
        assert ask(skt, UNSET, pmap(200101)) == uint(1)


@pytest.mark.parametrize("netid", ["tcp", "local"])
def test_half_closed(server: Served, netid: str) -> None:
    """A peer that has shut its sending side gets every reply, forwarded calls included."""
    with socket.socket(type=UDP) as service, server.connect(netid) as skt:
        service.bind((HOST, 0))
        service.settimeout(10)
        port = service.getsockname()[1]
        assert ask(skt, SET, pmap(200101, port)) == uint(1)
        forwarded = question(2, CALLIT, remote_call(200101, 1, 7, b"text"))
        calls = [forwarded, *(question(2, procedure) for procedure in [0, DUMP] * 1_000)]
        sender = Thread(target=_send_all, args=(skt, calls))
        sender.start()
        made, caller = service.recvfrom(1_000)
        assert [xid_of(receive_record(skt)) for _ in calls[1:]] == list(map(xid_of, calls[1:]))
        sender.join()
        service.sendto(success(xid_of(made), b"results!"), caller)
        assert xid_of(receive_record(skt)) == xid_of(forwarded)
        assert skt.recv(1) == b""
    with server.connect(netid) as skt:
        assert ask(skt, UNSET, pmap(200101)) == uint(1)


def _send_all(skt: socket.socket, calls: list[bytes]) -> None:
    skt.sendall(b"".join(map(mark, calls)))
    skt.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("netid", ["tcp", "local"])
def test_half_written(server: Served, netid: str) -> None:
    """A record that comes in pieces is answered once it is whole; others need not wait."""
    call = question(2, GETPORT, pmap(200102))
    record = mark(call)
    with server.connect(netid) as skt, server.connect(netid) as other:
        for at in range(0, len(record), 7):
            skt.sendall(record[at : at + 7])
            assert ask(other, 0) == b""
        assert xid_of(receive_record(skt)) == xid_of(call)
        skt.sendall(record[:10])
    with server.connect(netid) as skt:
        assert ask(skt, 0) == b""


@pytest.mark.parametrize("netid", ["tcp", "local"])
def test_broken_framing(server: Served, netid: str) -> None:
    """A stream is closed behind the answers to the calls before the framing was lost."""
    with server.connect(netid) as skt:
        skt.sendall(mark(question(2, 0)) + b"\xff\xff\xff\xff")
        assert decode_reply(receive_record(skt)) == b""
        assert skt.recv(1) == b""


@pytest.mark.parametrize("netid", ["tcp", "local"])
def test_pipelined(server: Served, netid: str) -> None:
    """Ten thousand pipelined DUMPs are answered in order, and do not starve UDP."""
    count, versions = 10_000, 200
    with server.connect("local") as skt:
        for version in range(versions):
            assert ask(skt, SET, encode_pmap(Pmap(200103, version, 17, 9))) == uint(1)
        assert len(ask(skt, DUMP)) > 20 * versions
    numbers = [*range(count)]
    dump = question(2, DUMP)
    data = b"".join(mark(struct.pack(">I", number) + dump[4:]) for number in numbers)
    got: list[int] = []
    with server.connect(netid) as skt, server.connect("udp") as datagrams:
        threads = [
            Thread(target=skt.sendall, args=(data,)),
            Thread(target=lambda: got.extend(xid_of(receive_record(skt)) for _ in numbers)),
        ]
        for thread in threads:
            thread.start()
        worst = 0.0
        while threads[1].is_alive():
            begun = time.monotonic()
            ask(datagrams, GETPORT, pmap(200103))
            worst = max(worst, time.monotonic() - begun)
        for thread in threads:
            thread.join()
        for version in range(versions):
            ask(datagrams, UNSET, encode_pmap(Pmap(200103, version, 17, 9)))
    assert got == numbers
    assert worst < LATENCY


def test_register(server: Served) -> None:
    """Names are registered, listed and watched; a disconnect removes them and is told."""
    with server.talk() as watching, server.talk() as talk:
        watching.ask(c.WATCH)
        assert talk.hello()["pid"] == os.getpid()
        talk.register(("a", "80", 1), ("b", "81", 0))
        talk.set((400001, 1, "tcp", "127.0.0.1.8.1"))
        with pytest.raises(AlreadyRegistered):
            watching.register(("a", "80", 1))
        with pytest.raises(LimitExceeded):
            watching.register(*((f"c{number}", "80", 0) for number in range(10)))
        assert watching.names() == ["a", "b"]
        with server.connect("udp") as skt:
            tcp = encode_pmap(Pmap(400001, 1, 6, 0))
            assert ask(skt, GETPORT, tcp) == uint(2049)
            talk.skt.close()
            changes = [watching.event()[:2] for _ in range(6)]
            assert ask(skt, GETPORT, tcp) == uint(0)
        assert changes == [
            ("registered", "a"),
            ("registered", "b"),
            ("mapped", 400001),
            ("deregistered", "a"),
            ("deregistered", "b"),
            ("unmapped", 400001),
        ]
        assert watching.names() == []


def test_channel_is_pipelined(server: Served) -> None:
    """Commands that come at once are answered in order, and what breaks the framing is closed."""
    with server.talk() as talk, server.talk() as witness:
        data = b"".join(c.LIST.ask(b"%d" % number, {}) for number in range(3_000))
        sender = Thread(target=talk.send, args=(data,))
        sender.start()
        tags = [talk.answer()[b"_answer"] for _ in range(3_000)]
        sender.join()
        assert tags == [b"%d" % number for number in range(3_000)]
        talk.register(("a", "80", 0))
        talk.send(b"\xff\xff")
        assert talk.is_closed()
        assert witness.names() == []


def test_process_ends(server: Served) -> None:
    """When a process ends, so do its connections, even if its child holds the socket."""
    path = str(server.folder / CHANNEL_SOCKET)
    with server.talk() as watching, Registrant(path) as process:
        talk = Talk(process.connect())
        with talk:
            talk.register(("a", "80", 0))
            assert watching.names() == ["a"]
            process.kill()
            eventually(lambda: watching.names() == [], "its names are gone")
            assert talk.is_closed()


def test_passed_descriptors(server: Served) -> None:
    """A descriptor that a peer passes is not kept, on either UNIX socket."""
    before = server.daemon.descriptors
    read, write = os.pipe()
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read, write] * 20))]
    with server.talk() as talk, server.connect("local") as skt:
        for _ in range(20):
            talk.skt.sendmsg([c.HELLO.ask(b"1", {"version": 1})], passed)
            assert talk.answer()[b"_answer"] == b"1"
            skt.sendmsg([mark(question(2, 0))], passed)
            assert decode_reply(receive_record(skt)) == b""
        # The two connections, and the process that is connected.
        eventually(lambda: server.daemon.descriptors <= before + 3, "none are kept")
    os.close(read)
    os.close(write)
    eventually(lambda: server.daemon.descriptors <= before, "its descriptors are closed")


def test_many_connections(server: Served) -> None:
    """Connections that come and go leave nothing behind."""
    before = server.daemon.descriptors
    with server.talk() as witness:
        for _ in range(5):
            with ExitStack() as stack:
                talks = [stack.enter_context(server.talk()) for _ in range(50)]
                for number, talk in enumerate(talks):
                    if number < 8:
                        talk.register((f"n{number}", "80", 0))
                streams = [stack.enter_context(server.connect("tcp")) for _ in range(50)]
                assert [ask(skt, 0) for skt in streams] == [b""] * 50
                assert len(witness.names()) == 8
            eventually(lambda: witness.names() == [], "all names are gone")
    eventually(lambda: server.daemon.descriptors <= before, "its descriptors are closed")
