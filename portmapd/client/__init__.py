"""What applications import.

A name's module is imported when the name is first used, so that the blocking client can be had
without Twisted.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portmapd.client.portmap import PortmapClient

__all__ = ["PortmapClient"]

#: Where each name comes from.
_HOMES = {"PortmapClient": "portmapd.client.portmap"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
