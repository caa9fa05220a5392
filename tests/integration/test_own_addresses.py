"""Callers on this host that use its own addresses, and others that claim them."""

import socket
from itertools import product
from pathlib import Path

import pytest

from portmapd.errors import AuthRefused
from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import Pmap, Rpcb, encode_pmap, encode_rpcb, read_rpcb
from portmapd.oncrpc.xdr import uint
from tests.integration.conftest import OURS, OURS6
from tests.support.daemon import portmapd
from tests.support.exchange import connect, exchange, question, results
from tests.support.namespace import Namespace

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM

NETWORKS = {
    "wildcards": ("--interface", "0.0.0.0", "--interface", "::"),
    "addresses": ("--interface", OURS, "--interface", OURS6),
}
#: It is in the address's network, but not served unless it is the host's own.
ALLOW = ("--allow", "192.0.2.0/24")


def registered(caller: Namespace, host: str, kind: socket.SocketKind, program: int) -> str:
    """Register *program* from a reserved port, and give its owner."""
    own = caller.make_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.settimeout(30)
    with own:
        own.bind((host, 700))
        own.connect((host, 111))
        netid = ("tcp" if kind == TCP else "udp") + ("6" if ":" in host else "")
        wanted = Rpcb(program, 1, netid, f"{host}.15.160")
        assert decode_reply(exchange(own, question(3, 1, encode_rpcb(wanted)))) == uint(1)
    with connect(TCP, host, 111, make=caller.make_socket) as skt:
        rows = results(skt, 3, 4).sequence(read_rpcb)
    return next(row.owner for row in rows if row.program == program)


@pytest.mark.programs("rpcinfo")
@pytest.mark.parametrize("network", NETWORKS)
def test_served(namespace: Namespace, elsewhere: Namespace, tmp_path: Path, network: str) -> None:
    """At its own addresses, this host is served, and registers, whatever ``--allow`` says."""
    with portmapd(namespace, tmp_path, *NETWORKS[network], *ALLOW):
        assert "portmapper" in namespace.run("rpcinfo", "-p", OURS)
        places = product((OURS, OURS6), (UDP, TCP))
        for number, (host, kind) in enumerate(places):
            assert registered(namespace, host, kind, 200100 + number) == "superuser"


def test_later_address(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """So it is at addresses that come later."""
    with portmapd(namespace, tmp_path, *NETWORKS["wildcards"], *ALLOW):
        namespace.run("ip", "addr", "add", "10.98.0.77/24", "dev", "w0")
        for kind in (UDP, TCP):
            assert registered(namespace, "10.98.0.77", kind, 200100) == "superuser"


def test_not_from_elsewhere(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """A host that has one of these addresses, too, gets no stream, and no datagram is local."""
    namespace.run("ip", "addr", "add", "10.98.0.3/24", "dev", "w0")
    elsewhere.run("ip", "addr", "add", "10.98.0.3/24", "dev", "w1")
    with portmapd(namespace, tmp_path, *NETWORKS["wildcards"]):
        with elsewhere.make_socket(socket.AF_INET, TCP) as stream:
            stream.bind(("10.98.0.3", 700))
            stream.settimeout(1)
            with pytest.raises(OSError, match=r"timed out|refused|reset"):
                stream.connect((OURS, 111))
        with elsewhere.make_socket(socket.AF_INET, UDP) as datagrams:
            datagrams.bind(("10.98.0.3", 700))
            for version in (1, 2, 3):
                wanted = encode_pmap(Pmap(200100, version, 17, 4000))
                datagrams.sendto(question(2, 1, wanted), (OURS, 111))
        with connect(UDP, "127.0.0.1", 111, make=namespace.make_socket) as skt:
            for version in (1, 2, 3):
                wanted = encode_pmap(Pmap(200100, version, 17))
                assert decode_reply(exchange(skt, question(2, 3, wanted))) == uint(0)


def test_neighbours(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """An honest neighbour is a stranger over both."""
    wanted = encode_pmap(Pmap(200100, 1, 17, 4000))
    with portmapd(namespace, tmp_path, *NETWORKS["wildcards"]):
        for host, kind in product((OURS, OURS6), (UDP, TCP)):
            with (
                connect(kind, host, 111, make=elsewhere.make_socket) as skt,
                pytest.raises(AuthRefused),
            ):
                decode_reply(exchange(skt, question(2, 1, wanted)))
