"""Sockets that a service manager hands in: which is which, and what is refused."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from portmapd.config import Config
from portmapd.errors import ConfigurationError
from portmapd.server.handed_in_sockets import (
    HandedInDescriptor,
    HandedInSockets,
    initial_environment,
    sort_sockets,
    take_descriptors,
)

UDP, TCP, UNIX = socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.AF_UNIX
V4, V6 = socket.AF_INET, socket.AF_INET6


class SocketsCase(SynchronousTestCase):
    """Makes what is handed in."""

    def setUp(self) -> None:
        self.folder = Path(mkdtemp())
        self.addCleanup(rmtree, self.folder)
        self.rpc, self.channel = str(self.folder / "rpc"), str(self.folder / "channel")

    def keep(self, skt: socket.socket) -> int:
        """Its descriptor, which whoever it is handed to closes."""
        number = skt.detach()
        self.addCleanup(self._close, number)
        return number

    def _close(self, number: int) -> None:
        try:
            os.close(number)
        except OSError:
            pass

    def internet(
        self, family: int, kind: int, host: str, port: int = 0, *, listens: bool = True
    ) -> socket.socket:
        """A bound socket, which listens if it can."""
        skt = socket.socket(family, kind)
        if family == V6:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        skt.bind((host, port))
        if kind == TCP and listens:
            skt.listen()
        return skt

    def unix(self, path: str | bytes, kind: int = TCP) -> socket.socket:
        """The same, at a path."""
        skt = socket.socket(UNIX, kind)
        skt.bind(path)
        if kind == TCP:
            skt.listen()
        return skt

    def sort(self, *handed: tuple[str, socket.socket] | socket.socket) -> HandedInSockets:
        """What these are, with their names."""
        named = [each if isinstance(each, tuple) else ("", each) for each in handed]
        descriptors = [HandedInDescriptor(self.keep(skt), name) for name, skt in named]
        sorted_ = sort_sockets(descriptors, self.rpc, self.channel)
        for table in (sorted_.udp, sorted_.tcp):
            for sockets in table.values():
                for skt in sockets:
                    self.addCleanup(skt.close)
        for skt in (*sorted_.rpc.values(), *sorted_.channel.values()):
            self.addCleanup(skt.close)
        return sorted_


class SortTests(SocketsCase):
    """What is served on which."""

    def test_without_names(self) -> None:
        """Each is told by its family, its type, and where it is bound."""
        tcp = self.internet(V4, TCP, "0.0.0.0")
        port = tcp.getsockname()[1]
        found = self.sort(
            self.unix(self.channel),
            tcp,
            self.internet(V4, UDP, "0.0.0.0", port),
            self.internet(V6, UDP, "::1", port),
            self.internet(V6, TCP, "::1", port),
            self.unix(self.rpc),
            self.unix(b"\0" + self.rpc.encode()),
        )
        self.assertEqual(found.port, port)
        self.assertEqual(found.hosts, ("0.0.0.0", "::1"))
        self.assertEqual(sorted(found.rpc), [f"\0{self.rpc}", self.rpc])
        self.assertEqual(list(found.channel), [self.channel])
        self.assertFalse(found.take_udp("0.0.0.0")[0].getblocking())
        self.assertEqual(found.take_udp("0.0.0.0"), ())
        taken = found.take_tcp("::1")
        assert taken is not None
        self.assertEqual(taken.family, V6)

    def test_names(self) -> None:
        """A name says which UNIX socket it is, wherever that is; one name for all says nothing."""
        other = str(self.folder / "other")
        found = self.sort(("local-socket", self.unix(other)), ("x.socket", self.unix(self.rpc)))
        self.assertEqual((list(found.channel), list(found.rpc)), ([other], [self.rpc]))
        self.assertEqual(found.options, {"rpc_socket": self.rpc, "local_socket": other})

    def test_two_for_an_address(self) -> None:
        """An address with callers from elsewhere may have two UDP sockets, in their order."""
        pair = [socket.socket(V4, UDP) for _ in range(2)]
        for skt in pair:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            skt.bind(("0.0.0.0", pair[0].getsockname()[1]))
        numbers = [skt.fileno() for skt in pair]
        found = self.sort(*pair).take_udp("0.0.0.0")
        self.assertEqual([skt.fileno() for skt in found], numbers)

    def test_configuration(self) -> None:
        """They are what is served: their addresses, their port and their paths."""
        tcp = self.internet(V4, TCP, "127.0.0.1")
        port = tcp.getsockname()[1]
        found = self.sort(tcp, self.unix(self.rpc))
        config = Config(**{"local_socket": None, **found.options})
        self.assertEqual((config.port, config.addresses), (port, ("127.0.0.1",)))
        self.assertEqual(config.rpc_socket, self.rpc)
        found.check(config)
        self.assertEqual(HandedInSockets().options, {})

    def test_options_in_the_way(self) -> None:
        """An option with which one would not be served is named."""
        tcp = self.internet(V4, TCP, "127.0.0.1")
        port = tcp.getsockname()[1]
        found = self.sort(tcp, self.unix(self.rpc), self.unix(self.channel))
        fitting = Config(**found.options)
        found.check(fitting)
        for option, change in {
            "--interface": {"interfaces": ["192.0.2.1"], "loopback": False},
            f"--port {port - 1}": {"port": port - 1},
            "--rpc-socket is none": {"rpc_socket": None},
            "--local-socket is /run/x": {"local_socket": "/run/x"},
        }.items():
            config = Config(**{**found.options, **change})
            with self.assertRaisesRegex(ConfigurationError, option):
                found.check(config)


class RefusedTests(SocketsCase):
    """What is nothing that can be served: a sentence that names it."""

    def refused(self, said: str, *handed: tuple[str, socket.socket] | socket.socket) -> None:
        """Check that the last of these is refused with those words."""
        with self.assertRaisesRegex(ConfigurationError, f"^descriptor .*handed in, {said}"):
            self.sort(*handed)

    def test_kinds(self) -> None:
        """Other types, families and protocols; what does not listen, or hears one peer alone."""
        peer = self.internet(V4, UDP, "127.0.0.1")
        self.addCleanup(peer.close)
        connected = self.internet(V4, UDP, "127.0.0.1")
        connected.connect(peer.getsockname())
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        neither = "is neither a UDP, nor a TCP, nor a UNIX stream socket"
        makers: list[tuple[str, Callable[[], socket.socket]]] = [
            (neither, lambda: self.unix(self.rpc, UDP)),
            (neither, lambda: socket.socket(UNIX, socket.SOCK_SEQPACKET)),
            (neither, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
            ("does not listen", lambda: self.internet(V4, TCP, "127.0.0.1", listens=False)),
            ("does not listen", lambda: ours),
            ("is connected to one peer", lambda: connected),
            ("is a udp socket that is not bound", lambda: socket.socket(V4, UDP)),
            ("is of another protocol", self._mptcp),
        ]
        for said, make in makers:
            self.refused(said, make())

    def _mptcp(self) -> socket.socket:
        """A stream of another protocol, where the kernel has one."""
        try:
            skt = socket.socket(V4, TCP, 262)
        except OSError:
            skt = socket.socket(V4, UDP, 136)
        skt.bind(("127.0.0.1", 0))
        if skt.type == TCP:
            skt.listen()
        return skt

    def test_no_socket(self) -> None:
        """A file is no socket."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        with self.assertRaisesRegex(ConfigurationError, r"^descriptor \d+ \(log\), .*not a socket"):
            sort_sockets([HandedInDescriptor(descriptor, "log")])

    def test_names(self) -> None:
        """A socket is not what its name says."""
        for name, skt in (
            ("udp", self.internet(V4, TCP, "127.0.0.1")),
            ("tcp6", self.internet(V4, TCP, "127.0.0.1")),
            ("local-socket", self.internet(V4, TCP, "127.0.0.1")),
        ):
            self.refused(rf"is a tcp socket at port \d+ of 127.0.0.1, and no {name}", (name, skt))
        self.refused("is the UNIX socket /.*, and no udp", ("udp", self.unix(self.rpc)))

    def test_paths(self) -> None:
        """A UNIX socket elsewhere, one without a path, a second one."""
        other = str(self.folder / "other")
        self.refused(
            f"is a UNIX socket at {other}, which is neither .*FileDescriptorName", self.unix(other)
        )
        self.refused("is a UNIX socket at @x, which", self.unix(b"\0x" + os.urandom(0)))
        self.refused("is bound to @", ("local-socket", self.unix(b"")))
        self.refused(
            "is a second socket for --local-socket",
            self.unix(self.channel),
            ("local-socket", self.unix(str(self.folder / "more"))),
        )

    def test_addresses(self) -> None:
        """Other ports, too many for one address, and IPv6 sockets that hear IPv4 callers."""
        self.refused(
            "is a udp socket at port .*: all must have one port",
            self.internet(V4, TCP, "127.0.0.1"),
            self.internet(V4, UDP, "127.0.0.1"),
        )
        tcp = self.internet(V4, TCP, "127.0.0.1")
        copy = tcp.dup()
        self.refused("is one tcp socket at port .* too many", tcp, copy)
        dual = socket.socket(V6, TCP)
        dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        dual.bind(("::", 0))
        dual.listen()
        self.refused("is at :: and has callers of IPv4 as well: .*BindIPv6Only", dual)


class TakeTests(SynchronousTestCase):
    """The variables."""

    def test_other_process(self) -> None:
        """What is meant for another process, or for none, is not touched; the variables go."""
        for pid in (str(os.getppid()), "", "me", None):
            environ = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}
            if pid is not None:
                environ["LISTEN_PID"] = pid
            self.assertEqual(take_descriptors(environ, {}), [])
            self.assertEqual(environ, {"PATH": "/bin"})
        self.assertEqual(take_descriptors({"LISTEN_PID": str(os.getpid())}, {}), [])

    def test_removed_before(self) -> None:
        """Variables that something else has removed are those of the start."""
        initial = initial_environment()
        self.assertEqual(initial["PATH"], os.environ["PATH"])
        initial |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "none"}
        with self.assertRaisesRegex(ConfigurationError, "'none' is not a number"):
            take_descriptors({}, initial)

    def test_none(self) -> None:
        """There may be none."""
        ours = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": ""}
        self.assertEqual(take_descriptors(ours, {}), [])

    def test_malformed(self) -> None:
        """What cannot be understood is said, and no descriptor is touched."""
        for count, names, said in (
            ("two", "", "is not a number of descriptors"),
            ("-1", "", "is not a number of descriptors"),
            ("", "", "is not a number of descriptors"),
            ("9" * 5000, "", "is not a number of descriptors"),
            ("2", "a:b:c", "LISTEN_FDNAMES has 3 names for 2 descriptors"),
            ("0", "a", "LISTEN_FDNAMES has 1 names for 0 descriptors"),
        ):
            environ = {
                "LISTEN_PID": str(os.getpid()),
                "LISTEN_FDS": count,
                "LISTEN_FDNAMES": names,
            }
            with self.assertRaisesRegex(ConfigurationError, said):
                take_descriptors(environ, {})
