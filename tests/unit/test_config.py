"""The configuration: its defaults, and for every field what is refused, in which words."""

import os
import re
import socket
from ipaddress import ip_network
from typing import Any

from attrs import fields_dict
from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SynchronousTestCase

from portmapd.cluster_config import ClusterConfig
from portmapd.config import Config, default_state, parse_network
from portmapd.errors import ConfigurationError
from portmapd.portmapper.access import Callit, Policy
from portmapd.portmapper.advertisement import Advertisement

#: Field, value, what it becomes.
CLUSTER = ClusterConfig(members="http://192.0.2.1:2379", host="one")

TAKEN: list[tuple[str, Any, Any]] = [
    ("port", 0, 0),
    ("port", 65_535, 65_535),
    ("interfaces", [], ()),
    ("interfaces", ["0.0.0.0", "::"], ("0.0.0.0", "::")),
    ("interfaces", ("192.0.2.1", "192.0.2.2"), ("192.0.2.1", "192.0.2.2")),
    ("interfaces", ("fe80::1%eth0", "fe80::1%eth1"), ("fe80::1%eth0", "fe80::1%eth1")),
    ("interfaces", ("0.0.0.0", "::1"), ("0.0.0.0", "::1")),
    ("loopback", False, False),
    ("advertise", ["192.0.2.1"], (Advertisement(ip_network("0.0.0.0/0"), "192.0.2.1"),)),
    ("advertise", ["2001:DB8::1"], (Advertisement(ip_network("::/0"), "2001:db8::1"),)),
    (
        "advertise",
        ["10.0.0.1/8=192.0.2.1", Advertisement(ip_network("::/0"), "2001:db8::1")],
        (
            Advertisement(ip_network("10.0.0.0/8"), "192.0.2.1"),
            Advertisement(ip_network("::/0"), "2001:db8::1"),
        ),
    ),
    ("cluster", None, None),
    ("cluster", CLUSTER, CLUSTER),
    ("rpc_socket", None, None),
    ("rpc_socket", "/" + "x" * 106, "/" + "x" * 106),
    ("rpc_socket", "/run/é s", "/run/é s"),
    ("local_socket", None, None),
    ("local_socket", "/run/s", "/run/s"),
    ("max_services", 1, 1),
    ("max_services", 1_000_000, 1_000_000),
    *((f"max_{kind}mappings", 1, 1) for kind in ("", "user_", "total_")),
    ("trust", ["10.0.0.0/8"], (ip_network("10.0.0.0/8"),)),
    ("trust", ["10.1.2.3/8"], (ip_network("10.0.0.0/8"),)),
    ("trust", [ip_network("2001:db8::/32")], (ip_network("2001:db8::/32"),)),
    ("allow", ["192.0.2.7", "::1"], (ip_network("192.0.2.7/32"), ip_network("::1/128"))),
    ("insecure", True, True),
    ("callit", "off", Callit.OFF),
    ("callit", "local", Callit.LOCAL),
    ("callit", "null", Callit.NULL),
    ("callit", "all", Callit.ALL),
    ("callit", Callit.ALL, Callit.ALL),
    ("liveness", 0.05, 0.05),
    ("liveness", 3600, 3600),
    ("liveness", None, None),
    ("forget", 0, 0),
    ("forget", 86_400, 86_400),
    ("state", None, None),
    ("state", "/srv/" + "x" * 200, "/srv/" + "x" * 200),
    ("import_rpcbind", "/run/rpcbind/", "/run/rpcbind/"),
    ("http", "tcp:8080", "tcp:8080"),
    ("http", "unix:/run/portmapd/http.sock", "unix:/run/portmapd/http.sock"),
    ("http_names", ["www.example.com"], ("www.example.com",)),
    ("idle", 0.05, 0.05),
    ("max_streams", 1, 1),
]

NO_INTERFACE = "interface {!r} is no IPv4 or IPv6 address; give the address of an interface"
NO_PATH = "{} {!r} is not an absolute path of at most 107 bytes"
SECONDS = "{} {}: give seconds from 0.05 to 3600"
COUNT = "{} {}: give a number from 1 on"
NO_NETWORK = "{!r} is not a network: .*; give it like 192.0.2.0/24 or 2001:db8::/32"
OVERLAP = "interface {} is given twice, or covers another one: leave one of them out"

#: Field, value, what is said of it.
REFUSED: list[tuple[str, Any, str]] = [
    ("cluster", "http://192.0.2.1:2379", "cluster .* is no ClusterConfig"),
    *(
        ("port", n, f"port {n} is not in the range 0 to 65535")
        for n in (-1, 65_536, "111", True, None)
    ),
    *(
        (field, flag, f"{field} .*: give True or False")
        for field in ("insecure", "loopback")
        for flag in ("no", 1, None)
    ),
    ("liveness", "1", re.escape(SECONDS.format("liveness", "1"))),
    ("max_streams", True, re.escape(COUNT.format("max-streams", True))),
    ("trust", (5,), "5 is not a network"),
    *(
        ("interfaces", [text], re.escape(NO_INTERFACE.format(text)))
        for text in ("", "eth0", "localhost", "127.0.0", "127.0.0.1/8", "[::1]", "::1%", "1.2.3.4 ")
    ),
    *(
        ("advertise", [text], f"advertise {text!r}: {why}")
        for text, why in (
            ("", "it has no address"),
            ("host", "it has no address"),
            ("10.0.0.0/8=", "it has no address"),
            ("192.0.2.1=10.0.0.0/8", "it has no address"),
            ("10.0.0.0/8=2001:db8::1", "the network is of another family"),
            ("0.0.0.0", "0.0.0.0 is not an address of a host"),
            ("::/0=ff02::1", "ff02::1 is not an address of a host"),
            ("fe80::1%eth0", "fe80::1%eth0 is not an address of a host"),
            ("::ffff:192.0.2.1", ".* is not an address of a host"),
        )
    ),
    ("advertise", ["=192.0.2.1"], "'' is not a network"),
    ("advertise", ["10/8=192.0.2.1"], "'10/8' is not a network"),
    (
        "advertise",
        ["192.0.2.1", "0.0.0.0/0=192.0.2.2"],
        "advertise: callers of 0.0.0.0/0 are told two",
    ),
    *(
        ("http", text, f"http {re.escape(repr(text))} is no endpoint of Twisted .*; give one such")
        for text in ("", "8080", "http://localhost", "tcp:http", "tcp:1:2:3:4:5", "tcp:80:host=x")
    ),
    *(
        ("http_names", [text], "http-name .* is not the name of a host")
        for text in ("", "a b", "a/b", "host:80", "http://host", "host.", "é.example", "x" * 300)
    ),
    ("interfaces", ["127.0.0.1", "x"], NO_INTERFACE.format("x")),
    ("interfaces", "127.0.0.1", NO_INTERFACE.format("1")),
    ("interfaces", ["127.0.0.1", "127.0.0.1"], OVERLAP.format("127.0.0.1")),
    ("interfaces", ["::1", "0:0::1"], OVERLAP.format("::1")),
    ("interfaces", ["127.0.0.1", "0.0.0.0"], OVERLAP.format("0.0.0.0")),
    ("interfaces", ["::", "0.0.0.0", "::1"], OVERLAP.format("::")),
    *(
        (field, path, NO_PATH.format(field.replace("_", "-"), path))
        for field in ("rpc_socket", "local_socket")
        for path in ("", "run/s", "none", "/" + "x" * 107, "/" + "é" * 54)
    ),
    *(
        (field, path, f"{field.replace('_', '-')} .* is not an absolute path")
        for field in ("rpc_socket", "local_socket")
        for path in ("/run/\n", "/run/\0", "/run/\udcff", "/run/\ud800")
    ),
    *(
        (field, seconds, SECONDS.format(field, seconds))
        for field in ("liveness", "idle")
        for seconds in (0.0, -1.0, 0.049, 3600.1, float("inf"), float("nan"))
    ),
    *(
        (field, count, COUNT.format(field.replace("_", "-"), count))
        for field in (
            "max_streams",
            "max_services",
            "max_mappings",
            "max_user_mappings",
            "max_total_mappings",
        )
        for count in (0, -1)
    ),
    *(
        ("forget", seconds, f"forget {seconds}: give seconds from 0 to 86400")
        for seconds in (-1.0, 86_400.1, float("inf"), float("nan"), "1", None, True)
    ),
    *(
        ("state", path, f"state {re.escape(repr(path))} is not an absolute path without control")
        for path in ("", "mappings", "/srv/", "/srv/a\nb", "\0s")
    ),
    *(
        ("import_rpcbind", path, f"import-rpcbind {re.escape(repr(path))} is not an absolute path")
        for path in ("", "rpcbind", "/run/\n")
    ),
    *(
        (field, [text], NO_NETWORK.format(text))
        for field in ("trust", "allow")
        for text in ("", "lan", "10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "10.0.0.0/-1")
    ),
    ("trust", "10.0.0.0/8", NO_NETWORK.format("1")),
    ("trust", ("::ffff:10.0.0.0/104",), NO_NETWORK.format("::ffff:10.0.0.0/104")),
    ("allow", ("::ffff:10.99.0.2",), NO_NETWORK.format("::ffff:10.99.0.2")),
    *(
        ("callit", value, f"callit {value!r} is none of off, local, null, all")
        for value in ("", "LOCAL", "none", None, True)
    ),
]


class ConfigTests(SynchronousTestCase):
    """What a port mapper may be told to do."""

    def test_taken(self) -> None:
        """Values within their ranges are taken."""
        for field, value, becomes in TAKEN:
            self.assertEqual(getattr(Config(**{field: value}), field), becomes, field)

    def test_refused(self) -> None:
        """All others are refused with a sentence that names the field."""
        for field, value, said in REFUSED:
            with self.assertRaisesRegex(ConfigurationError, f"^{said}"):
                Config(**{field: value})

    def test_every_field_is_here(self) -> None:
        """The tables above leave no field out; a flag has nothing to refuse."""
        every = set(fields_dict(Config))
        self.assertEqual({field for field, _, _ in TAKEN}, every)
        self.assertEqual({field for field, _, _ in REFUSED}, every)

    def test_default_state(self) -> None:
        """A daemon keeps mappings where systemd lets it, else where root may; others nowhere."""
        self.assertEqual(default_state({"STATE_DIRECTORY": "/s"}), "/s/mappings")
        self.assertEqual(default_state({"STATE_DIRECTORY": "/s:/t"}), "/s/mappings")
        roots = "/var/lib/portmapd/mappings"
        self.assertEqual(default_state({}), roots if os.geteuid() == 0 else None)
        self.assertIsNone(Config().state)

    def test_frozen(self) -> None:
        """A configuration does not change."""
        with self.assertRaises(FrozenInstanceError):
            Config().port = 1  # type: ignore[misc]

    def test_policy(self) -> None:
        """Its policy is the part of it that says who may do what."""
        config = Config(trust=["10.0.0.0/8"], allow=["192.0.2.7"], insecure=True, callit="all")
        self.assertEqual(
            config.policy,
            Policy((ip_network("10.0.0.0/8"),), (ip_network("192.0.2.7"),), True, Callit.ALL),
        )
        self.assertEqual(Config().policy, Policy())

    def test_network(self) -> None:
        """A network may be written with the bits of one of its hosts, or be one host."""
        self.assertEqual(parse_network("10.1.2.3/8"), ip_network("10.0.0.0/8"))
        self.assertEqual(parse_network("2001:db8::7"), ip_network("2001:db8::7/128"))


class DefaultTests(SynchronousTestCase):
    """What is done where nothing is said."""

    def become(self, uid: int, runtime: str | None, error: type[OSError] | None = None) -> None:
        """Have the process look like that user's, to whom bind says *error*."""

        class Socket(socket.socket):
            def bind(self, address: object) -> None:
                if error is not None:
                    raise error

        self.patch(socket, "socket", Socket)
        self.patch(os, "geteuid", lambda: uid)
        environ = {} if runtime is None else {"XDG_RUNTIME_DIR": runtime}
        self.patch(os, "environ", environ)

    def test_root(self) -> None:
        """Root has the well-known port and sockets."""
        self.become(0, "/run/user/0")
        config = Config()
        self.assertEqual((config.port, config.rpc_socket), (111, "/run/rpcbind.sock"))
        self.assertEqual(config.local_socket, "/run/portmapd/portmapd.sock")

    def test_user(self) -> None:
        """Others have what they can bind, in their own directory."""
        self.become(1000, "/run/user/1000", PermissionError)
        config = Config()
        self.assertEqual((config.port, config.rpc_socket), (10_111, None))
        self.assertEqual(config.local_socket, "/run/user/1000/portmapd.sock")

    def test_the_right_counts(self) -> None:
        """Who may bind port 111 has it as the default, whoever that is, and no one else."""
        for uid, error, port in (
            (1000, None, 111),
            (1000, OSError, 111),
            (0, PermissionError, 10_111),
        ):
            self.become(uid, None, error)
            self.assertEqual(Config().port, port)

    def test_user_without_a_directory(self) -> None:
        """Without one, there is a private one for the channel."""
        for runtime in (None, "", "run"):
            self.become(4_242_424, runtime)
            self.assertEqual(Config().local_socket, "/tmp/portmapd-4242424/portmapd.sock")

    def test_addresses(self) -> None:
        """Loopback is served beside the addresses, unless it is covered or not wanted."""
        for interfaces, served in (
            ((), ()),
            (("127.0.0.1", "::1"), ("127.0.0.1", "::1")),
            (("192.0.2.1",), ("192.0.2.1", "127.0.0.1", "::1")),
            (("2001:db8::1",), ("2001:db8::1", "127.0.0.1", "::1")),
            (("127.0.0.5",), ("127.0.0.5", "127.0.0.1", "::1")),
            (("0:0::1",), ("0:0::1", "127.0.0.1")),
            (("0.0.0.0",), ("0.0.0.0", "::1")),
            (("0.0.0.0", "::"), ("0.0.0.0", "::")),
        ):
            self.assertEqual(Config(interfaces=interfaces).addresses, served)
            self.assertEqual(Config(interfaces=interfaces, loopback=False).addresses, interfaces)

    def test_everyone(self) -> None:
        """The rest is the same for all."""
        config = Config()
        self.assertEqual(config.interfaces, ("127.0.0.1", "::1"))
        self.assertEqual((config.trust, config.allow, config.insecure), ((), (), False))
        self.assertEqual((config.callit, config.liveness), (Callit.LOCAL, 1.0))
        self.assertEqual((config.max_services, config.max_streams, config.idle), (10, 1024, 60.0))
        self.assertEqual((config.max_mappings, config.forget), (64, 60.0))
        self.assertEqual((config.max_user_mappings, config.max_total_mappings), (1_000, 100_000))
