"""Every form in which applications give a name, its ports, and an RPC program."""

import os
import socket
import tempfile
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.reg_arguments import registrations, rpc_mappings
from portmapd.client.values import Flags
from portmapd.errors import InvalidMapping, InvalidService

NAME = "printer.example.com"


@frozen
class Listening:
    """What has ``getHost()``, as Twisted's listening ports do."""

    host: Any

    def getHost(self) -> Any:
        """Its address."""
        return self.host


class SocketTestCase(SynchronousTestCase):
    """Makes sockets, and closes them."""

    def made(self, family: int, kind: int, address: Any = None) -> socket.socket:
        """A socket, bound to *address*; None: not bound."""
        skt = socket.socket(family, kind)
        self.addCleanup(skt.close)
        if address is not None:
            skt.bind(address)
        return skt

    def stream(self, family: int, address: Any) -> socket.socket:
        """A socket that listens."""
        skt = self.made(family, socket.SOCK_STREAM, address)
        skt.listen()
        return skt

    def folder(self) -> str:
        """A short-named directory."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name


class RegistrationTests(SocketTestCase):
    """What is registered."""

    def ports(self, port: Any) -> list[str]:
        """The ports that are registered for *port*."""
        found = registrations(NAME, port, 0)
        self.assertEqual({(name, flags) for name, _, flags in found}, {(NAME, 0)})
        return [port for _, port, _ in found]

    def refused(self, call: Callable[[], object], field: str) -> None:
        """*call* raises InvalidService with a sentence that names *field*."""
        error = self.assertRaises(InvalidService, call)
        self.assertTrue(str(error).startswith(field), str(error))

    def test_number(self) -> None:
        """A port number, as a number or in digits."""
        self.assertEqual(self.ports(9100), ["9100"])
        self.assertEqual(self.ports("9100"), ["9100"])
        self.assertEqual(self.ports(65535), ["65535"])

    def test_path(self) -> None:
        """An absolute path, in each of Python's ways to write one."""
        for path in ("/run/printer.sock", b"/run/printer.sock", Path("/run/printer.sock")):
            self.assertEqual(self.ports(path), ["/run/printer.sock"])

    def test_flags(self) -> None:
        """Flags travel as a plain number."""
        for flags, number in ((0, 0), (Flags.PUBLIC | Flags.EXCLUSIVE, 3), (2, 2)):
            ((_, _, found),) = registrations(NAME, 1, flags)
            self.assertIs(type(found), int)
            self.assertEqual(found, number)

    def test_tcp_socket(self) -> None:
        """A listening TCP socket stands for its port."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            skt = self.stream(family, (host, 0))
            self.assertEqual(self.ports(skt), [str(skt.getsockname()[1])])

    def test_asyncio_sockets(self) -> None:
        """So do those that asyncio's servers have."""
        sockets = [self.stream(socket.AF_INET, ("127.0.0.1", 0)) for _ in range(2)]
        served = tuple(TransportSocket(skt) for skt in sockets)
        ports = [str(skt.getsockname()[1]) for skt in sockets]
        self.assertEqual(self.ports(served), ports)

    def test_udp_socket(self) -> None:
        """A bound UDP socket stands for its port."""
        skt = self.made(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self.assertEqual(self.ports(skt), [str(skt.getsockname()[1])])

    def test_unix_socket(self) -> None:
        """A listening UNIX socket stands for its path."""
        path = os.path.join(self.folder(), "s")
        self.assertEqual(self.ports(self.stream(socket.AF_UNIX, path)), [path])

    def test_listening_port(self) -> None:
        """What has getHost(), such as Twisted's listening ports."""
        for address, port in (
            (IPv4Address("TCP", "127.0.0.1", 80), "80"),
            (IPv4Address("UDP", "127.0.0.1", 81), "81"),
            (IPv6Address("TCP", "::1", 82), "82"),
            (UNIXAddress(b"/run/printer.sock"), "/run/printer.sock"),
        ):
            self.assertEqual(self.ports(Listening(address)), [port])

    def test_list(self) -> None:
        """Several ports are one registration, and the same port twice counts once."""
        skt = self.stream(socket.AF_INET, ("127.0.0.1", 0))
        number = skt.getsockname()[1]
        self.assertEqual(self.ports([skt, number, "/run/s", str(number), "/run/s"]), [
            str(number), "/run/s",
        ])  # fmt: skip
        self.assertEqual(self.ports((1, {2}, [3, [4]])), ["1", "2", "3", "4"])

    def test_both_families(self) -> None:
        """One service on the same port of IPv4 and IPv6 is one registration."""
        four = self.stream(socket.AF_INET, ("127.0.0.1", 0))
        six = self.stream(socket.AF_INET6, ("::1", four.getsockname()[1]))
        self.assertEqual(len(self.ports([four, six])), 1)

    def test_several_names(self) -> None:
        """A list of (name, port, flags) is one registration; flags may be left out."""
        names: Any = [("a", 1, Flags.PUBLIC), ["b", [2, "/s"]], ("a", 1, 2)]
        found = registrations(names)
        self.assertEqual(found, (("a", "1", 2), ("b", "2", 0), ("b", "/s", 0)))
        found = registrations([("a", 1, 0), ("b", 2)], flags=Flags.EXCLUSIVE)
        self.assertEqual(found, (("a", "1", 0), ("b", "2", 1)))

    def test_generated_names(self) -> None:
        """The list may be anything that can be iterated."""
        self.assertEqual(registrations((n, 1) for n in "ab"), (("a", "1", 0), ("b", "1", 0)))

    def test_no_port(self) -> None:
        """What is neither number nor path nor socket."""
        for port in (None, 1.5, True, object(), {"port": 1}):
            self.refused(lambda port=port: registrations(NAME, port), "port")  # type: ignore[misc]

    def test_bad_port(self) -> None:
        """Numbers that are not ports, and paths that are not absolute."""
        long = "9" * 5_000
        for port in (0, -1, 65536, "0", "65536", long, "http", "run/s", "", [], [1, []], [0], "٨٠"):
            self.refused(lambda port=port: registrations(NAME, port), "port")  # type: ignore[misc]

    def test_sockets_that_do_not_listen(self) -> None:
        """Sockets that nobody can reach: not bound, not listening, connected, closed."""
        address = ("127.0.0.1", 0)
        server = self.stream(socket.AF_INET, address)
        datagrams = self.made(socket.AF_INET, socket.SOCK_DGRAM, address)
        caller = self.made(socket.AF_INET, socket.SOCK_STREAM)
        caller.connect(server.getsockname())
        talker = self.made(socket.AF_INET, socket.SOCK_DGRAM, address)
        talker.connect(datagrams.getsockname())
        closed = self.stream(socket.AF_INET, address)
        closed.close()
        for skt in (
            self.made(socket.AF_INET, socket.SOCK_STREAM),
            self.made(socket.AF_INET, socket.SOCK_STREAM, address),
            self.made(socket.AF_INET, socket.SOCK_DGRAM),
            self.made(socket.AF_UNIX, socket.SOCK_DGRAM),
            caller,
            talker,
            closed,
        ):
            self.refused(lambda skt=skt: registrations(NAME, skt), "port")  # type: ignore[misc]

    def test_sockets_without_a_path(self) -> None:
        """UNIX sockets of a relative path, or of the abstract name space, have none to register."""
        self.refused(
            lambda: registrations(NAME, self.stream(socket.AF_UNIX, b"\0portmapd-test")), "port"
        )
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder())
        self.refused(lambda: registrations(NAME, self.stream(socket.AF_UNIX, "s")), "port")

    def test_other_addresses(self) -> None:
        """Listening ports that do not listen, or are of another kind."""
        for host in (UNIXAddress(None), HostnameAddress(b"localhost", 80), None):
            port = Listening(host)
            self.refused(lambda port=port: registrations(NAME, port), "port")  # type: ignore[misc]
        self.refused(lambda: registrations(NAME, Port(0, Factory())), "port")

    def test_bad_names(self) -> None:
        """What is neither a name nor a list of them."""
        for names in (None, 5, b"a", [], [()], [("a",)], [("a", 1, 0, 0)], [(1, 2)], ["ab"]):
            self.refused(lambda names=names: registrations(names), "name")  # type: ignore[misc]

    def test_port_beside_list(self) -> None:
        """A list of names brings its own ports."""
        self.refused(lambda: registrations([("a", 1)], 2), "port")

    def test_bad_flags(self) -> None:
        """Flags are a number."""
        for flags in ("1", None, True, 1.0):
            self.refused(lambda flags=flags: registrations(NAME, 1, flags), "flags")  # type: ignore[misc]


class RpcMappingTests(SocketTestCase):
    """What is mapped with ``rpc=``."""

    def mapped(self, port: Any, rpc: Any = (300, 2)) -> list[tuple[str, str]]:
        """The netids and addresses for *port*."""
        found = rpc_mappings(rpc, port)
        self.assertEqual({row[:2] for row in found}, {tuple(rpc[:2])})
        return [row[2:] for row in found]

    def test_number(self) -> None:
        """A number is a TCP port on every address, unless a netid is given."""
        self.assertEqual(self.mapped(0x1234), [("tcp", "0.0.0.0.18.52")])
        self.assertEqual(self.mapped(1, (300, 2, "udp")), [("udp", "0.0.0.0.0.1")])
        self.assertEqual(self.mapped(1, [300, 2, "tcp6"]), [("tcp6", "::.0.1")])

    def test_path(self) -> None:
        """A path has netid local."""
        self.assertEqual(self.mapped("/run/s"), [("local", "/run/s")])
        self.assertEqual(self.mapped("/run/s", (300, 2, "udp")), [("local", "/run/s")])

    def test_sockets(self) -> None:
        """Sockets give their own netid and address; wildcards are kept."""
        for family, kind, host, netid in (
            (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", "tcp"),
            (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", "tcp"),
            (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", "udp"),
            (socket.AF_INET6, socket.SOCK_DGRAM, "::1", "udp6"),
        ):
            skt = self.made(family, kind, (host, 0))
            if kind == socket.SOCK_STREAM:
                skt.listen()
            port = skt.getsockname()[1]
            self.assertEqual(self.mapped(skt), [(netid, f"{host}.{port >> 8}.{port & 255}")])

    def test_both_families(self) -> None:
        """A socket that IPv4 reaches as well has a mapping for each."""
        for only, netids in ((0, ["tcp6", "tcp"]), (1, ["tcp6"])):
            skt = self.made(socket.AF_INET6, socket.SOCK_STREAM)
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            skt.bind(("::", 0))
            skt.listen()
            port = skt.getsockname()[1]
            hosts = {"tcp6": "::", "tcp": "0.0.0.0"}
            expected = [(netid, f"{hosts[netid]}.{port >> 8}.{port & 255}") for netid in netids]
            self.assertEqual(self.mapped(skt), expected)
            self.assertEqual(len(registrations(NAME, skt)), 1)

    def test_two_addresses(self) -> None:
        """A version has one address on each netid; two are refused, with both."""
        for ports in ([80, 81], [80, self.stream(socket.AF_INET, ("127.0.0.1", 0))]):
            error = self.assertRaises(InvalidMapping, rpc_mappings, (300, 2), ports)
            self.assertIn("on tcp", str(error))
            self.assertIn("0.0.0.0.0.80", str(error))

    def test_list_of_names(self) -> None:
        """A list of names leaves open whose ports are mapped."""
        error = self.assertRaises(InvalidMapping, rpc_mappings, (300, 2), None)
        self.assertIn("one name", str(error))

    def test_given_netid_leaves_sockets_alone(self) -> None:
        """A socket's own netid counts, whatever is given for numbers."""
        skt = self.stream(socket.AF_INET, ("127.0.0.1", 0))
        ((netid, _),) = self.mapped(skt, (300, 2, "udp"))
        self.assertEqual(netid, "tcp")

    def test_listening_ports(self) -> None:
        """Twisted's ports, likewise; the scope of a link-local address is not part of it."""
        self.assertEqual(
            self.mapped([
                Listening(IPv4Address("UDP", "192.0.2.1", 256)),
                Listening(IPv6Address("TCP", "fe80::1%eth0", 1)),
                Listening(UNIXAddress(b"/run/s")),
            ]),
            [("udp", "192.0.2.1.1.0"), ("tcp6", "fe80::1.0.1"), ("local", "/run/s")],
        )  # fmt: skip

    def test_same_twice(self) -> None:
        """The same mapping twice counts once."""
        self.assertEqual(self.mapped([5, "5", 5]), [("tcp", "0.0.0.0.0.5")])

    def test_bad_rpc(self) -> None:
        """What is not a program and version."""
        wrong: tuple[Any, ...] = (
            None,
            5,
            (1,),
            (1, 2, "sctp"),
            (1, 2, "tcp", 4),
            ("1", 2),
            (1, 2, []),
            "ab",
        )
        for rpc in wrong:
            error = self.assertRaises(InvalidMapping, rpc_mappings, rpc, 5)
            self.assertTrue(str(error).startswith("rpc"), str(error))

    def test_bad_port(self) -> None:
        """A port that cannot be registered cannot be mapped."""
        wrong: tuple[Any, ...] = (0, "http", [])
        for port in wrong:
            self.assertRaises(InvalidService, rpc_mappings, (300, 2), port)
