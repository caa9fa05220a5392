"""The plug-in of pytest, as a project uses it that has nothing else of portmapd."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.console_session import play
from tests.support.daemon import TWISTD
from tests.support.exchange import PATIENCE
from tests.support.namespace import PATH, TOP, Namespace

EXAMPLE = TOP / "docs" / "examples" / "pytest" / "test_printer.py"
SESSION = EXAMPLE.with_suffix(".console")

_TESTS = '''
import os
import pytest

SEEN = []

def test_own(portmapd):
    with portmapd.client() as client, portmapd.portmapper() as portmapper:
        assert client.set(200100, 1, 17, 4000)
        portmapper.reg("printer.example.com", 9100)
        assert client.getport(200100, 1, 17) == 4000
        assert [s.port for s in portmapper.list("printer.example.com")] == [9100]
    SEEN.append((portmapd.port, os.path.dirname(portmapd.rpc_socket)))

def test_another(portmapd):
    """Each test has its own."""
    with portmapd.client() as client:
        assert client.getport(200100, 1, 17) == 0
    assert portmapd.port not in [port for port, _ in SEEN]
    assert not any(os.path.exists(folder) for _, folder in SEEN)

@pytest.mark.portmapd("--max-mappings", "1")
def test_options(portmapd):
    from portmapd.errors import LimitExceeded
    with portmapd.portmapper() as portmapper:
        portmapper.set(200100, 1, "udp", "127.0.0.1.3.232")
        with pytest.raises(LimitExceeded):
            portmapper.set(200100, 2, "udp", "127.0.0.1.3.232")

def test_restart(portmapd):
    port = portmapd.port
    with portmapd.client() as client:
        assert client.set(200100, 1, 17, 4000)
        portmapd.stop()
        portmapd.start()
        assert client.getport(200100, 1, 17) == 0
    assert portmapd.port == port

@pytest.mark.portmapd("--nonsense")
def test_wrong_options(portmapd):
    """It is never run."""
'''


def run_tests(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """What pytest prints in the folder.

    :param env: variables that are added to the environment.
    """
    # Nothing of the checkout is found from there, but what is installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= env or {}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    return done.stdout


def test_fixture(tmp_path: Path) -> None:
    """Each test has a port mapper of its own, with its options; one that fails says why."""
    (tmp_path / "test_own.py").write_text(_TESTS)
    said = run_tests(tmp_path, "--strict-markers")
    assert re.search(r"^=+ 4 passed, 1 error in ", said, re.MULTILINE), said
    assert "the port mapper does not serve" in said
    assert "option --nonsense not recognized" in said


def test_described(tmp_path: Path) -> None:
    """``pytest --fixtures`` and ``--markers`` describe it."""
    said = run_tests(tmp_path, "--fixtures")
    assert "Give the test a port mapper of its own, on free ports" in said
    assert "@pytest.mark.portmapd(*options)" in run_tests(tmp_path, "--markers")


def test_example(namespace: Namespace, tmp_path: Path) -> None:
    """The example of the page passes, and prints what the page shows."""
    shutil.copy(EXAMPLE, tmp_path)
    play(namespace, SESSION.read_text(), f"{Path(TWISTD).parent}:{PATH}", tmp_path)


def test_leaves_nothing(tmp_path: Path) -> None:
    """What a test registers is kept nowhere, and no file of options of the host counts."""
    options = tmp_path / "options.toml"
    options.write_text("nonsense = true")
    places = {"STATE_DIRECTORY": str(tmp_path / "state"), "PORTMAPD_CONFIG": str(options)}
    (tmp_path / "test_own.py").write_text(_TESTS)
    said = run_tests(tmp_path, "test_own.py::test_own", env=places)
    assert "1 passed" in said
    assert not (tmp_path / "state").exists()
