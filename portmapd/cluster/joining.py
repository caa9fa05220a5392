"""A cluster of the port mapper that a configuration describes."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from twisted.internet.interfaces import IReactorTime

from portmapd import __version__
from portmapd.cluster.cluster import EtcdCluster, Membership
from portmapd.cluster_config import ClusterConfig
from portmapd.etcd.client import EtcdClient
from portmapd.etcd.tls import EtcdTls
from portmapd.registry.registry import Registry
from portmapd.registry.shared import ClusterHost

MACHINE_ID = Path("/etc/machine-id")


def join_cluster(
    config: ClusterConfig, registry: Registry, reactor: IReactorTime, place: str
) -> EtcdCluster:
    """The cluster, which is joined when it is started.

    :param config: how the port mapper belongs to it.
    :param registry: what is registered here.
    :param reactor: makes connections.
    :param place: tells this port mapper from others of this machine.
    :raises ConfigurationError: a file, or the address, cannot be used.
    """
    host = ClusterHost(config.host, config.reached(), machine_of(place), __version__)
    membership = Membership(host, config.root, config.ttl, config.stale, config.mappings)
    tls = EtcdTls(config.ca, config.cert, config.key)
    if config.members[0].startswith("https:"):
        tls.check()
    etcd = EtcdClient(reactor, config.members, config.user, config.password(), tls)
    return EtcdCluster(membership, etcd, registry, reactor)


def machine_of(place: str) -> str:
    """What tells a port mapper from all others, and is the same after it has started again.

    The id of a machine must not be told to others as it is (``machine-id(5)``).

    :param place: tells it from others of this machine.
    """
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = ""
    # Without one, nothing says that it is the same machine.
    known = machine or secrets.token_hex(16)
    return hashlib.sha256(f"portmapd {known} {os.geteuid()} {place}".encode()).hexdigest()[:32]
