"""What the local channel needs of a cluster, whose machines share their services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from portmapd.errors import Refusal
from portmapd.registry.cluster_copy import ClusterCopy
from portmapd.registry.service import NamedService


@frozen
class ClusterMember:
    """A member of etcd.

    :param url: where it is asked.
    :param state: ``asked``: it is the one that was asked last; ``known``: it may be asked;
        else why it does not answer.
    """

    url: str
    state: str


@frozen(kw_only=True)
class ClusterStatus:
    """How this machine stands in its cluster.

    :param host: what it is called there.
    :param address: where it is reached.
    :param state: ``joined``, or what is in the way: ``joining``, ``unreachable``, ``refused``,
        ``full``, ``garbage``, ``name-taken``.
    :param why: what etcd, or the way to it, said; empty while it is joined.
    :param age: seconds since the copy was known to be current; 0 while it is; None: there is none.
    :param revision: etcd's revision that the copy is of.
    :param lease: the number of the lease under which it shares; 0: it has none.
    :param left: seconds until that ends, unless it is kept alive.
    :param members: the members of etcd.
    :param unwritten: how much of what this machine shares etcd has not been told.
    :param failures: how often something was in the way, by its state.
    """

    host: str
    address: str
    state: str
    why: str
    age: float | None
    revision: int
    lease: int
    left: float
    members: Sequence[ClusterMember]
    unwritten: int
    failures: Mapping[str, int]


class Cluster(Protocol):
    """The cluster, as sessions of the local channel see it.

    :ivar copy: what its machines share.
    """

    copy: ClusterCopy

    def age(self) -> float:
        """Seconds since the copy was known to be current; 0 while it is.

        :raises ClusterUnreachable: that is too long ago.
        """
        raise NotImplementedError

    def claim(
        self, services: Sequence[NamedService], done: Callable[[Refusal | None], object]
    ) -> None:
        """Claim the names of exclusive shared services in the whole cluster, all or none.

        They are not registered yet. What is registered is released when it is deregistered.

        :param done: is called once with None, or with why they are refused; perhaps at once.
        """
        raise NotImplementedError

    def release(self, services: Sequence[NamedService]) -> None:
        """Release names that were claimed, and are not registered after all."""
        raise NotImplementedError

    def status(self) -> ClusterStatus:
        """How this machine stands in the cluster."""
        raise NotImplementedError
