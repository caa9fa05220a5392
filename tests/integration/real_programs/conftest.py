"""The daemon and the compiled program that the tests of real programs share."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.real_programs.table import Table
from tests.support.daemon import portmapd
from tests.support.namespace import Namespace

_HEADERS = Path("/usr/include/tirpc")


@pytest.fixture
def portmapper(
    namespace: Namespace, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Namespace]:
    """Give a namespace in which portmapd runs, with the options of ``@pytest.mark.options``."""
    options = [option for mark in request.node.iter_markers("options") for option in mark.args]
    with portmapd(namespace, tmp_path, *options):
        yield namespace


@pytest.fixture
def table(portmapper: Namespace) -> Callable[[], Table]:
    """Ask portmapd for its table with ``rpcinfo``."""
    return lambda: Table.parse(portmapper.run("rpcinfo"))


@pytest.fixture(scope="session")
def tirpc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the path of ``tirpc.c``, compiled."""
    if shutil.which("cc") is None or not _HEADERS.is_dir():
        pytest.skip("not on this machine: cc or the headers of libtirpc")
    source = Path(__file__).with_name("tirpc.c")
    program = tmp_path_factory.mktemp("tirpc") / "tirpc"
    subprocess.run(
        ["cc", "-Wall", f"-I{_HEADERS}", "-o", program, source, "-ltirpc"],
        check=True,
    )
    return str(program)
