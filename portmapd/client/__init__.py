"""The clients: of the local channel, and of program 100000.

``portmapd.client.Portmapper`` is for Twisted applications; :mod:`portmapd.client.blocking` and
:mod:`portmapd.client.aio` have the same class for programs without Twisted. A name's module is
imported when the name is first used, so that these can be imported without Twisted. The other
modules are internal.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from portmapd import errors

if TYPE_CHECKING:
    from portmapd.client.core.registrations import Group
    from portmapd.client.rpc.client import PortmapClient
    from portmapd.client.twisted import Portmapper
    from portmapd.client.values import Change, Flags, RpcMapping, Service

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

#: The module of each name.
_MODULES = {
    "Change": "portmapd.client.values",
    "Flags": "portmapd.client.values",
    "Group": "portmapd.client.core.registrations",
    "PortmapClient": "portmapd.client.rpc.client",
    "Portmapper": "portmapd.client.twisted",
    "RpcMapping": "portmapd.client.values",
    "Service": "portmapd.client.values",
}

# Type checkers must not take any name whatever for one of the package's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
