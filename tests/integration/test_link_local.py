"""IPv6 addresses with a scope, and networks that lead nowhere."""

import re
import socket
import sys
from pathlib import Path

import pytest

from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import Rpcb, encode_rpcb
from portmapd.oncrpc.xdr import Reader
from tests.support.daemon import portmapd
from tests.support.exchange import PATIENCE, exchange, question
from tests.support.namespace import Namespace

pytestmark = pytest.mark.broadcast

GETADDR = question(4, 3, encode_rpcb(Rpcb(100000, 4)))


def link_local(namespace: Namespace, interface: str) -> tuple[str, int]:
    """The interface's link-local address, and its number."""
    said = namespace.run("ip", "-6", "-o", "addr", "show", "dev", interface, "scope", "link")
    match = re.match(r"(\d+): .*inet6 (fe80::[0-9a-f:]+)/64", said)
    assert match, said
    return match[2], int(match[1])


def ask(namespace: Namespace, *words: str) -> str:
    """What the client says, asking from within the namespace."""
    return namespace.run(sys.executable, "-m", "tests.support.ask", *words).strip()


def reached(namespace: Namespace, kind: socket.SocketKind, host: str, scope: int) -> str:
    """The address that GETADDR answers a caller who asked that host."""
    with namespace.make_socket(socket.AF_INET6, kind) as skt:
        skt.settimeout(PATIENCE)
        skt.connect((host, 111, 0, scope))
        return Reader(decode_reply(exchange(skt, GETADDR))).string()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_scopes(namespace: Namespace, tmp_path: Path, kind: socket.SocketKind) -> None:
    """Replies go back to the scope that they came from, and leave from the address asked."""
    with portmapd(namespace, tmp_path, "--interface", "::"):
        places = [link_local(namespace, name) for name in ("v0", "v1")]
        # Each address is asked on its own interface, and over the wire from the other one.
        for host, _ in places:
            for _, scope in places:
                assert reached(namespace, kind, host, scope) == f"{host}.0.111"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_link_local_interface(namespace: Namespace, tmp_path: Path, transport: str) -> None:
    """``--interface`` takes a link-local address with its scope, and so does the client."""
    host, _ = link_local(namespace, "v0")
    with portmapd(namespace, tmp_path, "--interface", f"{host}%v0"):
        assert ask(namespace, transport, f"{host}%v0", "111") == f"{host}.0.111"
        elsewhere, _ = link_local(namespace, "v1")
        said = ask(namespace, transport, f"{elsewhere}%v1", "111")
        assert said.startswith("DaemonUnreachable: ")
        assert said.endswith("Connection refused")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "fe80::1%none"])
def test_no_way_there(namespace: Namespace, transport: str, host: str) -> None:
    """An address that no route leads to is an error that says so, at once."""
    namespace.run("ip", "route", "del", "default")
    said = ask(namespace, transport, host, "111")
    assert said.startswith("DaemonUnreachable: ")
    assert f"{transport.upper()} port 111 of {host} cannot be reached" in said
