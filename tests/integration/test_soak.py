"""``make soak`` in short: no error, bounded memory, and everyone is served beside hostile peers."""

import sys

import pytest

from tests.support import host
from tests.support.namespace import found, why_no_namespace

#: A tenth of the connections, and nothing that depends on what else the machine does.
SHORT = ("--scale", "0.1", "--untimed")
#: Peers that take memory, and connections.
TAKERS = ("streams that never read", "unfinished boxes")


@pytest.fixture(autouse=True)
def needed() -> None:
    """Skip without what a namespace and the load generator take."""
    if reason := why_no_namespace() or ("" if found("cc") else "not on this machine: cc"):
        pytest.skip(reason)


def soak(*options: str) -> str:
    """What ``make soak`` prints; it must tell that all promises were kept."""
    done = host.run(sys.executable, "-m", "bench.soak", *SHORT, *options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_lasting_load() -> None:
    """Three seconds of load: no error, and memory and descriptors stay where they are."""
    said = soak("--minutes", "0.05", "--rate", "1000", "--flat", "0.1")
    assert said.count(": kept") == 3, said


def test_hostile_peers() -> None:
    """Others are served beside peers that take what there is of memory and connections."""
    only = [word for name in TAKERS for word in ("--only", name)]
    said = soak("--hostile", "--seconds", "0.5", *only)
    assert said.count("  yes\n") == len(TAKERS), said
