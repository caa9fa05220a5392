"""The local channel for asyncio applications; it imports no Twisted."""

from portmapd.client.aio.portmapper import Portmapper
from portmapd.client.core.registrations import Group
from portmapd.client.core.watching import AsyncChanges
from portmapd.client.values import Change, Flags, RpcMapping, Service

__all__ = ["AsyncChanges", "Change", "Flags", "Group", "Portmapper", "RpcMapping", "Service"]
