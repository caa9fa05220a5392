"""What the machines of a cluster share: their services and mappings."""

from __future__ import annotations

from typing import NamedTuple


# Named tuples: a machine may hold a hundred thousand of them.
class SharedService(NamedTuple):
    """A named service of a machine of the cluster.

    :param name: the name.
    :param uid: the user who registered it there.
    :param pid: the process that registered it there.
    :param port: a decimal port.
    :param exe: the path of the process's executable if it is public; else empty.
    :param host: what the machine is called in the cluster.
    :param address: where it is reached.
    """

    name: str
    uid: int
    pid: int
    port: str
    exe: str
    host: str
    address: str


class SharedMapping(NamedTuple):
    """An RPC mapping of a machine of the cluster; its fields are those of a mapping.

    :param host: what the machine is called in the cluster.
    """

    program: int
    version: int
    netid: str
    address: str
    owner: str
    host: str


class ClusterHost(NamedTuple):
    """A machine of the cluster.

    :param name: what it is called there.
    :param address: where it is reached.
    :param machine: tells it from any other machine of that name.
    :param release: its version of portmapd.
    """

    name: str
    address: str
    machine: str
    release: str


#: What has an entry of its own in the cluster.
Shared = SharedService | SharedMapping | ClusterHost
