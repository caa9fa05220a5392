"""The clients: of the local channel, and of program 100000.

``portmapd.client.Portmapper`` is for Twisted applications; ``portmapd.client.blocking`` and
``portmapd.client.aio`` have one each for programs without Twisted. A name's module is imported
when the name is first used, so that they can be imported without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from portmapd import errors

if TYPE_CHECKING:
    from portmapd.client.core.registrations import Group
    from portmapd.client.portmap import PortmapClient
    from portmapd.client.twisted import Portmapper
    from portmapd.client.values import Change, Flags, RpcMapping, Service

#: Where each name comes from.
_HOMES = {
    "Change": "portmapd.client.values",
    "Flags": "portmapd.client.values",
    "Group": "portmapd.client.core.registrations",
    "PortmapClient": "portmapd.client.portmap",
    "Portmapper": "portmapd.client.twisted",
    "RpcMapping": "portmapd.client.values",
    "Service": "portmapd.client.values",
}

__all__ = [
    "Change",
    "Flags",
    "Group",
    "PortmapClient",
    "Portmapper",
    "RpcMapping",
    "Service",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
