"""Where a call comes from."""

from enum import Enum

from attrs import frozen

from portmapd.oncrpc.netid import Netid
from portmapd.registry.holder import owner_of
from portmapd.registry.mapping import SUPERUSER

#: Ports below this one need the superuser's rights to be bound, unless the host says otherwise.
RESERVED_PORTS = 1024


class Audience(Enum):
    """How far a caller is trusted, by where it is."""

    LOCAL = "on this host, by loopback or the rpcbind socket"
    TRUSTED = "in a trusted network"
    STRANGER = "anywhere else"
    EXCLUDED = "outside the networks that may ask"


@frozen
class Caller:
    """One end of a transport, as far as answers depend on it.

    :param netid: the transport that the call came over.
    :param audience: how far it is trusted.
    :param host: its address; empty for netid local.
    :param port: its port; 0 for netid local.
    :param reached: the address of ours that it asked; empty for netid local.
    :param uid: its user, as the kernel tells over the rpcbind socket; None otherwise.
    :param reserved_ports: a port of this host below this number is the superuser's to bind.
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
        """The owner of what it registers, derived as rpcbind does.

        Another host's reserved port proves nothing, so its owner is ``unknown``.
        """
        if self.uid is not None:
            return owner_of(self.uid)
        reserved = self.audience is Audience.LOCAL and self.port < self.reserved_ports
        return SUPERUSER if reserved else "unknown"

    def __str__(self) -> str:
        if self.uid is not None:
            return f"uid {self.uid}"
        return f"{self.host} port {self.port}"
