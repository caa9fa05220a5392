"""The examples of the documentation, run as they stand there."""

from pathlib import Path

import pytest

from tests.support.console_session import play
from tests.support.daemon import TWISTD
from tests.support.namespace import PATH, TOP, Namespace

EXAMPLES = TOP / "docs" / "examples" / "rpcbind"


@pytest.fixture
def host(namespace: Namespace) -> Namespace:
    """Give a namespace like the host of the examples: addresses, log directory, /opt/portmapd."""
    namespace.run("ip", "addr", "add", "192.0.2.1/24", "dev", "lo")
    namespace.run("ip", "addr", "add", "198.51.100.1/24", "dev", "lo")
    for folder in ("/var/log", "/opt"):
        namespace.run("mount", "-t", "tmpfs", "tmpfs", folder)
    namespace.run("ln", "-s", str(Path(TWISTD).parents[1]), "/opt/portmapd")
    # rpcbind writes its list there as that user, if the host has one.
    namespace.run("chown", "-f", "_rpc", "/run/rpcbind", status=None)
    return namespace


@pytest.mark.programs(
    *("rpcinfo", "rpcbind", "rpc.statd", "showmount", "ps", "systemd-analyze"),
    *("etcd", "curl"),
    *("ganesha.nfsd", "nfs-cp", "nfs-ls", "ypserv", "ypbind", "ypwhich", "ypcat", "makedbm"),
)
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.console")), ids=lambda path: path.stem)
def test_session(host: Namespace, example: Path) -> None:
    """Each command of a session prints what the page shows."""
    play(host, example.read_text(), f"/opt/portmapd/bin:{PATH}")
