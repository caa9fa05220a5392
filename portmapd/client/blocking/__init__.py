"""The clients for programs without an event loop: plain sockets, threads, no Twisted."""

from typing import TYPE_CHECKING

from portmapd.client.blocking.portmapper import TIMEOUT, Portmapper
from portmapd.client.core.registrations import Group
from portmapd.client.values import Change, Flags, RpcMapping, Service

if TYPE_CHECKING:
    from portmapd.client.rpc.blocking import PortmapClient

__all__ = [
    "TIMEOUT",
    "Change",
    "Flags",
    "Group",
    "PortmapClient",
    "Portmapper",
    "RpcMapping",
    "Service",
]

# It takes long to import, and most programs use the local channel alone.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "PortmapClient":
            from portmapd.client.rpc.blocking import PortmapClient

            return PortmapClient
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
