"""The project as it is installed: its packages, its plugin, what importing it costs."""

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

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
