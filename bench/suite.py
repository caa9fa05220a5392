"""Everything that is measured, by name. A new measurement is a row of MEASURES."""

from collections.abc import Callable, Mapping

from bench import footprint, mappings, names, speed, storm
from bench.plan import Plan
from bench.rows import Row

MEASURES: Mapping[str, Callable[[Plan], list[Row]]] = {
    "udp": speed.udp_32,
    "udp-1": speed.udp_1,
    "tcp": speed.tcp_32,
    "tcp-pipelined": speed.tcp_pipelined,
    "dump": speed.dump,
    "mappings": mappings.many,
    "start": footprint.start,
    "import": footprint.imported,
    "memory": footprint.memory,
    "liveness": footprint.liveness,
    "register": names.register,
    "enter": names.enter,
    "lookup": names.lookup,
    "most": names.most,
    "storm": storm.storm,
}
