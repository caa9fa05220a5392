"""nmap's probes of a port mapper: its table, and the versions that it serves."""

import re

import pytest

from tests.support.namespace import Namespace

pytestmark = pytest.mark.programs("nmap")

_TABLE = [
    ("100000", "2,3,4", "111/tcp", "rpcbind"),
    ("100000", "2,3,4", "111/tcp6", "rpcbind"),
    ("100000", "2,3,4", "111/udp", "rpcbind"),
    ("100000", "2,3,4", "111/udp6", "rpcbind"),
]


@pytest.mark.parametrize(
    ("scan", "host"), [("-sT", "127.0.0.1"), ("-sU", "127.0.0.1"), ("-sT", "::1")]
)
def test_table(portmapper: Namespace, scan: str, host: str) -> None:
    """The script rpcinfo reads the whole table."""
    family = ["-6"] if ":" in host else []
    said = portmapper.run("nmap", "-n", *family, scan, "-p111", "--script", "rpcinfo", host)
    rows = re.findall(r"^\|_? +(\d+) +(\S+) +(\d+/\S+) +(\S+)", said, re.MULTILINE)
    assert sorted(rows) == _TABLE, said


def test_versions(portmapper: Namespace) -> None:
    """The version probe finds versions 2 to 4, from PROG_MISMATCH."""
    said = portmapper.run("nmap", "-n", "-sV", "-p111", "127.0.0.1")
    assert re.search(r"^111/tcp open +rpcbind +2-4 \(RPC #100000\)$", said, re.MULTILINE), said
