"""The configuration of a port mapper: one validated value."""

import os
import re
import socket
from collections.abc import Iterable, Mapping
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
from portmapd.cluster_config import ClusterConfig
from portmapd.errors import ConfigurationError
from portmapd.oncrpc.netid import MAX_PATH
from portmapd.portmapper.access import (
    MAX_TOTAL_MAPPINGS,
    MAX_USER_MAPPINGS,
    Callit,
    Network,
    Policy,
)
from portmapd.portmapper.advertisement import Advertisement
from portmapd.portmapper.caller import RESERVED_PORTS

#: The well-known port of program 100000, and the one used without the right to bind that.
PORT = 111
UNPRIVILEGED_PORT = 10111
RPC_SOCKET = "/run/rpcbind.sock"
#: Where a daemon of root keeps mappings, and the name of the file.
STATE_DIRECTORY = "/var/lib/portmapd"
STATE_NAME = "mappings"
#: Where rpcbind keeps them.
RPCBIND_DIRECTORY = "/run/rpcbind"
INTERFACES = ("127.0.0.1", "::1")
#: The most services, and RPC mappings, of one process on the local channel.
MAX_SERVICES = 10
#: A small NFS server has three programs on four netids, in several versions.
MAX_MAPPINGS = 64
#: Seconds between two checks for dead services, and for which their mappings are remembered.
LIVENESS = 1.0
FORGET = 60.0
#: Seconds without a complete call after which a stream is closed.
IDLE = 60.0
#: The most streams of one listening socket.
MAX_STREAMS = 1_024
#: The name of a host (RFC 1123, 2.1).
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
#: A day, in seconds.
DAY = 86_400


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


def default_state(environ: Mapping[str, str]) -> str | None:
    """The state file of a daemon: in the directory that systemd gives it, else that of root.

    :param environ: the environment.
    :return: None: other users have none by themselves.
    """
    folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not folder and os.geteuid() == 0:
        folder = STATE_DIRECTORY
    return os.path.join(folder, STATE_NAME) if folder else None


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
            f"{attribute.name.replace('_', '-')} {path!r} is not an absolute path of at most "
            f"{MAX_PATH} bytes without control characters; give one, or none"
        )


def _is_path(path: str) -> bool:
    return _is_clean(path) and len(path.encode()) <= MAX_PATH


def _check_file(config: object, attribute: Any, path: str | None) -> None:
    if path is not None and not (_is_clean(path) and not path.endswith("/")):
        raise ConfigurationError(
            f"{attribute.name.replace('_', '-')} {path!r} is not an absolute path without control "
            "characters; give one, or none"
        )


def _check_folder(config: object, attribute: Any, path: str | None) -> None:
    if path is not None and not _is_clean(path):
        raise ConfigurationError(
            f"{attribute.name.replace('_', '-')} {path!r} is not an absolute path of a directory"
        )


def _is_clean(path: str) -> bool:
    return path.startswith("/") and path.isprintable()


def _check_endpoint(config: object, attribute: Any, endpoint: str | None) -> None:
    if endpoint is None:
        return
    # Only who serves HTTP pays for the import.
    from twisted.internet.endpoints import serverFromString

    try:
        serverFromString(None, endpoint)
    except Exception as error:
        raise ConfigurationError(
            f"http {endpoint!r} is no endpoint of Twisted ({error}); give one such as "
            "tcp:8080:interface=127.0.0.1"
        ) from None


def _check_names(config: object, attribute: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise ConfigurationError(
                f"http-name {name!r} is not the name of a host; give it like www.example.com, "
                "without a port"
            )


def _check_cluster(config: object, attribute: Any, cluster: object) -> None:
    if cluster is not None and not isinstance(cluster, ClusterConfig):
        raise ConfigurationError(f"cluster {cluster!r} is no ClusterConfig")


def _check_period(config: object, attribute: Any, seconds: float | None) -> None:
    if seconds is not None:
        _check_seconds(config, attribute, seconds)


def _check_seconds(config: object, attribute: Any, seconds: float) -> None:
    if not _is_number(seconds) or not 0.05 <= seconds <= 3600:
        raise ConfigurationError(
            f"{attribute.name.replace('_', '-')} {seconds}: give seconds from 0.05 to 3600"
        )


def _check_forget(config: object, attribute: Any, seconds: float) -> None:
    if not _is_number(seconds) or not 0 <= seconds <= DAY:
        raise ConfigurationError(f"forget {seconds}: give seconds from 0 to {DAY}")


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
            raise ValueError("it is not text")
        network = ip_network(text, strict=False)
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
            raise ValueError("IPv4 callers have IPv4 addresses here, and no IPv4-mapped ones")
        return network
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is not a network: {error}; give it like 192.0.2.0/24 or 2001:db8::/32"
        ) from None


def parse_networks(networks: Any) -> tuple[Network, ...]:
    """Networks, as values or in CIDR notation; see :func:`parse_network`."""
    known = IPv4Network | IPv6Network
    return tuple(n if isinstance(n, known) else parse_network(n) for n in networks)


#: All callers of a family.
_EVERYONE = {4: "0.0.0.0/0", 6: "::/0"}


def parse_advertisement(text: str) -> Advertisement:
    """Read ``ADDRESS``, which all callers of its family are told, or ``NETWORK=ADDRESS``.

    :raises ConfigurationError: *text* is neither.
    """
    where, equals, host = text.rpartition("=")
    try:
        address = ip_address(host)
    except ValueError:
        raise ConfigurationError(_no_advertisement(text, "it has no address")) from None
    network = parse_network(where if equals else _EVERYONE[address.version])
    if network.version != address.version:
        raise ConfigurationError(_no_advertisement(text, "the network is of another family"))
    if not _is_of_a_host(address):
        raise ConfigurationError(_no_advertisement(text, f"{address} is not an address of a host"))
    return Advertisement(network, str(address))


def _no_advertisement(text: str, why: str) -> str:
    return f"advertise {text!r}: {why}; give ADDRESS or NETWORK=ADDRESS, 10.0.0.0/8=192.0.2.1"


def _is_of_a_host(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
        return False
    return not (address.is_unspecified or address.is_multicast)


def parse_advertisements(values: Any) -> tuple[Advertisement, ...]:
    """Advertisements, as values or as texts; see :func:`parse_advertisement`."""
    return tuple(v if isinstance(v, Advertisement) else parse_advertisement(v) for v in values)


def _check_advertise(config: object, attribute: Any, values: tuple[Advertisement, ...]) -> None:
    networks = [each.network for each in values]
    for network in networks:
        if networks.count(network) > 1:
            raise ConfigurationError(f"advertise: callers of {network} are told two addresses")


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

    Most fields are options of ``twistd portmapd``, by the same names; ``interfaces`` is
    ``--interface``, and ``idle`` and ``max_streams`` are not options.

    :param port: the UDP and TCP port; 0: a free one, the same for all.
    :param interfaces: the addresses to serve on; empty: neither UDP nor TCP is served.
    :param loopback: serve 127.0.0.1 and ::1, too, if any address is served.
    :param rpc_socket: the path of the rpcbind socket; None: no such socket.
    :param local_socket: the path of the local channel's socket; None: no local channel.
    :param max_services: the most services that one process may hold there.
    :param max_mappings: the most RPC mappings that one process may hold there.
    :param trust: networks whose UDP callers may get replies larger than their requests, in CIDR
        notation or as values.
    :param allow: networks whose callers are answered, beside this host; empty: all.
    :param advertise: addresses that callers are told in place of the one they reached: texts such
        as ``ADDRESS`` or ``NETWORK=ADDRESS``, or
        :class:`~portmapd.portmapper.advertisement.Advertisement`.
    :param insecure: accept SET and UNSET from other hosts.
    :param callit: which calls are forwarded, a :class:`~portmapd.portmapper.access.Callit` or its
        value.
    :param max_user_mappings: the most mappings that one user may set over rpcbind's protocol; root
        has no such limit.
    :param max_total_mappings: the most that all users together may set so.
    :param liveness: seconds between two checks for dead services; None: there are none.
    :param forget: seconds for which the mapping of a dead service is remembered, in case that the
        service comes back.
    :param state: the path of the file in which the mappings that no connection holds outlive the
        process; None: they end with it.
    :param import_rpcbind: the directory of the files of rpcbind from which its mappings are taken
        over at the start; None: they are not.
    :param idle: seconds without a complete call after which a stream is closed.
    :param max_streams: the most streams of each listening socket.
    :param http: the endpoint of the status page, as Twisted's ``serverFromString`` takes it; None:
        there is no such page.
    :param cluster: how it belongs to a cluster; None: it belongs to none.
    :param http_names: names of this host under which browsers may ask for it, beside its host name
        and its addresses.
    :raises ConfigurationError: a value cannot be used. The message names its field.
    """

    port: int = field(factory=default_port, validator=_check_port)
    interfaces: tuple[str, ...] = field(
        default=INTERFACES, converter=_tuple, validator=_check_interfaces
    )
    loopback: bool = field(default=True, validator=_check_flag)
    rpc_socket: str | None = field(factory=default_rpc_socket, validator=_check_path)
    local_socket: str | None = field(factory=serving_socket, validator=_check_path)
    max_services: int = field(default=MAX_SERVICES, validator=_check_count)
    max_mappings: int = field(default=MAX_MAPPINGS, validator=_check_count)
    max_user_mappings: int = field(default=MAX_USER_MAPPINGS, validator=_check_count)
    max_total_mappings: int = field(default=MAX_TOTAL_MAPPINGS, validator=_check_count)
    trust: tuple[Network, ...] = field(default=(), converter=parse_networks)
    allow: tuple[Network, ...] = field(default=(), converter=parse_networks)
    advertise: tuple[Advertisement, ...] = field(
        default=(), converter=parse_advertisements, validator=_check_advertise
    )
    insecure: bool = field(default=False, validator=_check_flag)
    callit: Callit = field(default=Callit.LOCAL, converter=_callit)
    liveness: float | None = field(default=LIVENESS, validator=_check_period)
    forget: float = field(default=FORGET, validator=_check_forget)
    state: str | None = field(default=None, validator=_check_file)
    import_rpcbind: str | None = field(default=None, validator=_check_folder)
    idle: float = field(default=IDLE, validator=_check_seconds)
    max_streams: int = field(default=MAX_STREAMS, validator=_check_count)
    http: str | None = field(default=None, validator=_check_endpoint)
    http_names: tuple[str, ...] = field(default=(), converter=_tuple, validator=_check_names)
    cluster: ClusterConfig | None = field(default=None, validator=_check_cluster)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to serve on, with those of loopback unless they are not to be served."""
        if not (self.interfaces and self.loopback):
            return self.interfaces
        served = {ip_address(interface) for interface in self.interfaces}
        wildcards = {address.version for address in served if address.is_unspecified}
        further = (
            host
            for host in INTERFACES
            if ip_address(host) not in served and ip_address(host).version not in wildcards
        )
        return (*self.interfaces, *further)

    @property
    def policy(self) -> Policy:
        """Who may do what under this configuration."""
        reserved = min(RESERVED_PORTS, unprivileged_port_start())
        return Policy(
            self.trust,
            self.allow,
            self.insecure,
            self.callit,
            reserved,
            max_user_mappings=self.max_user_mappings,
            max_total_mappings=self.max_total_mappings,
        )
