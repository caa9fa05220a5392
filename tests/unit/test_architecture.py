"""Which room may import which, and which rooms do no I/O."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "portmapd"

#: The rooms of the server, lowest first: each may import those before it.
SERVER = (
    "errors",
    "rpc_names",
    "waiting",
    "etcd",
    "oncrpc",
    "channel",
    "registry",
    "portmapper",
    "cluster_config",
    "config",
    "server",
    "cluster",
    "web",
    "joined",
    "service",
    "succession",
    "options",
    "tap",
    "background",
    "command",
    "__main__",
)
#: What the clients share with the server: the languages, and nothing of its work.
LANGUAGES = {"errors", "waiting", "oncrpc", "channel"}
#: The rooms that each room may import.
BELOW = {
    **{room: set(SERVER[:floor]) for floor, room in enumerate(SERVER)},
    "client": LANGUAGES,
    "cli": LANGUAGES | {"client", "rpc_names"},
    "pytest_plugin": LANGUAGES | {"client"},
    "rpc": set(SERVER[: SERVER.index("tap")]) | {"client"},
}
#: What joins a port mapper is its client, too.
for _room in ("joined", "service"):
    BELOW[_room].add("client")

#: Rooms, and parts of rooms, without I/O: bytes and values in, bytes and values out.
PURE = (
    "errors",
    "waiting",
    "oncrpc",
    "channel",
    "registry",
    "portmapper",
    "client.core",
    "client.rpc.operations",
    "client.rpc.portmap_client",
)
#: Parts of them that are not pure, and why.
IMPURE = {"channel.amp": "the commands as classes of twisted.protocols.amp"}
#: What a pure module may import besides portmapd: libraries that only compute.
COMPUTING = {
    "__future__",
    "abc",
    "attrs",
    "bisect",
    "collections",
    "contextlib",
    "enum",
    "errno",
    "functools",
    "hashlib",
    "heapq",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "string",
    "struct",
    "types",
    "typing",
    "unicodedata",
}
#: Names that a pure module may use of a library that can do more, and why.
EXCEPTIONS = {
    # Conversions between the text and the bytes of an address; no socket is made.
    ("oncrpc.netid", "socket"): {
        "AF_INET",
        "AF_INET6",
        "AF_UNIX",
        "AddressFamily",
        "inet_ntop",
        "inet_pton",
    },
    # The encoding of a form; nothing is asked.
    ("client.core.remote", "urllib"): set(),
    # The kernel tells whose daemon a connection reached.
    ("client.core.connecting", "socket"): {"SOL_SOCKET", "SO_PEERCRED"},
    # A connection belongs to the process that made it, and not to its forks.
    ("client.core.async_connection", "os"): {"getpid"},
    # Where a user's socket is depends on the environment and on who owns the file.
    ("channel.socket_path", "os"): {"PathLike", "environ", "fspath", "geteuid", "path", "stat"},
}

#: Parts that never import Twisted, not even through another module.
WITHOUT_TWISTED = (
    *PURE,
    "client.blocking",
    "client.aio",
    "client.rpc.operations",
    "client.rpc.plain",
    "client.rpc.blocking",
    "client.rpc.aio",
)
#: Protocols that run on any transport: they do not know the fast engine below them.
PROTOCOLS = (
    "server.channel",
    "server.datagram",
    "server.pipelining",
    "server.session",
    "server.stream",
)


def name_of(path: Path) -> str:
    """The module's name within portmapd; empty for portmapd itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_part(name: str, part: str) -> bool:
    """Whether a module is this one, or in this package."""
    return name == part or name.startswith(f"{part}.")


#: Every module by its name, parsed.
MODULES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def pure_modules(parts: tuple[str, ...] = PURE) -> Iterator[str]:
    """The modules of these parts that are not exempt."""
    for name in MODULES:
        if any(is_part(name, part) for part in parts) and name not in IMPURE:
            yield name


def imports(module: str) -> Iterator[str]:
    """What a module imports, wherever in it, for type checkers alone as well.

    A string that is the name of one of portmapd's modules counts: that is how a lazy import names
    it.
    """
    for node in ast.walk(MODULES[module]):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=None) | ast.ImportFrom(level=1 | 2 | 3):
                raise AssertionError(f"{module}: a relative import")
            case ast.ImportFrom(module="portmapd", names=names):
                yield from (f"portmapd.{n.name}" for n in names if n.name != "__version__")
            case ast.ImportFrom(module=str(name)):
                yield name
            case ast.Constant(value=str(text)) if is_part(text, "portmapd"):
                yield from [text] if text.removeprefix("portmapd.") in MODULES else ()


def own_imports(module: str) -> Iterator[str]:
    """What a module imports of portmapd, named within portmapd."""
    for name in imports(module):
        if is_part(name, "portmapd"):
            yield name.removeprefix("portmapd").removeprefix(".")


def library_imports(module: str) -> Iterator[str]:
    """The top packages of everything else that it imports."""
    for name in imports(module):
        if not is_part(name, "portmapd"):
            yield name.partition(".")[0]


def names_used(module: str, library: str) -> Iterator[str]:
    """The names that a module uses of a library; the library's own for other ways to use it."""
    tree = MODULES[module]
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for node in attributes:
        if isinstance(node.value, ast.Name) and node.value.id == library:
            yield node.attr
    bases = {id(node.value) for node in attributes}
    for other in ast.walk(tree):
        if isinstance(other, ast.Name) and other.id == library and id(other) not in bases:
            yield library
        if isinstance(other, ast.ImportFrom) and other.module == library:
            yield from (alias.name for alias in other.names)


def room_of(module: str) -> str:
    """The room that a module is in; empty for portmapd itself."""
    return module.partition(".")[0]


class ImportTests(SynchronousTestCase):
    """The direction of imports, lazy ones included."""

    def test_every_room_has_its_place(self) -> None:
        """There is no room that the rules forget."""
        self.assertEqual({room_of(module) for module in MODULES} - {""}, set(BELOW))

    def test_imports_go_downward(self) -> None:
        """A room imports what its row allows; ``portmapd`` itself, the map, is for applications."""
        found = [
            f"{module} imports {name or 'portmapd'}"
            for module in MODULES
            for name in own_imports(module)
            if module and room_of(name) != room_of(module)
            if room_of(name) not in BELOW[room_of(module)]
        ]
        self.assertEqual(found, [])

    def test_protocols_do_not_know_the_fast_engine(self) -> None:
        """The protocols run on any transport of any reactor."""
        found = [
            f"{module} imports {name}"
            for module in MODULES
            for name in own_imports(module)
            if any(is_part(module, protocol) for protocol in PROTOCOLS)
            if is_part(name, "server.fast")
        ]
        self.assertEqual(found, [])

    def test_no_globals(self) -> None:
        """No module rebinds its globals: state is in values that are passed."""
        found = [
            f"{module}:{node.lineno}"
            for module, tree in MODULES.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Global)
        ]
        self.assertEqual(found, [])


class PurityTests(SynchronousTestCase):
    """The pure rooms do no I/O."""

    def test_tables_are_current(self) -> None:
        """Every module that the tables above name exists."""
        parts = {*WITHOUT_TWISTED, *IMPURE, *PROTOCOLS, *(module for module, _ in EXCEPTIONS)}
        self.assertEqual(parts - set(MODULES), set())

    def test_pure_rooms_only_compute(self) -> None:
        """They import libraries that only compute, not even within a function any other."""
        found = [
            f"{module} imports {library}"
            for module in pure_modules()
            for library in library_imports(module)
            if library not in COMPUTING and (module, library) not in EXCEPTIONS
        ]
        self.assertEqual(found, [])

    def test_exceptions_are_kept_to(self) -> None:
        """Of the libraries that can do more, nothing but the names in the table is used."""
        found = {
            (module, library): used
            for (module, library), allowed in EXCEPTIONS.items()
            if (used := set(names_used(module, library)) - allowed)
        }
        self.assertEqual(found, {})

    def test_twisted_is_not_imported(self) -> None:
        """When all that does without Twisted is imported, Twisted is not, by whatever way."""
        names = [f"portmapd.{module}" for module in pure_modules(WITHOUT_TWISTED)]
        code = (
            f"import sys, {', '.join(names)};"
            "print([n for n in sys.modules if n.startswith(('twisted', 'zope.'))])"
        )
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP)
        self.assertEqual(said.stdout.strip(), "[]")
