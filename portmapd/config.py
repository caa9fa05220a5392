"""The configuration of a port mapper: one validated value."""

import os
import socket
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Any

from attrs import Attribute, field, frozen

from portmapd.channel.socket_path import serving_socket
from portmapd.errors import ConfigurationError
from portmapd.oncrpc.netid import MAX_PATH
from portmapd.portmapper.access import Callit, Network, Policy
from portmapd.portmapper.caller import RESERVED_PORTS

#: The well-known port of program 100000, and the one used without the right to bind that.
PORT = 111
UNPRIVILEGED_PORT = 10111
RPC_SOCKET = "/run/rpcbind.sock"
INTERFACES = ("127.0.0.1", "::1")
MAX_SERVICES = 10


def default_port() -> int:
    """111 for a process that may bind it, 10111 for others."""
    return PORT if may_bind(PORT) else UNPRIVILEGED_PORT


def may_bind(port: int) -> bool:
    """Does the kernel let this process bind *port*?

    The uid does not tell: capabilities and ip_unprivileged_port_start count, too.
    """
    with socket.socket() as probe:
        # The probe keeps no other process from the port: it does not listen.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return False
        except OSError:
            # It is taken, which the kernel says only to those who may.
            return True
    return True


def default_rpc_socket() -> str | None:
    """The rpcbind socket for root; none for others."""
    return RPC_SOCKET if os.geteuid() == 0 else None


def unprivileged_port_start() -> int:
    """The lowest port that any user of this host may bind (ip_unprivileged_port_start)."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return RESERVED_PORTS


def _check_port(config: object, attribute: "Attribute[int]", port: int) -> None:
    if not _is_number(port) or not 0 <= port <= 65535:
        raise ConfigurationError(f"port {port} is not in the range 0 to 65535")


def _check_interfaces(config: object, attribute: Any, interfaces: tuple[str, ...]) -> None:
    for interface in interfaces:
        try:
            ip_address(interface)
        except ValueError:
            raise ConfigurationError(
                f"interface {interface!r} is no IPv4 or IPv6 address; give the address of an "
                "interface, or 0.0.0.0 and :: for all"
            ) from None
    _check_overlap([ip_address(interface) for interface in interfaces])


def _check_overlap(addresses: list[IPv4Address | IPv6Address]) -> None:
    for address in addresses:
        same = [a for a in addresses if a.version == address.version]
        if same.count(address) > 1 or (address.is_unspecified and len(same) > 1):
            raise ConfigurationError(
                f"interface {address} is given twice, or covers another one: leave one of them out"
            )


def _check_path(config: object, attribute: Any, path: str | None) -> None:
    if path is not None and not _is_path(path):
        raise ConfigurationError(
            f"{attribute.name.replace('_', '-')} {path!r} is no absolute path of at most "
            f"{MAX_PATH} bytes without control characters; give one, or none"
        )


def _is_path(path: str) -> bool:
    return path.startswith("/") and path.isprintable() and len(path.encode()) <= MAX_PATH


def _check_seconds(config: object, attribute: Any, seconds: float) -> None:
    if not _is_number(seconds) or not 0.05 <= seconds <= 3600:
        raise ConfigurationError(
            f"{attribute.name.replace('_', '-')} {seconds}: give seconds from 0.05 to 3600"
        )


def _check_count(config: object, attribute: Any, count: int) -> None:
    if not _is_number(count) or count < 1:
        raise ConfigurationError(
            f"{attribute.name.replace('_', '-')} {count}: give a number from 1 on"
        )


def _check_flag(config: object, attribute: Any, flag: bool) -> None:
    if not isinstance(flag, bool):
        raise ConfigurationError(f"{attribute.name} {flag!r}: give True or False")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_network(text: str) -> Network:
    """Read a network in CIDR notation, or a single address.

    :raises ConfigurationError: *text* is neither, or an IPv4-mapped IPv6 network.
    """
    try:
        if not isinstance(text, str):
            raise ValueError("it is no text")
        network = ip_network(text, strict=False)
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
            raise ValueError("IPv4 callers have IPv4 addresses here, and no IPv4-mapped ones")
        return network
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no network: {error}; give it like 192.0.2.0/24 or 2001:db8::/32"
        ) from None


def parse_networks(networks: Any) -> tuple[Network, ...]:
    """Networks, as values or in CIDR notation; see :func:`parse_network`."""
    known = IPv4Network | IPv6Network
    return tuple(n if isinstance(n, known) else parse_network(n) for n in networks)


def _tuple(interfaces: Iterable[str]) -> tuple[str, ...]:
    return tuple(interfaces)


def _callit(value: Any) -> Callit:
    try:
        return Callit(value)
    except ValueError:
        names = ", ".join(choice.value for choice in Callit)
        raise ConfigurationError(f"callit {value!r} is none of {names}") from None


@frozen(kw_only=True)
class Config:
    """The configuration of a port mapper.

    Each field has the meaning and the default of the option of ``twistd portmapd`` of its name.

    :param port: the UDP and TCP port; 0: a free one, the same for all.
    :param interfaces: the addresses to serve on; empty: neither UDP nor TCP is served.
    :param rpc_socket: the path of the rpcbind socket; None: no such socket.
    :param local_socket: the path of the local channel's socket; None: no local channel.
    :param max_services: the most services and mappings that one process may hold there.
    :param trust: networks whose UDP callers may get replies larger than their requests, in CIDR
        notation or as values.
    :param allow: networks whose callers are answered, beside this host; empty: all.
    :param insecure: accept SET and UNSET from other hosts.
    :param callit: which calls are forwarded, a :class:`~portmapd.portmapper.access.Callit` or its
        value.
    :param liveness: seconds between two checks for dead services.
    :param idle: seconds without a complete call after which a stream is closed.
    :param max_streams: the most streams of each listening socket.
    :raises ConfigurationError: a value cannot be used. The message names its field.
    """

    port: int = field(factory=default_port, validator=_check_port)
    interfaces: tuple[str, ...] = field(
        default=INTERFACES, converter=_tuple, validator=_check_interfaces
    )
    rpc_socket: str | None = field(factory=default_rpc_socket, validator=_check_path)
    local_socket: str | None = field(factory=serving_socket, validator=_check_path)
    max_services: int = field(default=MAX_SERVICES, validator=_check_count)
    trust: tuple[Network, ...] = field(default=(), converter=parse_networks)
    allow: tuple[Network, ...] = field(default=(), converter=parse_networks)
    insecure: bool = field(default=False, validator=_check_flag)
    callit: Callit = field(default=Callit.LOCAL, converter=_callit)
    liveness: float = field(default=1.0, validator=_check_seconds)
    idle: float = field(default=60.0, validator=_check_seconds)
    max_streams: int = field(default=1024, validator=_check_count)

    @property
    def policy(self) -> Policy:
        """Who may do what under this configuration."""
        reserved = min(RESERVED_PORTS, unprivileged_port_start())
        return Policy(self.trust, self.allow, self.insecure, self.callit, reserved)
