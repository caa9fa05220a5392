"""The project as it is installed: its packages, its plugin, what importing it costs."""

import ast
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import portmapd
import portmapd.client

TOP = Path(__file__).resolve().parents[2]


class PackagingTests(SynchronousTestCase):
    """setup.cfg and the plugin agree with what is in the checkout."""

    def test_every_package_is_listed(self) -> None:
        """No package is left out of an installation."""
        config = ConfigParser()
        config.read(TOP / "setup.cfg")
        listed = set(config["options"]["packages"].split())
        found = {
            ".".join(module.parent.relative_to(TOP).parts)
            for module in (TOP / "portmapd").rglob("__init__.py")
        }
        self.assertEqual(listed, found | {"twisted.plugins"})

    def test_plugins_stay_a_namespace(self) -> None:
        """An ``__init__.py`` in the plugin's folders would hide Twisted itself."""
        self.assertEqual(list((TOP / "twisted").rglob("__init__.py")), [])

    def test_plugin_is_found_once(self) -> None:
        """``twistd`` offers ``portmapd``, once."""
        makers = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "portmapd"]
        self.assertEqual([maker.options.__module__ for maker in makers], ["portmapd.tap"])

    def test_importing_is_cheap(self) -> None:
        """``import portmapd`` imports nothing else of the project, and no Twisted."""
        code = (
            "import portmapd, sys;"
            "print([name for name in sys.modules if name.startswith(('portmapd.', 'twisted'))])"
        )
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP
        )
        self.assertEqual(said.stdout.strip(), "[]")


class MapTests(SynchronousTestCase):
    """The names that applications import from ``portmapd`` and ``portmapd.client``."""

    def test_names(self) -> None:
        """Every name that a package promises is there and listed, and no other."""
        for package in (portmapd, portmapd.client):
            for name in package.__all__:
                self.assertTrue(hasattr(package, name), name)
                self.assertIn(name, dir(package))
            self.assertFalse(hasattr(package, "nonsense"))

    def test_checkers_see_the_same(self) -> None:
        """Type checkers find each name in the module from which it is imported."""
        for package in (portmapd, portmapd.client):
            assert package.__file__ is not None
            tree = ast.parse(Path(package.__file__).read_text())
            found = {
                alias.name: node.module
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            modules = {name: found.get(name) for name in package.__all__ if name != "errors"}
            self.assertEqual(modules, package._MODULES)

    def test_examples_need_few_modules(self) -> None:
        """No example imports from more than three modules of the project."""
        for path in sorted((TOP / "docs" / "examples").rglob("*.py")):
            imported = {
                node.module
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("portmapd")
            }
            self.assertLessEqual(len(imported), 3, f"{path}: {imported}")
