"""Sockets that a service manager has bound and handed in (``sd_listen_fds(3)``).

Each is told by its name, or else by what it is: its family, its type, and where it is bound. What
does not fit is refused: a socket that nobody serves would keep its clients waiting.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from portmapd.channel.socket_path import SYSTEM_SOCKET
from portmapd.config import RPC_SOCKET, Config
from portmapd.errors import ConfigurationError
from portmapd.server.interface_filter import is_loopback

#: The first descriptor that is handed in.
FIRST = 3
#: The variables that tell of them.
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
#: Where the kernel keeps the variables as they were at the start.
ENVIRONMENT = Path("/proc/self/environ")
#: Names that say which socket it is. Any other name says nothing: a manager that is given none
#: calls all sockets alike.
INTERNET, RPC, CHANNEL = ("udp", "tcp", "udp6", "tcp6"), "rpc-socket", "local-socket"

_NETIDS = {
    (socket.AF_INET, socket.SOCK_DGRAM): "udp",
    (socket.AF_INET6, socket.SOCK_DGRAM): "udp6",
    (socket.AF_INET, socket.SOCK_STREAM): "tcp",
    (socket.AF_INET6, socket.SOCK_STREAM): "tcp6",
}
_PROTOCOLS = {socket.SOCK_DGRAM: socket.IPPROTO_UDP, socket.SOCK_STREAM: socket.IPPROTO_TCP}


@frozen
class HandedInDescriptor:
    """A descriptor that was handed in.

    :param number: the descriptor.
    :param name: what the manager calls it; empty if it gives no names.
    """

    number: int
    name: str = ""

    def __str__(self) -> str:
        return f"descriptor {self.number}" + (f" ({self.name})" if self.name else "")

    def refused(self, why: str) -> ConfigurationError:
        """The error that says what is wrong with it."""
        return ConfigurationError(f"{self}, which was handed in, {why}")


def initial_environment() -> dict[str, str]:
    """The environment that this process was started with (``proc_pid_environ(5)``).

    Twisted's endpoints remove the variables as they are imported, and ``twistd`` imports them
    before any plugin runs when its cache of plugins is not written yet.

    :return: empty where it cannot be read.
    """
    try:
        entries = ENVIRONMENT.read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {name: text for name, equals, text in pairs if equals}


def take_descriptors(
    environ: MutableMapping[str, str], initial: Mapping[str, str]
) -> list[HandedInDescriptor]:
    """The descriptors that were handed to this process. No child inherits them, nor the variables.

    :param environ: the variables are removed from it.
    :param initial: has those that were removed before.
    :raises ConfigurationError: the variables cannot be understood.
    """
    pid, count, names = (environ.pop(name, initial.get(name)) for name in VARIABLES)
    if count is None or pid != str(os.getpid()):
        # They are meant for another process, whose environment this one has inherited.
        return []
    if not (count.isascii() and count.isdigit() and len(count) < 7):
        raise ConfigurationError(f"LISTEN_FDS={count!r} is not a number of descriptors")
    found = names.split(":") if names else [""] * int(count)
    if len(found) != int(count):
        raise ConfigurationError(f"LISTEN_FDNAMES has {len(found)} names for {count} descriptors")
    descriptors = [HandedInDescriptor(FIRST + at, name) for at, name in enumerate(found)]
    for each in descriptors:
        try:
            os.set_inheritable(each.number, False)
        except OSError:
            raise each.refused("is not open") from None
    return descriptors


@define
class HandedInSockets:
    """The sockets that were handed in, by what is served on them.

    :ivar udp: one or two for each address; two share it, and the first was bound first.
    :ivar tcp: one for each address.
    :ivar rpc: those of the rpcbind socket, by path; abstract ones begin with a null character.
    :ivar channel: that of the local channel, by path.
    :ivar port: of all UDP and TCP sockets; None: there are none.
    :ivar made: what another process of this daemon has made and passed on, rather than a service
        manager: ``udp``, ``tcp``, ``rpc`` or ``channel``, and the address or the path.
    """

    udp: dict[IPv4Address | IPv6Address, list[socket.socket]] = field(factory=dict)
    tcp: dict[IPv4Address | IPv6Address, list[socket.socket]] = field(factory=dict)
    rpc: dict[str, socket.socket] = field(factory=dict)
    channel: dict[str, socket.socket] = field(factory=dict)
    port: int | None = None
    made: set[tuple[str, str]] = field(factory=set)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses of the UDP and TCP sockets."""
        return tuple(str(host) for host in {**self.udp, **self.tcp})

    @property
    def options(self) -> dict[str, Any]:
        """The fields of a configuration that serves these sockets, and nothing else they cover."""
        options: dict[str, Any] = {}
        if self.port is not None:
            options |= {"port": self.port, "interfaces": self.hosts, "loopback": False}
        for name, sockets in (("rpc_socket", self.rpc), ("local_socket", self.channel)):
            if sockets:
                options[name] = next(iter(sockets)).removeprefix("\0")
        return options

    def check(self, config: Config) -> None:
        """Check that each of them is served under *config*.

        :raises ConfigurationError: one is not; the message says which option is in the way.
        """
        served = [ip_address(host) for host in config.addresses]
        for host in {**self.udp, **self.tcp}:
            if host not in served:
                raise ConfigurationError(
                    f"a socket at {host} was handed in, and {host} is not among the addresses of "
                    "--interface: leave that option out, or name it there"
                )
        if self.port not in (None, config.port):
            raise ConfigurationError(
                f"sockets at port {self.port} were handed in, which --port {config.port} is not: "
                "leave that option out"
            )
        for path in self.rpc:
            _check_path(path, config.rpc_socket, RPC)
        for path in self.channel:
            _check_path(path, config.local_socket, CHANNEL)

    def take_udp(self, host: str) -> Sequence[socket.socket]:
        """The UDP sockets of that address, which are the caller's from now on."""
        return self.udp.pop(ip_address(host), ())

    def take_tcp(self, host: str) -> socket.socket | None:
        """The TCP socket of that address, which is the caller's from now on."""
        return next(iter(self.tcp.pop(ip_address(host), ())), None)


def _check_path(path: str, served: str | None, option: str) -> None:
    if path.removeprefix("\0") != served:
        raise ConfigurationError(
            f"the socket {_shown(path)} was handed in, and --{option} is {served or 'none'}: "
            "leave that option out"
        )


def sort_sockets(
    descriptors: Iterable[HandedInDescriptor],
    rpc_socket: str | None = RPC_SOCKET,
    local_socket: str | None = SYSTEM_SOCKET,
) -> HandedInSockets:
    """Tell what is to be served on each of the descriptors.

    :param rpc_socket: the path that tells the rpcbind socket without a name of its own.
    :param local_socket: the path that tells the socket of the local channel.
    :raises ConfigurationError: one of them is nothing that can be served; the message says why.
    """
    sockets = HandedInSockets()
    with ExitStack() as if_refused:
        for each in descriptors:
            if not stat.S_ISSOCK(os.fstat(each.number).st_mode):
                raise each.refused("is not a socket")
            skt = if_refused.enter_context(socket.socket(fileno=each.number))
            _check_kind(each, skt)
            skt.setblocking(False)
            if skt.family == socket.AF_UNIX:
                _add_unix(sockets, each, skt, rpc_socket, local_socket)
            else:
                _add_internet(sockets, each, skt)
        if_refused.pop_all()
    return sockets


def _check_kind(handed: HandedInDescriptor, skt: socket.socket) -> None:
    """Check that anyone can be heard on a socket, and over which protocol.

    :raises ConfigurationError: nobody can, or over one that is not served.
    """
    is_served = (skt.family, skt.type) in _NETIDS or (skt.family, skt.type) == (
        socket.AF_UNIX,
        socket.SOCK_STREAM,
    )
    if not is_served:
        raise handed.refused("is neither a UDP, nor a TCP, nor a UNIX stream socket")
    if skt.type == socket.SOCK_STREAM:
        if not skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise handed.refused("does not listen: in a socket unit, set Accept=no")
    elif _is_connected(skt):
        raise handed.refused("is connected to one peer")


def _is_connected(skt: socket.socket) -> bool:
    with suppress(OSError):
        skt.getpeername()
        return True
    return False


def _add_unix(
    sockets: HandedInSockets,
    handed: HandedInDescriptor,
    skt: socket.socket,
    rpc_socket: str | None,
    local_socket: str | None,
) -> None:
    path = _path_of(skt)
    if handed.name in INTERNET:
        raise handed.refused(f"is the UNIX socket {_shown(path)}, and no {handed.name} socket")
    roles: dict[str, tuple[dict[str, socket.socket], tuple[str | None, ...]]] = {
        RPC: (sockets.rpc, (rpc_socket, rpc_socket and f"\0{rpc_socket}")),
        CHANNEL: (sockets.channel, (local_socket,)),
    }
    role = handed.name
    if role not in roles:
        role = next((name for name, (_, paths) in roles.items() if path in paths), "")
    if not role:
        raise handed.refused(
            f"is a UNIX socket at {_shown(path)}, which is neither that of --{RPC} nor that of "
            f"--{CHANNEL}: name it {RPC} or {CHANNEL} (FileDescriptorName=)"
        )
    if path[:1] != "/" and not (role == RPC and path):
        raise handed.refused(f"is bound to {_shown(path)}: --{role} takes a path")
    same, _ = roles[role]
    if path in same or (role == CHANNEL and same):
        raise handed.refused(f"is a second socket for --{role}")
    same[path] = skt


def _path_of(skt: socket.socket) -> str:
    name = skt.getsockname()
    return os.fsdecode(name)


def _shown(path: str) -> str:
    return repr(f"@{path[1:]}" if path[:1] == "\0" else path)[1:-1] or "no path"


def _add_internet(sockets: HandedInSockets, handed: HandedInDescriptor, skt: socket.socket) -> None:
    netid = _NETIDS[skt.family, skt.type]
    host, port = _address_of(skt)
    where = f"{netid} socket at port {port} of {host}"
    if handed.name in (*INTERNET, RPC, CHANNEL) and handed.name != netid:
        raise handed.refused(f"is a {where}, and no {handed.name}")
    if skt.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) != _PROTOCOLS[skt.type]:
        raise handed.refused("is of another protocol than UDP and TCP")
    if port == 0:
        raise handed.refused(f"is a {netid} socket that is not bound")
    _check_family(handed, skt, host)
    if sockets.port not in (None, port):
        raise handed.refused(
            f"is a {where}: all must have one port, and another has {sockets.port}"
        )
    table, most = (sockets.udp, _most_udp(host)) if netid[:3] == "udp" else (sockets.tcp, 1)
    found = table.setdefault(ip_address(host), [])
    if len(found) >= most:
        raise handed.refused(f"is one {where} too many")
    found.append(skt)
    sockets.port = port


def _most_udp(host: str) -> int:
    """How many UDP sockets an address may have: loopback has no callers from elsewhere."""
    return 1 if is_loopback(host) else 2


def _check_family(handed: HandedInDescriptor, skt: socket.socket, host: str) -> None:
    """Check that an IPv6 socket has IPv6 callers alone: others would be told apart wrongly."""
    address = ip_address(host)
    if not isinstance(address, IPv6Address):
        return
    is_dual = not skt.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    if address.ipv4_mapped is not None or (is_dual and address.is_unspecified):
        raise handed.refused(
            f"is at {host} and has callers of IPv4 as well: in a socket unit, set "
            "BindIPv6Only=ipv6-only"
        )


def _address_of(skt: socket.socket) -> tuple[str, int]:
    """The address of an internet socket, with its scope, and its port."""
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    host, port = socket.getnameinfo(skt.getsockname(), flags)
    return host, int(port)
