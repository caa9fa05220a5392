"""``/metrics``: the counters for Prometheus. No label has anything that a caller chose."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

import twisted
from portmapd import __version__
from portmapd.server.cluster import Cluster
from portmapd.web.counters import Counters, procedure_name
from portmapd.web.latency import BOUNDS
from portmapd.web.query import Answer, Query

#: The text format of Prometheus, which every version of it reads.
FORMAT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    """Tells the counters.

    :param counters: where they are.
    :param connections: how many connections there are, by their kind.
    """

    def __init__(self, counters: Counters, connections: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(PortmapCollector(counters, connections))
        ProcessCollector(registry=self._registry)

    def answer(self, query: Query) -> Answer:
        """All of them."""
        return Answer([generate_latest(self._registry)], FORMAT)


class PortmapCollector(Collector):
    """Reads the counters when it is asked."""

    def __init__(self, counters: Counters, connections: Callable[[], Mapping[str, int]]) -> None:
        self._counters = counters
        self._connections = connections

    def collect(self) -> Iterable[Metric]:
        """Every metric."""
        counters = self._counters
        yield self._calls()
        yield _counter("refusals", "What was refused.", "reason", counters.refusals)
        yield _gauge("registrations", "What is registered now.", "kind", counters.registrations)
        changes = {kind.value: count for kind, count in counters.registry.changes.items()}
        yield _counter("changes", "Changes of what is registered.", "kind", changes)
        yield _gauge("connections", "Open connections.", "kind", self._connections())
        yield self._bytes()
        yield self._latency()
        yield from self._state()
        if counters.cluster is not None:
            yield from _cluster(counters.cluster)
        versions = {
            "version": __version__,
            "python": platform.python_version(),
            "twisted": twisted.__version__,
        }
        yield InfoMetricFamily("portmapd_build", "What serves.", versions)

    def _calls(self) -> Metric:
        labels = ("version", "procedure", "transport", "result")
        calls = CounterMetricFamily(
            "portmapd_calls", "Calls of program 100000 that were served.", labels=labels
        )
        for tally, count in self._counters.statistics.totals().items():
            name = procedure_name(tally.version, tally.procedure)
            result = "success" if tally.success else "failure"
            calls.add_metric([str(tally.version), name, tally.transport, result], count)
        return calls

    def _bytes(self) -> Metric:
        family = CounterMetricFamily(
            "portmapd_bytes",
            "Bytes of calls and replies of program 100000.",
            labels=("direction", "transport"),
        )
        for transport, traffic in sorted(self._counters.statistics.traffics.items()):
            family.add_metric(["received", transport], traffic.received)
            family.add_metric(["sent", transport], traffic.sent)
        return family

    def _latency(self) -> Metric:
        histogram = self._counters.histogram
        buckets, below = [], 0
        for bound, count in zip((*BOUNDS, math.inf), histogram.counts, strict=True):
            below += count
            buckets.append(("+Inf" if math.isinf(bound) else str(bound), float(below)))
        return HistogramMetricFamily(
            "portmapd_latency_seconds",
            "From the arrival of a call to its reply; one call a second is timed.",
            buckets=buckets,
            sum_value=histogram.total,
        )

    def _state(self) -> Iterable[Metric]:
        persistence = self._counters.persistence
        if persistence is not None:
            yield GaugeMetricFamily(
                "portmapd_state_age_seconds",
                "Since the state file was written.",
                persistence.age,
            )
            yield GaugeMetricFamily(
                "portmapd_state_behind_seconds",
                "For which the oldest change is not in the state file; 0: all are.",
                persistence.behind,
            )


def _cluster(cluster: Cluster) -> Iterable[Metric]:
    status, copy = cluster.status(), cluster.copy
    age = math.inf if status.age is None else status.age
    for name, text, value in (
        ("joined", "Whether this machine has joined its cluster.", status.state == "joined"),
        ("age_seconds", "Since what the cluster shares was known to be all.", age),
        ("lease_seconds", "Until the lease ends, unless it is kept alive.", status.left),
        ("revision", "The revision of etcd that is known.", status.revision),
        ("hosts", "Machines of the cluster.", len(copy.hosts)),
        ("services", "Services that machines of the cluster share.", copy.counts.total()),
        ("unwritten", "What this machine shares, and etcd was not told.", status.unwritten),
    ):
        yield GaugeMetricFamily(f"portmapd_cluster_{name}", text, value)
    text = "How often something was in the way."
    yield _counter("cluster_failures", text, "state", status.failures)


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, int],
) -> Metric:
    family = kind(f"portmapd_{name}", text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family


_counter = partial(_family, CounterMetricFamily)
_gauge = partial(_family, GaugeMetricFamily)
