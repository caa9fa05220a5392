"""Frames from the wire whose source address looks as if this host had sent them."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import Pmap, encode_pmap, read_rpcb
from portmapd.oncrpc.xdr import uint
from tests.integration.conftest import OURS, OURS6, THEIRS, THEIRS6
from tests.support.daemon import portmapd
from tests.support.exchange import exchange, question, results
from tests.support.frames import frame, hardware_address, opening
from tests.support.namespace import Namespace, eventually

#: Reserved: from there, a caller of this host is the superuser.
PORT = 700
#: Root's mapping, and where a stranger would like it to be.
MAPPED, MOVED = (encode_pmap(Pmap(100003, 3, 17, port)) for port in (2049, 4444))

FORGED = [
    *((source, ours) for source in ("127.0.0.1", "127.9.9.9") for ours in (OURS, "127.0.0.1")),
    *((source, "127.0.0.9") for source in ("127.0.0.1", OURS, THEIRS)),
    (OURS, OURS),
    *((source, OURS6) for source in ("::ffff:127.0.0.1", f"::ffff:{OURS}", "::1", OURS6)),
    *((source, "::1") for source in ("::ffff:127.0.0.1", "::1", OURS6, THEIRS6)),
]

NETWORKS = {
    "loopback": (),
    "wildcards": ("--interface", "0.0.0.0", "--interface", "::"),
    "addresses": ("--interface", OURS, "--interface", OURS6, "--interface", "127.0.0.1"),
}

#: The daemon's host, and the one that sends frames.
Hosts = tuple[Namespace, Namespace]


@pytest.fixture
def hosts(namespace: Namespace, elsewhere: Namespace) -> Hosts:
    """Give two hosts on a wire."""
    return namespace, elsewhere


@contextmanager
def served(hosts: Hosts, folder: Path, *options: str) -> Iterator[socket.socket]:
    """Serve a host that routes loopback addresses from the wire, with root's mapping.

    The block is given a caller of this host, at a reserved port.
    """
    namespace, _ = hosts
    for name in ("all", "w0"):
        namespace.run("sysctl", "-q", f"net.ipv4.conf.{name}.route_localnet=1")
        namespace.run("sysctl", "-q", f"net.ipv4.conf.{name}.rp_filter=0")
        namespace.run("sysctl", "-q", f"net.ipv4.conf.{name}.accept_local=1")
    with portmapd(namespace, folder, *options), local(namespace) as skt:
        assert decode_reply(exchange(skt, question(2, 1, MAPPED))) == uint(1)
        yield skt


def local(namespace: Namespace) -> socket.socket:
    """A caller on loopback, from a reserved port."""
    skt = namespace.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
    skt.bind(("127.0.0.1", PORT + 1))
    skt.settimeout(30)
    skt.connect(("127.0.0.1", 111))
    return skt


@contextmanager
def wire(hosts: Hosts) -> Iterator[tuple[socket.socket, bytes]]:
    """A socket that sends frames from elsewhere, and the hardware address that they go to."""
    namespace, elsewhere = hosts
    (target,) = re.findall(
        "link/ether ([0-9a-f:]+)", namespace.run("ip", "-o", "link", "show", "w0")
    )
    with elsewhere.make_socket(socket.AF_PACKET, socket.SOCK_RAW) as skt:
        skt.bind(("w1", 0))
        yield skt, hardware_address(target)


def send_frames(hosts: Hosts, sources: list[tuple[str, str]], *messages: bytes) -> None:
    """Send every message from each of these sources to the address that stands beside it."""
    with wire(hosts) as (skt, target):
        for source, ours in sources:
            for message in messages:
                skt.send(frame(target, (source, PORT), (ours, 111), message))


@pytest.mark.parametrize("network", NETWORKS)
def test_no_stranger_is_superuser(hosts: Hosts, tmp_path: Path, network: str) -> None:
    """No source address makes a caller on the wire one of this host's."""
    with served(hosts, tmp_path, *NETWORKS[network]) as skt:
        send_frames(hosts, FORGED, question(2, 2, MAPPED), question(2, 1, MOVED))
        assert decode_reply(exchange(skt, question(2, 3, MAPPED))) == uint(2049)


def test_no_stream_from_a_mapped_source(hosts: Hosts, tmp_path: Path) -> None:
    """No stream is opened for an IPv4-mapped source; one from elsewhere is answered."""
    forged = [(source, OURS6) for source in ("::ffff:127.0.0.1", f"::ffff:{OURS}")]
    with served(hosts, tmp_path, *NETWORKS["wildcards"]), wire(hosts) as (skt, target):
        for source, ours in [*forged, ("2001:db8:1::7", OURS6)]:
            skt.send(opening(target, (source, PORT), (ours, 111)))
        opened = partial(hosts[0].run, "ss", "-Htn", "state", "syn-recv")
        eventually(lambda: "[2001:db8:1::7]:700" in opened(), "the other is answered")
        assert "ffff" not in opened()


def test_frames_arrive(hosts: Hosts, tmp_path: Path) -> None:
    """The frames are well formed: with ``--insecure``, those from elsewhere register."""
    elsewhere = [("10.98.0.7", OURS), ("2001:db8:1::7", OURS6)]
    wanted = [encode_pmap(Pmap(200100, version, 17, 4000)) for version in (1, 2)]
    options = (*NETWORKS["wildcards"], "--insecure")
    with served(hosts, tmp_path, *options) as skt:
        for where, mapping in zip(elsewhere, wanted, strict=True):
            send_frames(hosts, [where], question(2, 1, mapping))
            assert decode_reply(exchange(skt, question(2, 3, mapping))) == uint(4000)


def test_mapped_networks_are_not_passed(hosts: Hosts, tmp_path: Path) -> None:
    """An IPv4-mapped source is in none of the networks that may ask."""
    options = (*NETWORKS["wildcards"], "--insecure", "--allow", "10.98.0.0/24")
    wanted = encode_pmap(Pmap(200100, 1, 17, 4000))
    with served(hosts, tmp_path, *options) as skt:
        send_frames(hosts, [("::ffff:10.98.0.7", OURS6)], question(2, 1, wanted))
        assert decode_reply(exchange(skt, question(2, 3, wanted))) == uint(0)


def test_reserved_ports(hosts: Hosts, tmp_path: Path) -> None:
    """Where any user may bind the ports below 1024, they make nobody superuser."""
    hosts[0].run("sysctl", "-q", "net.ipv4.ip_unprivileged_port_start=0")
    with served(hosts, tmp_path) as skt:
        rows = results(skt, 3, 4).sequence(read_rpcb)
        assert [row.owner for row in rows if row.program == 100003] == ["unknown"]
