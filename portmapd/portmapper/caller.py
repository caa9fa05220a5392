"""Who makes a call, and from where."""

from enum import Enum

from attrs import frozen

from portmapd.oncrpc.netid import NETIDS, Netid, format_address, split_address
from portmapd.registry.holder import owner_of
from portmapd.registry.mapping import SUPERUSER, Mapping

#: Only the superuser may bind ports below this one, unless the host is configured otherwise.
RESERVED_PORTS = 1024


class Audience(Enum):
    """How far a caller is trusted, by what the kernel vouches for and by its address."""

    LOCAL = "on this host, over the loopback interface or the rpcbind socket"
    TRUSTED = "in a trusted network"
    STRANGER = "anywhere else"
    EXCLUDED = "outside the networks that may ask"


@frozen
class Caller:
    """The client of a transport, as far as replies depend on it.

    :param netid: the transport that the call came over.
    :param audience: how far the caller is trusted.
    :param host: its address; empty for netid local.
    :param port: its port; 0 for netid local.
    :param reached: the address of this host for it: the one that it sent the call to, or one that
        is advertised in its place; empty for netid local.
    :param uid: its user, which the kernel tells over the rpcbind socket; None over other netids.
    :param reserved_ports: only the superuser may bind ports of this host below this number.
    """

    netid: Netid
    audience: Audience
    host: str = ""
    port: int = 0
    reached: str = ""
    uid: int | None = None
    reserved_ports: int = RESERVED_PORTS

    @property
    def owner(self) -> str:
        """The owner of what this caller registers, derived as rpcbind derives it.

        A reserved port of another host proves nothing, so that owner is ``unknown``.
        """
        if self.uid is not None:
            return owner_of(self.uid)
        reserved = self.audience is Audience.LOCAL and self.port < self.reserved_ports
        return SUPERUSER if reserved else "unknown"

    def reachable_address(self, mapping: Mapping) -> str:
        """The address of *mapping* as this caller can use it.

        A service on the wildcard address is also on the address that the caller has reached.
        """
        netid = NETIDS[mapping.netid]
        if not netid.wildcard or netid.family != self.netid.family:
            return mapping.address
        host, port = split_address(mapping.address)
        return format_address(self.reached, port) if host == netid.wildcard else mapping.address

    def __str__(self) -> str:
        if self.uid is not None:
            return f"uid {self.uid}"
        return f"{self.host} port {self.port}"
