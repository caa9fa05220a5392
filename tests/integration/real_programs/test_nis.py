"""NIS: ypserv and ypbind register, and the yp tools find a map through them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.real_programs.table import Table, every
from tests.support.namespace import Namespace, Started, eventually

pytestmark = pytest.mark.programs("rpcinfo", "ypserv", "ypbind", "ypcat", "ypwhich", "makedbm")

YPSERV, YPBIND = 100_004, 100_007

_MAP = """
set -e
domainname testdom
mkdir -p /var/yp/testdom
printf 'a 1\\nb 2\\n' | makedbm - /var/yp/testdom/mymap
"""

Tables = Callable[[], Table]


@pytest.fixture
def ypserv(portmapper: Namespace, table: Tables, tmp_path: Path) -> Started:
    """Run ypserv with one map."""
    portmapper.run("sh", "-c", _MAP)
    started = portmapper.start("ypserv", "-f", log=tmp_path / "ypserv.log")
    registered = every("1 2", "udp tcp") | every("2", "udp6 tcp6")
    eventually(lambda: table().of(YPSERV) == registered, "ypserv registered")
    return started


def test_ypserv(portmapper: Namespace, ypserv: Started, table: Tables) -> None:
    """ypserv registers, serves its map to ypcat, and is gone after SIGTERM."""
    assert table().owners(YPSERV) == {"superuser"}
    said = portmapper.run("ypcat", "-h", "127.0.0.1", "-d", "testdom", "-k", "mymap")
    assert said.splitlines()[-2:] == ["a 1", "b 2"]
    ypserv.stop()
    assert table().others() == set()


@pytest.mark.usefixtures("ypserv")
def test_ypbind(portmapper: Namespace, table: Tables, tmp_path: Path) -> None:
    """ypbind finds ypserv, ypwhich and ypcat find ypbind, and it is gone after SIGTERM."""
    config = tmp_path / "yp.conf"
    config.write_text("domain testdom server 127.0.0.1\n")
    ypbind = portmapper.start(
        "ypbind", "-foreground", "-f", str(config), log=tmp_path / "ypbind.log"
    )
    eventually(
        lambda: portmapper.run("ypwhich", status=None) == "127.0.0.1\n", "ypbind bound the domain"
    )
    assert table().of(YPBIND) == every("1 2 3", "udp tcp") | every("3", "udp6 tcp6")
    assert portmapper.run("ypcat", "-k", "mymap").splitlines()[-2:] == ["a 1", "b 2"]
    ypbind.stop()
    assert table().others() == {YPSERV}
