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

#: Rooms, and a module, that never import Twisted.
PURE = ("errors", "oncrpc", "channel", "registry", "portmapper", "client.blocking")
#: A module in them that does: it is Twisted's own form of what is there.
IMPURE = ("channel.amp",)


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
        pure = any(name == room or name.startswith(f"{room}.") for room in PURE)
        if pure and name not in IMPURE:
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

    def test_no_globals(self) -> None:
        """No module rebinds its globals: state is in values that are passed."""
        found = [
            f"{name_of(path)}:{node.lineno}"
            for path in modules()
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Global)
        ]
        self.assertEqual(found, [])
