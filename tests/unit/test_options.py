"""Options from command lines, environment variables and files."""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.config import Config
from portmapd.errors import ConfigurationError
from portmapd.options import BY_NAME, MAX_FILE, OPTIONS, settings

#: A line of the file, and what it means.
LINES: list[tuple[str, dict[str, Any]]] = [
    ("port = 10111", {"port": 10_111}),
    ('port = "10111"', {"port": 10_111}),
    ('interface = ["0.0.0.0", "::"]', {"interfaces": ["0.0.0.0", "::"]}),
    ('interface = "192.0.2.1"', {"interfaces": ["192.0.2.1"]}),
    ("no-loopback = true", {"loopback": False}),
    ("no-loopback = false", {}),
    ("insecure = true", {"insecure": True}),
    ('rpc-socket = "none"', {"rpc_socket": None}),
    ('liveness = "off"', {"liveness": None}),
    ("liveness = 0.5", {"liveness": 0.5}),
    ("forget = 5", {"forget": 5.0}),
    ('state = "/s"', {"state": "/s"}),
    ("import-rpcbind = true", {"import_rpcbind": "/run/rpcbind"}),
    ('import-rpcbind-from = "/f"\nimport-rpcbind = true', {"import_rpcbind": "/f"}),
    ("read-executables = true", {}),
    ('trust = ["10.0.0.0/8"]', {"trust": ["10.0.0.0/8"]}),
    ("# port = 1", {}),
    ("", {}),
]

#: Lines of the file, and what is said of them behind its path.
WRONG = [
    ("port = 1\nprot = 4", ", line 2: there is no option 'prot'; did you mean 'port'?"),
    (
        "max_services = 4",
        ", line 1: there is no option 'max_services'; did you mean 'max-services'?",
    ),
    ("zzz = 4", ", line 1: there is no option 'zzz'"),
    ("[server]\nport = 4", ", line 1: there is no option 'server'"),
    ("[port]\nnumber = 4", ", line 1: port is one value"),
    ("config = 'x'", ", line 1: there is no option 'config'"),
    ("\n\nport = 'http'", ", line 3: port 'http' is not a whole number"),
    ("port = true", ", line 1: port is one value"),
    ("port = 1979-05-27", ", line 1: port is one value"),
    ("port = [1]", ", line 1: port is one value"),
    ("port = 1.5", ", line 1: port '1.5' is not a whole number"),
    ("trust = [[1]]", ", line 1: trust is a list of texts"),
    ("insecure = 'yes'", ", line 1: insecure is true or false"),
    ("log-level = 'loud'", ", line 1: log-level 'loud' is none of debug, info, warn, error, "),
    ("port = 70000", ": port 70000 is not in the range 0 to 65535"),
    ("port", " is not TOML: "),
    ("port = 1\nport = 2", " is not TOML: "),
    ("x = '\udcff'", " is not TOML: 'utf-8' codec"),
    ("#" * (MAX_FILE + 1), f" is larger than {MAX_FILE} bytes"),
]

VARIABLES: list[tuple[Mapping[str, str], dict[str, Any]]] = [
    ({"PORTMAPD_PORT": "10111"}, {"port": 10_111}),
    ({"PORTMAPD_INTERFACE": "192.0.2.1, ::"}, {"interfaces": ["192.0.2.1", "::"]}),
    ({"PORTMAPD_ALLOW": "10.0.0.0/8 ::1"}, {"allow": ["10.0.0.0/8", "::1"]}),
    ({"PORTMAPD_NO_LOOPBACK": "yes"}, {"loopback": False}),
    ({"PORTMAPD_INSECURE": "0"}, {}),
    ({"PORTMAPD_MAX_SERVICES": "3", "PORTMAPD_UNKNOWN": "1"}, {"max_services": 3}),
]

WRONG_VARIABLES = [
    ({"PORTMAPD_PORT": "tcp://10.0.0.1:80"}, "PORTMAPD_PORT 'tcp://10.0.0.1:80' is not a whole n"),
    ({"PORTMAPD_INSECURE": "maybe"}, "PORTMAPD_INSECURE 'maybe' is neither yes nor no"),
    ({"PORTMAPD_FORGET": "-1"}, "the environment: forget -1.0: give seconds"),
    ({"PORTMAPD_CONFIG": "/nowhere"}, "/nowhere is not there; --config names the file"),
    ({"PORTMAPD_CONFIG": "/proc"}, "/proc cannot be read: Is a directory"),
]


class OptionsTests(SynchronousTestCase):
    """What options mean, wherever they are given."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name, "portmapd.toml")

    def write(self, text: str) -> str:
        """Write the file; its path."""
        self.file.write_bytes(text.encode(errors="surrogateescape"))
        return str(self.file)

    def test_file(self) -> None:
        """Each line of a file sets its field, and leaves the others as they are."""
        for line, fields in LINES:
            found = settings({}, {}, self.write(line))
            self.assertEqual(found.config(), Config(**fields), line)

    def test_wrong_file(self) -> None:
        """What cannot be used in a file is refused with its line."""
        for text, said in WRONG:
            with self.assertRaises(ConfigurationError) as raised:
                settings({}, {}, self.write(text))
            self.assertEqual(
                str(raised.exception)[: len(f"{self.file}{said}")], f"{self.file}{said}"
            )

    def test_variables(self) -> None:
        """Each variable sets its field."""
        for environ, fields in VARIABLES:
            self.assertEqual(settings({}, environ, "none").config(), Config(**fields), environ)

    def test_wrong_variables(self) -> None:
        """What cannot be used in the environment is refused with its variable."""
        for environ, said in WRONG_VARIABLES:
            with self.assertRaisesRegex(ConfigurationError, said):
                settings({}, environ)

    def test_order(self) -> None:
        """The command line is stronger than the environment, and that stronger than the file."""
        file = self.write('port = 1\nmax-services = 1\nforget = 1\ntrust = ["10.0.0.0/8"]')
        environ = {"PORTMAPD_MAX_SERVICES": "2", "PORTMAPD_FORGET": "2", "PORTMAPD_CONFIG": file}
        found = settings({"forget": "3", "trust": ["::1"]}, environ)
        wanted = Config(port=1, max_services=2, forget=3.0, trust=["::1"])
        self.assertEqual(found.config(), wanted)
        names = [source.name for source in found.sources]
        self.assertEqual(names, [file, "the environment", ""])
        self.assertEqual(set(found.values), {"port", "max-services", "forget", "trust"})

    def test_stronger_source_mends(self) -> None:
        """A value that is refused in the file is refused, even if the command line has another."""
        with self.assertRaisesRegex(ConfigurationError, "port 70000 is not in the range"):
            settings({"port": "1"}, {}, self.write("port = 70000"))

    def test_log_level(self) -> None:
        """The level of the log is a setting, and no part of the configuration."""
        self.assertEqual(settings({}, {}, "none").log_level, "info")
        self.assertEqual(settings({}, {}, self.write('log-level = "warn"')).log_level, "warn")

    def test_defaults(self) -> None:
        """Fields that nobody gave may have other defaults."""
        found = settings({"port": "1"}, {}, "none")
        self.assertEqual(found.config({"port": 2, "forget": 3.0}), Config(port=1, forget=3.0))

    def test_every_field(self) -> None:
        """An option for every field that a file could set; each is described."""
        self.assertEqual(len(BY_NAME), len(OPTIONS))
        for option in OPTIONS:
            self.assertTrue(option.help.endswith("."), option.name)


class PageTests(SynchronousTestCase):
    """The page that lists the options."""

    def test_every_option(self) -> None:
        """An administrator finds every option there."""
        page = Path(__file__).resolve().parents[2] / "docs" / "replace-rpcbind.rst"
        entries = re.findall(r"(?m)^\.\. option:: (.*)$", page.read_text())
        listed = {name for entry in entries for name in re.findall(r"--([a-z-]+)", entry)}
        self.assertEqual(listed, {option.name for option in OPTIONS} | {"config"})
