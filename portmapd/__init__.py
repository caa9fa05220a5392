"""A port mapper: RPC program 100000, versions 2 to 4, and named services on a local channel.

This is the map of what applications use. A name's module is imported when the name is first used:
importing this package imports nothing else.

Serving:

- :class:`PortmapperService`, :class:`Config`: the whole port mapper as a Twisted service;
- :class:`PortmapServer`, :class:`Policy`, :class:`Callit`: its protocols and factories, for
  endpoints of the application's own;
- :class:`Registry`, :class:`Mapping`, :func:`mapping`, :class:`NamedService`, :class:`Holder`,
  :class:`ChangeRecord`, :class:`ChangeKind`: what is registered;

Asking:

- :class:`Portmapper`, :class:`Flags`, :class:`Service`, :class:`RpcMapping`, :class:`Change`,
  :class:`Group`: the local channel's client for Twisted applications, and what it takes and
  returns. :mod:`portmapd.client.blocking` and :mod:`portmapd.client.aio` have the same client for
  programs without Twisted;
- :class:`PortmapClient`, :func:`sys_credential`: the client of any port mapper;
- :func:`format_address`, :func:`split_address`: universal addresses;

:mod:`portmapd.rpc` has what RPC servers are made of, :mod:`portmapd.errors` every exception.
Everything else is internal, except what the documentation names.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portmapd import errors
    from portmapd.client.core.registrations import Group
    from portmapd.client.rpc.client import PortmapClient
    from portmapd.client.twisted import Portmapper
    from portmapd.client.values import Change, Flags, RpcMapping, Service
    from portmapd.config import Config
    from portmapd.oncrpc.message import sys_credential
    from portmapd.oncrpc.netid import format_address, split_address
    from portmapd.portmapper.access import Callit, Policy
    from portmapd.registry.change import ChangeKind, ChangeRecord
    from portmapd.registry.holder import Holder
    from portmapd.registry.mapping import Mapping, mapping
    from portmapd.registry.registry import Registry
    from portmapd.registry.service import NamedService
    from portmapd.server.portmap_server import PortmapServer
    from portmapd.service import PortmapperService

__version__ = "0.1.0"

__all__ = [
    "Callit",
    "Change",
    "ChangeKind",
    "ChangeRecord",
    "Config",
    "Flags",
    "Group",
    "Holder",
    "Mapping",
    "NamedService",
    "Policy",
    "PortmapClient",
    "PortmapServer",
    "Portmapper",
    "PortmapperService",
    "Registry",
    "RpcMapping",
    "Service",
    "errors",
    "format_address",
    "mapping",
    "split_address",
    "sys_credential",
]

#: The module of each name.
_MODULES = {
    "Callit": "portmapd.portmapper.access",
    "Change": "portmapd.client.values",
    "ChangeKind": "portmapd.registry.change",
    "ChangeRecord": "portmapd.registry.change",
    "Config": "portmapd.config",
    "Flags": "portmapd.client.values",
    "Group": "portmapd.client.core.registrations",
    "Holder": "portmapd.registry.holder",
    "Mapping": "portmapd.registry.mapping",
    "NamedService": "portmapd.registry.service",
    "Policy": "portmapd.portmapper.access",
    "PortmapClient": "portmapd.client.rpc.client",
    "PortmapServer": "portmapd.server.portmap_server",
    "Portmapper": "portmapd.client.twisted",
    "PortmapperService": "portmapd.service",
    "Registry": "portmapd.registry.registry",
    "RpcMapping": "portmapd.client.values",
    "Service": "portmapd.client.values",
    "format_address": "portmapd.oncrpc.netid",
    "mapping": "portmapd.registry.mapping",
    "split_address": "portmapd.oncrpc.netid",
    "sys_credential": "portmapd.oncrpc.message",
}

# Type checkers must not take any name whatever for one of the package's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "errors":
            return import_module("portmapd.errors")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
