"""What the port mapper has counted, as the status page and metrics show it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from portmapd.oncrpc.program import PMAP_VERS, PmapProcedure, RpcbProcedure
from portmapd.portmapper.statistics import Statistics
from portmapd.registry.registry import Registry
from portmapd.server.cluster import Cluster
from portmapd.server.persistence import Persistence
from portmapd.web.latency import Histogram


def procedure_name(version: int, procedure: int) -> str:
    """The name of a procedure of program 100000, without what all of them begin with."""
    kind: type[PmapProcedure | RpcbProcedure]
    kind = PmapProcedure if version == PMAP_VERS else RpcbProcedure
    return kind(procedure).name.partition("_")[2]


@frozen
class Counters:
    """Where the counters are; to read them costs no caller anything.

    :param registry: what is registered.
    :param statistics: what was asked.
    :param faults: how often peers were at fault, by the name of the event in the log.
    :param histogram: how long callers wait.
    :param persistence: the state file; None: there is none.
    :param cluster: what machines share; None: there is no cluster.
    """

    registry: Registry
    statistics: Statistics
    faults: Mapping[str, int]
    histogram: Histogram
    persistence: Persistence | None = None
    cluster: Cluster | None = None

    @property
    def registrations(self) -> dict[str, int]:
        """How many there are now, by their kind."""
        return {
            "mapping": len(self.registry.mappings),
            "paused": len(self.registry.suspended),
            "service": self.registry.count_services(),
        }

    @property
    def refusals(self) -> dict[str, int]:
        """How often what was refused, by the reason: a code, or the name of an event of the log."""
        return {**self.statistics.refusals, **self.faults}
