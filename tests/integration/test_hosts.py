"""Hosts with several addresses, networks and namespaces: what is served where."""

import socket
from functools import partial
from pathlib import Path

import pytest

from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import Rpcb, encode_rpcb
from portmapd.oncrpc.xdr import Reader
from tests.integration.conftest import OURS, OURS6
from tests.support.daemon import portmapd
from tests.support.exchange import connect, exchange, question, results
from tests.support.namespace import Namespace, eventually

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
GETADDR = question(4, 3, encode_rpcb(Rpcb(100000, 4)))
ABSTRACT = "\0/run/rpcbind.sock"


def is_served(namespace: Namespace, host: str) -> bool:
    """Whether both transports answer there."""
    for kind in (UDP, TCP):
        try:
            with connect(kind, host, 111, make=namespace.make_socket) as skt:
                exchange(skt, question(2, 0))
        except ConnectionRefusedError:
            return False
    return True


def told(caller: Namespace, kind: socket.SocketKind, host: str) -> str:
    """The address of the port mapper that a caller is told there."""
    with connect(kind, host, 111, make=caller.make_socket) as skt:
        return Reader(decode_reply(exchange(skt, GETADDR))).string()


def test_loopback(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """With ``--interface``, loopback is served in both families, but nothing else."""
    with portmapd(namespace, tmp_path, "--interface", OURS):
        for host in ("127.0.0.1", "::1", OURS):
            assert is_served(namespace, host)
        assert is_served(elsewhere, OURS)
        assert not is_served(namespace, OURS6)
        assert not is_served(namespace, "127.0.0.5")


def test_no_loopback(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """With ``--no-loopback`` it is not."""
    with portmapd(namespace, tmp_path, "--interface", OURS, "--no-loopback"):
        assert is_served(elsewhere, OURS)
        for host in ("127.0.0.1", "::1"):
            assert not is_served(namespace, host)


def test_later_addresses(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """Addresses that the host does not have yet are served once it has them; the log names them."""
    later = ("10.98.0.50", "2001:db8:1::50")
    options = [word for host in later for word in ("--interface", host)]
    with portmapd(namespace, tmp_path, *options):
        for host in later:
            namespace.run("ip", "addr", "add", f"{host}/64" if ":" in host else f"{host}/24",
                          "dev", "w0")  # fmt: skip
            assert is_served(elsewhere, host)
            for kind in (UDP, TCP):
                assert told(elsewhere, kind, host) == f"{host}.0.111"
        log = (tmp_path / "portmapd.log").read_text()
        assert all(f"{host} is not an address of this host yet" in log for host in later)


def test_advertise(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """Callers are told the address for their network in place of the one they reached."""
    elsewhere.run("ip", "addr", "add", "10.97.0.2/24", "dev", "w1")
    namespace.run("ip", "route", "add", "10.97.0.0/24", "dev", "w0")
    options = (
        *("--interface", "0.0.0.0", "--interface", "::", "--callit", "null"),
        *("--advertise", "203.0.113.1", "--advertise", "2001:db8:99::1"),
        *("--advertise", "10.97.0.0/24=192.0.2.9", "--advertise", "127.0.0.0/8=127.0.0.1"),
    )
    with portmapd(namespace, tmp_path, *options):
        for kind in (UDP, TCP):
            for _ in range(2):
                assert told(elsewhere, kind, OURS) == "203.0.113.1.0.111"
                assert told(elsewhere, kind, OURS6) == "2001:db8:99::1.0.111"
                assert told(namespace, kind, "127.0.0.1") == "127.0.0.1.0.111"
            with elsewhere.make_socket(socket.AF_INET, kind) as skt:
                skt.settimeout(30)
                skt.bind(("10.97.0.2", 0))
                skt.connect((OURS, 111))
                reply = exchange(skt, GETADDR)
                assert Reader(decode_reply(reply)).string() == "192.0.2.9.0.111"
        specific = encode_rpcb(Rpcb(200100, 1, "tcp", "10.98.0.1.15.160"))
        with connect(TCP, "127.0.0.1", 111, make=namespace.make_socket) as skt:
            assert results(skt, 3, 1, specific).boolean()
        with connect(TCP, OURS, 111, make=elsewhere.make_socket) as skt:
            call = question(3, 3, encode_rpcb(Rpcb(200100, 1)))
            assert Reader(decode_reply(exchange(skt, call))).string() == "10.98.0.1.15.160"
            entries = decode_reply(exchange(skt, question(4, 11, encode_rpcb(Rpcb(100000, 4)))))
            assert entries.count(b"203.0.113.1.0.111") == 2


def hears_broadcasts(caller: Namespace) -> bool:
    """Whether a broadcast of IPv6 on the wire is answered."""
    index = int(caller.run("ip", "-o", "link", "show", "w1").partition(":")[0])
    with caller.make_socket(socket.AF_INET6, UDP) as skt:
        skt.settimeout(0.2)
        call = question(2, 0)
        try:
            skt.sendto(call, ("ff02::202", 111, 0, index))
            return skt.recv(100).startswith(call[:4])
        except OSError:
            return False


def test_later_interface(namespace: Namespace, tmp_path: Path) -> None:
    """Broadcasts over IPv6 are heard on interfaces that come later, again and again."""
    with portmapd(namespace, tmp_path, "--interface", "::"):
        for _ in range(2):
            with Namespace() as late:
                namespace.wire(late)
                eventually(partial(hears_broadcasts, late), "the broadcast is heard", 10)
            gone = "w0 goes with the other end"
            eventually(lambda: "w0" not in namespace.run("ip", "-o", "link"), gone, 10)


def test_abstract_socket(namespace: Namespace, tmp_path: Path) -> None:
    """The abstract socket is served beside the path, with the rights of its callers."""
    wanted = encode_rpcb(Rpcb(200100, 1, "tcp", "0.0.0.0.15.160"))
    with portmapd(namespace, tmp_path):
        for _ in range(2):
            with namespace.make_socket(socket.AF_UNIX, TCP) as skt:
                skt.settimeout(30)
                skt.connect(ABSTRACT)
                assert results(skt, 3, 1, wanted).boolean()
                assert b"superuser" in decode_reply(exchange(skt, question(3, 4)))
    with (
        namespace.make_socket(socket.AF_UNIX, TCP) as skt,
        pytest.raises(ConnectionRefusedError),
    ):
        skt.connect(ABSTRACT)


def test_abstract_socket_taken(namespace: Namespace, tmp_path: Path) -> None:
    """If somebody has taken its name, the rest is served, and the log says so."""
    with namespace.make_socket(socket.AF_UNIX, TCP) as other:
        other.bind(ABSTRACT)
        other.listen()
        with portmapd(namespace, tmp_path):
            assert is_served(namespace, "127.0.0.1")
            log = (tmp_path / "portmapd.log").read_text()
            assert "the abstract socket @/run/rpcbind.sock is not served" in log
