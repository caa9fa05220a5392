"""The local channel for Twisted applications."""

from portmapd.client.core.registrations import Group
from portmapd.client.core.watching import AsyncChanges
from portmapd.client.twisted.portmapper import Portmapper
from portmapd.client.values import Change, Flags, RpcMapping, Service

__all__ = ["AsyncChanges", "Change", "Flags", "Group", "Portmapper", "RpcMapping", "Service"]
