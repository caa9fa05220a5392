"""The local channel for programs without an event loop: plain sockets, threads, no Twisted."""

from portmapd.client.blocking.changes import Changes
from portmapd.client.blocking.portmapper import TIMEOUT, Portmapper
from portmapd.client.core.registrations import Group
from portmapd.client.values import Change, Flags, RpcMapping, Service

__all__ = ["TIMEOUT", "Change", "Changes", "Flags", "Group", "Portmapper", "RpcMapping", "Service"]
