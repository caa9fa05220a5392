"""The options of ``twistd portmapd``."""

import resource
from typing import Any

from twisted.application.service import IService, ServiceMaker
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from portmapd import tap
from portmapd.cluster_config import ClusterConfig
from portmapd.config import Config
from portmapd.options import BY_NAME
from portmapd.service import PortmapperService
from portmapd.tap import CannotStart, Options, TwistdPortmapper
from tests.support.rpc_server import MemoryReactor

#: Arguments, the fields that they set.
TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("--port 0", {"port": 0}),
    ("--port=10111", {"port": 10_111}),
    ("-p 10111", {"port": 10_111}),
    ("--interface 192.0.2.1", {"interfaces": ["192.0.2.1"]}),
    ("--interface 0.0.0.0 --interface ::", {"interfaces": ["0.0.0.0", "::"]}),
    ("--interface 192.0.2.1 --no-loopback", {"interfaces": ["192.0.2.1"], "loopback": False}),
    (
        "--advertise 192.0.2.1 --advertise 10.0.0.0/8=10.0.0.1",
        {"advertise": ["192.0.2.1", "10.0.0.0/8=10.0.0.1"]},
    ),
    ("--rpc-socket /run/s", {"rpc_socket": "/run/s"}),
    ("--rpc-socket none", {"rpc_socket": None}),
    ("--local-socket /run/l", {"local_socket": "/run/l"}),
    ("--local-socket none", {"local_socket": None}),
    ("--max-services 3", {"max_services": 3}),
    ("--max-mappings 3", {"max_mappings": 3}),
    ("--max-user-mappings 3", {"max_user_mappings": 3}),
    ("--max-total-mappings 3", {"max_total_mappings": 3}),
    ("--trust 10.0.0.0/8 --trust ::1", {"trust": ["10.0.0.0/8", "::1"]}),
    ("--allow 10.0.0.0/8 --allow ::1", {"allow": ["10.0.0.0/8", "::1"]}),
    ("--insecure", {"insecure": True}),
    ("--callit off", {"callit": "off"}),
    ("--callit all", {"callit": "all"}),
    (
        "--http tcp:8080 --http-name a --http-name b.example",
        {"http": "tcp:8080", "http_names": ["a", "b.example"]},
    ),
    (
        "--cluster http://192.0.2.1:2379,http://192.0.2.2:2379 --cluster-host one "
        "--cluster-address 192.0.2.9 --cluster-prefix /lab/ --cluster-ttl 5 --cluster-stale 30 "
        "--cluster-mappings 100003,100005",
        {
            "cluster": ClusterConfig(
                members=("http://192.0.2.1:2379", "http://192.0.2.2:2379"),
                host="one",
                address="192.0.2.9",
                prefix="/lab/",
                ttl=5,
                stale=30.0,
                mappings={100_003, 100_005},
            )
        },
    ),
    (
        "--cluster https://etcd.example:2379 --cluster-mappings all --cluster-user portmapd "
        "--cluster-password-file /etc/p --cluster-ca /etc/ca --cluster-cert /etc/c --cluster-key k",
        {
            "cluster": ClusterConfig(
                members=["https://etcd.example:2379"],
                mappings=None,
                user="portmapd",
                password_file="/etc/p",
                ca="/etc/ca",
                cert="/etc/c",
                key="k",
            )
        },
    ),
    ("--log-level debug", {}),
    ("--read-executables", {}),
    ("--liveness 0.5", {"liveness": 0.5}),
    ("--liveness 2", {"liveness": 2.0}),
    ("--liveness off", {"liveness": None}),
    ("--forget 0", {"forget": 0.0}),
    ("--forget 120", {"forget": 120.0}),
    ("--state /srv/mappings", {"state": "/srv/mappings"}),
    ("--import-rpcbind", {"import_rpcbind": "/run/rpcbind"}),
    ("--import-rpcbind-from /srv", {"import_rpcbind": "/srv"}),
]

#: Arguments, what is said of them.
CLUSTER = "--cluster http://192.0.2.1:2379"
REFUSED = [
    ("--cluster etcd:2379", "portmapd: cluster 'etcd:2379' is not the address of a member of etcd"),
    ("--cluster http://a:1,https://b:1", "portmapd: cluster: give https for all members, or for"),
    ("--cluster http://a/b", "portmapd: cluster 'http://a/b' is not the address of a member"),
    (f"{CLUSTER} --cluster-host a/b", "portmapd: cluster-host 'a/b' is not a name of letters"),
    (f"{CLUSTER} --cluster-address ::1", "portmapd: cluster-address '::1' is not an address at"),
    (f"{CLUSTER} --cluster-prefix a", "portmapd: cluster-prefix 'a' is not a path"),
    (f"{CLUSTER} --cluster-ttl 1", "portmapd: cluster-ttl 1: give whole seconds from 2 to 3,600"),
    (f"{CLUSTER} --cluster-stale 0", "portmapd: cluster-stale 0.0: give seconds from 1 to 86,400"),
    (f"{CLUSTER} --cluster-mappings nfs", "portmapd: cluster-mappings 'nfs': give numbers of pro"),
    (
        f"{CLUSTER} --cluster-user a",
        "portmapd: give --cluster-user and --cluster-password",
    ),
    (f"{CLUSTER} --cluster-password-file a", "portmapd: give --cluster-user and --cluster-pass"),
    (f"{CLUSTER} --cluster-cert a", "portmapd: give --cluster-cert and --cluster-key together"),
    (f"{CLUSTER} --cluster-key a", "portmapd: give --cluster-cert and --cluster-key together"),
    ("--cluster-ca /etc/ca", "portmapd: cluster-ca is of no use without cluster: name members"),
    ("--port http", "portmapd: --port 'http' is not a whole number"),
    ("--port 1.5", "portmapd: --port '1.5' is not a whole number"),
    ("--port 65536", "portmapd: port 65536 is not in the range 0 to 65535"),
    ("--interface eth0", "portmapd: interface 'eth0' is no IPv4 or IPv6 address; give"),
    ("--interface :: --interface ::1", "portmapd: interface :: is given twice, or covers"),
    ("--advertise host", "portmapd: advertise 'host': it has no address; give ADDRESS or"),
    ("--rpc-socket run/s", "portmapd: rpc-socket 'run/s' is not an absolute path"),
    ("--rpc-socket=", "portmapd: rpc-socket '' is not an absolute path"),
    ("--local-socket run/s", "portmapd: local-socket 'run/s' is not an absolute path"),
    ("--max-services many", "portmapd: --max-services 'many' is not a whole number"),
    ("--max-services 0", "portmapd: max-services 0: give a number from 1 on"),
    ("--max-mappings none", "portmapd: --max-mappings 'none' is not a whole number"),
    ("--max-user-mappings 0", "portmapd: max-user-mappings 0: give a number from 1 on"),
    ("--max-total-mappings -1", "portmapd: max-total-mappings -1: give a number from 1 on"),
    ("--forget never", "portmapd: --forget 'never' is not a number of seconds"),
    ("--forget -1", "portmapd: forget -1.0: give seconds from 0 to 86400"),
    ("--trust lan", "portmapd: 'lan' is not a network: .*; give it like"),
    ("--allow 10.0.0.0/99", "portmapd: '10.0.0.0/99' is not a network: .*; give it like"),
    ("--callit some", "portmapd: callit 'some' is none of off, local, null, all"),
    (
        "--http 8080",
        "portmapd: http '8080' is no endpoint of Twisted .*; give one such as",
    ),
    (
        "--http tcp:8080 --http-name a:8080",
        "portmapd: http-name 'a:8080' is not the name of a host",
    ),
    ("--log-level loud", "portmapd: --log-level 'loud' is none of debug, info, warn, error, crit"),
    ("--log-level=", "portmapd: --log-level '' is none of debug, info, warn, error, critical"),
    ("--liveness soon", "portmapd: --liveness 'soon' is not a number of seconds"),
    ("--liveness nan", "portmapd: liveness nan: give seconds from 0.05 to 3600"),
    ("--liveness 0", "portmapd: liveness 0.0: give seconds from 0.05 to 3600"),
    ("--state mappings", "portmapd: state 'mappings' is not an absolute path"),
    ("--import-rpcbind-from run", "portmapd: import-rpcbind 'run' is not an absolute path"),
    ("--import-rpcbind=yes", "import-rpcbind"),
    ("--insecure=yes", "insecure"),
    ("--no-loopback=yes", "no-loopback"),
    ("--read-executables=all", "read-executables"),
    ("--unknown", "unknown"),
    ("--port", "port"),
    ("start", "portmapd takes options only, not 'start'"),
]


def parsed(arguments: str) -> Options:
    """The options that the arguments give."""
    options = Options()
    options.parseOptions(arguments.split())
    return options


class OptionsTests(SynchronousTestCase):
    """From arguments to a configuration."""

    def test_taken(self) -> None:
        """Every option sets its field, and leaves the others as they are."""
        for arguments, fields in TAKEN:
            config = parsed(f"--state none {arguments}").config()
            self.assertEqual(config, Config(**fields), arguments)

    def test_refused(self) -> None:
        """What cannot be used is a usage error that says why."""
        for arguments, said in REFUSED:
            with self.assertRaisesRegex(UsageError, said):
                parsed(arguments).config()

    def test_every_option_is_here(self) -> None:
        """The tables above use every option."""
        for table in (TAKEN, REFUSED):
            used = " ".join(arguments for arguments, _ in table)
            self.assertEqual([o for o in BY_NAME if f"--{o}" not in used], [])

    def test_help(self) -> None:
        """``--help`` mentions every option."""
        text = str(Options())
        for option in BY_NAME:
            self.assertRegex(text, rf"--{option}\b")

    def test_options_do_not_share(self) -> None:
        """What one command line repeats is not another's."""
        parsed("--trust 10.0.0.0/8")
        self.assertEqual(parsed("").config().trust, ())


class ServiceTests(SynchronousTestCase):
    """From options to a service."""

    def setUp(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)

    def test_service(self) -> None:
        """The service has the configuration that was asked for, and binds nothing yet."""
        service = tap.makeService(parsed("--port 0 --insecure --local-socket none --state none"))
        self.assertTrue(IService.providedBy(service))
        assert isinstance(service, PortmapperService)
        self.assertEqual(service.config, Config(port=0, insecure=True, local_socket=None))
        self.assertFalse(service.running)

    def test_refused(self) -> None:
        """An option that cannot be used ends the start with the line that says why."""
        with self.assertRaises(CannotStart) as raised:
            tap.makeService(parsed("--port 65536"))
        self.assertEqual(
            str(raised.exception), "portmapd: port 65536 is not in the range 0 to 65535"
        )

    def test_plugin(self) -> None:
        """The plugin leads here."""
        from twisted.plugins import portmapd_plugin

        maker = portmapd_plugin.portmapd
        assert isinstance(maker, ServiceMaker)
        self.assertEqual((maker.tapname, maker.module), ("portmapd", tap.__name__))
        self.assertIs(maker.options, Options)

    def test_cannot_start(self) -> None:
        """A socket that cannot be used ends the start with one line."""
        config = Config(interfaces=(), rpc_socket="/dev/null/socket", local_socket=None)
        service = TwistdPortmapper(config, MemoryReactor())
        with self.assertRaises(CannotStart) as raised:
            service.privilegedStartService()
        self.assertEqual(len(str(raised.exception).splitlines()), 1)
        self.assertIn("portmapd: the socket /dev/null/socket cannot be used", str(raised.exception))

    def test_cannot_start_tells(self) -> None:
        """The interpreter ends with that line and status 1, as it does with any such code."""
        fault = CannotStart("why")
        assert isinstance(fault, SystemExit)
        self.assertEqual((str(fault), fault.code), ("why", "why"))
