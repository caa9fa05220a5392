"""The house: which room may know which."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "portmapd"

#: The rooms from below to above: each may import what is in its own room, and below.
FLOORS = (
    {"errors"},
    {"oncrpc", "channel"},
    {"registry"},
    {"portmapper"},
    {"config"},
    {"server"},
    {"client"},
    {"service"},
    {"tap", "cli"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

#: Packages, and a module, that never import Twisted.
PURE = (
    "errors",
    "oncrpc",
    "channel",
    "registry",
    "portmapper",
    "client.core",
    "client.blocking",
    "client.aio",
)

#: What the core of the clients does without: the shells do the I/O.
IO = {"asyncio", "logging", "select", "selectors", "socket", "subprocess", "threading"}

#: What the clients of the local channel may import of other packages; the RPC client has its own.
OF_CLIENTS = {"errors", "oncrpc", "channel", "client"}
RPC_CLIENT = ("client.rpc", "client.portmap", "client.calls", "client.datagrams", "client.stream")


def modules(folder: Path = PACKAGE) -> list[Path]:
    """Every module."""
    return sorted(folder.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's name."""
    parts = path.relative_to(TOP).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """The names that a module imports, wherever in it; what is for type checkers alone as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: a relative import"
            assert not node.level, f"{path}: a relative import"
            yield node.module


def room_of(name: str) -> str:
    """The room that a module of portmapd is in; empty for the package itself and for others."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "portmapd" else ""


def pure_modules() -> Iterator[Path]:
    """The modules that never import Twisted."""
    for path in modules():
        name = name_of(path).removeprefix("portmapd.")
        if any(name == pure or name.startswith(f"{pure}.") for pure in PURE):
            yield path


class ArchitectureTests(SynchronousTestCase):
    """The rules."""

    def test_every_room_has_its_floor(self) -> None:
        """There is no room that the rules below forget."""
        rooms = {room_of(name_of(path)) for path in modules()} - {""}
        self.assertEqual(rooms - set(FLOOR), set())

    def test_imports_go_downward(self) -> None:
        """Nothing imports what is above it, or beside it on the same floor."""
        found = [
            f"{name_of(path)} imports {name}"
            for path in modules()
            for name in imports(path)
            if (room := room_of(name_of(path))) and (other := room_of(name)) and room != other
            if FLOOR[other] >= FLOOR[room]
        ]
        self.assertEqual(found, [])

    def test_pure_rooms_do_not_import_twisted(self) -> None:
        """Not even within a function."""
        found = [
            f"{name_of(path)} imports {name}"
            for path in pure_modules()
            for name in imports(path)
            if name.partition(".")[0] in {"twisted", "zope"}
        ]
        self.assertEqual(found, [])

    def test_pure_rooms_do_without_twisted(self) -> None:
        """When all of them are imported, Twisted is not, by whatever way."""
        names = [name_of(path) for path in pure_modules()]
        code = (
            f"import sys, {', '.join(names)};"
            "print([n for n in sys.modules if n.partition('.')[0] in ('twisted', 'zope')])"
        )
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP)
        self.assertEqual(said.stdout.strip(), "[]")

    def test_core_of_clients_does_no_io(self) -> None:
        """It imports nothing that does, not even within a function."""
        found = [
            f"{path.name} imports {name}"
            for path in modules(PACKAGE / "client" / "core")
            for name in imports(path)
            if name.partition(".")[0] in IO
        ]
        self.assertEqual(found, [])

    def test_clients_know_nothing_of_the_server(self) -> None:
        """They import the languages that they speak, and nothing else of ours."""
        found = [
            f"{name_of(path)} imports {name}"
            for path in modules(PACKAGE / "client")
            if not name_of(path).removeprefix("portmapd.").startswith(RPC_CLIENT)
            for name in imports(path)
            if room_of(name) and room_of(name) not in OF_CLIENTS
        ]
        self.assertEqual(found, [])

    def test_no_globals(self) -> None:
        """No module rebinds its globals: state is in values that are passed."""
        found = [
            f"{name_of(path)}:{node.lineno}"
            for path in modules()
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Global)
        ]
        self.assertEqual(found, [])
