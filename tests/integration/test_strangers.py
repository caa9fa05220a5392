"""Callers on other hosts: what they are answered, and what never.

The daemon runs in one namespace, and strangers in another, on a wire.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from portmapd.errors import AuthRefused
from portmapd.oncrpc.message import decode_call, decode_reply, success, sys_credential
from portmapd.oncrpc.program import (
    Pmap,
    RemoteCall,
    Rpcb,
    encode_pmap,
    encode_remote_call,
    encode_rpcb,
    read_call_result,
    read_pmap,
)
from portmapd.oncrpc.xdr import Reader, opaque, uint
from portmapd.portmapper.dispatch import TABLE
from tests.integration.conftest import OURS, OURS6, THEIRS
from tests.support.daemon import portmapd
from tests.support.exchange import connect, exchange, question, reply_or_silence
from tests.support.namespace import Namespace

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM

#: Addresses of the daemon's host: strangers call one, and callers on that host the other.
OUTSIDE = OURS
INSIDE = "127.0.0.1"

SERVICE = encode_pmap(Pmap(200100, 1, 17, 4000))

#: The daemon's host, and another one on the wire.
Hosts = tuple[Namespace, Namespace]
Connect = Callable[[socket.SocketKind, str], socket.socket]


@pytest.fixture
def hosts(namespace: Namespace, elsewhere: Namespace) -> Hosts:
    """Give two hosts on a wire."""
    return namespace, elsewhere


@contextmanager
def served(hosts: Hosts, folder: Path, *options: str) -> Iterator[Connect]:
    """Serve the network with these options, and give what connects to an address of the host."""
    namespace, elsewhere = hosts
    callers = {INSIDE: namespace, "::1": namespace, OUTSIDE: elsewhere, OURS6: elsewhere}
    network = ("--interface", "0.0.0.0", "--interface", "::")
    with portmapd(namespace, folder, *network, *options), ExitStack() as sockets:

        def to(kind: socket.SocketKind, host: str) -> socket.socket:
            make = callers[host].make_socket
            return sockets.enter_context(connect(kind, host, 111, make=make))

        yield to


def dumped(reply: bytes) -> int:
    """How many mappings a DUMP of version 2 has."""
    return len(Reader(decode_reply(reply)).sequence(read_pmap))


def test_never_amplified(hosts: Hosts, tmp_path: Path) -> None:
    """Over UDP a stranger is never sent more than it sent, or 80 bytes, whatever it asks."""
    arguments = (
        b"",
        SERVICE,
        encode_rpcb(Rpcb(200100, 1, "udp", "0.0.0.0.15.160", "superuser")),
        encode_rpcb(Rpcb(100000, 4)),
        encode_remote_call(RemoteCall(100000, 2, 4, b"")),
        opaque(b"0.0.0.0.0.111"),
        uint(16) + opaque(b"\2\0\0\x6f" + bytes(12)),
        *(Random(size).randbytes(size) for size in (4, 7, 20, 100, 1_000)),
    )
    with served(hosts, tmp_path) as to:
        inside, outside = to(UDP, INSIDE), to(UDP, OUTSIDE)
        assert decode_reply(exchange(inside, question(2, 1, SERVICE))) == uint(1)
        answered = 0
        for version in (*TABLE, 1, 5):
            for procedure, given in product(range(15), arguments):
                message = question(version, procedure, given)
                reply = reply_or_silence(outside, message, inside)
                if reply is not None:
                    answered += 1
                    assert len(reply) <= max(len(message), 80), (version, procedure, given)
        # What is small is answered all the same.
        assert answered > 300
        with pytest.raises(AuthRefused) as refused:
            decode_reply(exchange(outside, question(2, 4)))
        assert refused.value.stat == 5
        assert dumped(exchange(inside, question(2, 4))) == 7


@pytest.mark.parametrize("procedure", [3, 9], ids=["GETADDR", "GETVERSADDR"])
def test_address(hosts: Hosts, tmp_path: Path, procedure: int) -> None:
    """A stranger gets an address over UDP, though it names none in its question."""
    call = question(4, procedure, encode_rpcb(Rpcb(100000, 4)))
    with served(hosts, tmp_path) as to:
        for host in (OUTSIDE, OURS6):
            reply = decode_reply(exchange(to(UDP, host), call))
            assert Reader(reply).string() == f"{host}.0.111"


def test_broadcast_call(hosts: Hosts, tmp_path: Path) -> None:
    """So it does with the results of procedure 0, under ``--callit null``."""
    with served(hosts, tmp_path, "--callit", "null") as to, echoing(hosts[0]) as (echo, _):
        exchange(to(UDP, INSIDE), question(2, 1, encode_pmap(Pmap(200100, 1, 17, echo.port))))
        call = question(4, 5, encode_remote_call(RemoteCall(200100, 1, 0, b"")))
        result = Reader(decode_reply(exchange(to(UDP, OUTSIDE), call)))
        assert result.string() == f"{OURS}.{echo.port >> 8}.{echo.port & 255}"


def test_over_tcp(hosts: Hosts, tmp_path: Path) -> None:
    """A stream cannot be forged: strangers get whole answers there."""
    with served(hosts, tmp_path) as to:
        assert dumped(exchange(to(TCP, OUTSIDE), question(2, 4))) == 6


def test_trust(hosts: Hosts, tmp_path: Path) -> None:
    """Callers of a trusted network get large answers over UDP; they may not register."""
    with served(hosts, tmp_path, "--trust", "192.0.2.7", "--trust", "10.98.0.0/24") as to:
        outside = to(UDP, OUTSIDE)
        assert dumped(exchange(outside, question(2, 4))) == 6
        with pytest.raises(AuthRefused):
            decode_reply(exchange(outside, question(2, 1, SERVICE)))


def test_allow(hosts: Hosts, tmp_path: Path) -> None:
    """Who is not in an allowed network gets silence over UDP and a closed stream over TCP."""
    with served(hosts, tmp_path, "--allow", "192.0.2.0/24") as to:
        inside = to(UDP, INSIDE)
        for message in (question(2, 0), question(9, 0), question(2, 3, SERVICE), b"nonsense"):
            assert reply_or_silence(to(UDP, OUTSIDE), message, inside) is None
        with pytest.raises(EOFError):
            exchange(to(TCP, OUTSIDE), question(2, 0))
        assert decode_reply(exchange(to(TCP, INSIDE), question(2, 0))) == b""


def test_allowed(hosts: Hosts, tmp_path: Path) -> None:
    """Who is in one of the allowed networks is served."""
    with served(hosts, tmp_path, "--allow", "192.0.2.0/24", "--allow", THEIRS) as to:
        for kind in (UDP, TCP):
            assert decode_reply(exchange(to(kind, OUTSIDE), question(2, 0))) == b""


def test_registering(hosts: Hosts, tmp_path: Path) -> None:
    """Strangers may neither register nor unregister, in any version or transport."""
    rpcb = encode_rpcb(Rpcb(200100, 1, "udp", "0.0.0.0.15.160"))
    with served(hosts, tmp_path) as to:
        for kind, procedure in product((UDP, TCP), (1, 2)):
            for version, arguments in ((2, SERVICE), (3, rpcb), (4, rpcb)):
                call = question(version, procedure, arguments, credential=sys_credential(0, 0))
                with pytest.raises(AuthRefused) as refused:
                    decode_reply(exchange(to(kind, OUTSIDE), call))
                assert refused.value.stat == 5
        assert dumped(exchange(to(TCP, INSIDE), question(2, 4))) == 6


def test_insecure(hosts: Hosts, tmp_path: Path) -> None:
    """With ``--insecure`` strangers may register, but not remove what is root's."""
    with served(hosts, tmp_path, "--insecure") as to:
        outside = to(UDP, OUTSIDE)
        for procedure in (1, 2, 1):
            assert decode_reply(exchange(outside, question(2, procedure, SERVICE))) == uint(1)
        assert decode_reply(exchange(to(UDP, INSIDE), question(2, 3, SERVICE))) == uint(4000)
        own = encode_pmap(Pmap(100000, 2, 17, 111))
        assert decode_reply(exchange(outside, question(2, 2, own))) == uint(0)


#: The procedure whose answer is large.
MULTIPLY = 9


class Echo:
    """A service, on the daemon's host, that answers with its arguments.

    :ivar called: the arguments of every call so far.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.make_socket(socket.AF_INET, UDP)
        self._socket.bind((INSIDE, 0))
        self.port = int(self._socket.getsockname()[1])
        self.called: list[bytes] = []

    def serve(self) -> None:
        """Answer until a datagram is empty."""
        with self._socket:
            while True:
                message, caller = self._socket.recvfrom(65_535)
                if not message:
                    return
                call = decode_call(message)
                self.called.append(call.arguments)
                times = 100 if call.procedure == MULTIPLY else 1
                self._socket.sendto(success(call.xid, call.arguments * times), caller)


@contextmanager
def echoing(namespace: Namespace) -> Iterator[tuple[Echo, socket.socket]]:
    """Run an :class:`Echo`, and give it with a socket that is connected to it."""
    echo = Echo(namespace)
    thread = Thread(target=echo.serve)
    thread.start()
    with connect(UDP, INSIDE, echo.port, make=namespace.make_socket) as direct:
        try:
            yield echo, direct
        finally:
            direct.send(b"")
            thread.join()


#: For each value of --callit: is procedure 0, or another, called for callers here, and elsewhere?
CALLIT = {
    "off": {(INSIDE, 0): False, (INSIDE, 1): False, (OUTSIDE, 0): False, (OUTSIDE, 1): False},
    "local": {(INSIDE, 0): True, (INSIDE, 1): True, (OUTSIDE, 0): False, (OUTSIDE, 1): False},
    "null": {(INSIDE, 0): True, (INSIDE, 1): True, (OUTSIDE, 0): True, (OUTSIDE, 1): False},
    "all": {(INSIDE, 0): True, (INSIDE, 1): True, (OUTSIDE, 0): True, (OUTSIDE, 1): True},
}


@pytest.mark.parametrize("choice", CALLIT)
def test_callit(hosts: Hosts, tmp_path: Path, choice: str) -> None:
    """``--callit`` says whose calls are forwarded; the others' are not made, and not answered."""
    with (
        served(hosts, tmp_path, "--callit", choice) as to,
        echoing(hosts[0]) as (echo, direct),
    ):
        witness = to(UDP, INSIDE)
        exchange(witness, question(2, 1, encode_pmap(Pmap(200100, 1, 17, echo.port))))
        for (host, procedure), forwarded in CALLIT[choice].items():
            text = f"{host} {procedure}...".encode()
            call = question(2, 5, encode_remote_call(RemoteCall(200100, 1, procedure, text)))
            if forwarded:
                result = read_call_result(Reader(decode_reply(exchange(to(UDP, host), call))))
                assert (result.port, result.results) == (echo.port, text)
            else:
                assert reply_or_silence(to(UDP, host), call, witness) is None
                # It would have come before this.
                exchange(direct, question(1, 0, b"done", program=200100))
                assert text not in echo.called


def test_callit_never_amplifies(hosts: Hosts, tmp_path: Path) -> None:
    """A service's answer that is larger than a stranger's question is not passed on to it."""
    with served(hosts, tmp_path, "--callit", "all") as to, echoing(hosts[0]) as (echo, _):
        exchange(to(UDP, INSIDE), question(2, 1, encode_pmap(Pmap(200100, 1, 17, echo.port))))
        call = question(2, 5, encode_remote_call(RemoteCall(200100, 1, MULTIPLY, b"text")))
        assert decode_reply(exchange(to(UDP, INSIDE), call))[8:] == b"text" * 100
        with pytest.raises(AuthRefused):
            decode_reply(exchange(to(UDP, OUTSIDE), call))
        assert decode_reply(exchange(to(TCP, OUTSIDE), call))[8:] == b"text" * 100
