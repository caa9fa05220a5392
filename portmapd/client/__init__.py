"""What applications import.

A name's module is imported when the name is first used, so that the blocking client can be had
without Twisted.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from portmapd import errors

if TYPE_CHECKING:
    from portmapd.client.local import Portmapper
    from portmapd.client.rpc.client import PortmapClient
    from portmapd.client.values import Change, Flags, RpcMapping, Service

__all__ = [
    "Change",
    "Flags",
    "PortmapClient",
    "Portmapper",
    "RpcMapping",
    "Service",
    "errors",
]

#: Where each name comes from.
_HOMES = {
    "Change": "portmapd.client.values",
    "Flags": "portmapd.client.values",
    "PortmapClient": "portmapd.client.rpc.client",
    "Portmapper": "portmapd.client.local",
    "RpcMapping": "portmapd.client.values",
    "Service": "portmapd.client.values",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
