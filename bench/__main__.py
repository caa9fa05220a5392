"""The command: python -m bench."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import asdict

from bench import MeasureError, channel, footprint, namespace, rpc, storm
from bench.load import build
from bench.measure import FULL, QUICK, Measure, Plan
from bench.servers import THIS, Checkout, other_checkout
from bench.table import CHECKOUTS, PEERS, table

PAGE = THIS.top / "docs" / "performance.json"
"""What the page on performance shows."""

MEASURES: Mapping[str, Callable[[Plan], list[Measure]]] = {
    "udp": rpc.udp,
    "udp-1": rpc.measures(rpc.UDP_1),
    "tcp": rpc.measures(rpc.TCP),
    "tcp-pipelined": rpc.measures(rpc.TCP_PIPELINED),
    "dump": rpc.measures(rpc.DUMP_1, rpc.DUMP_16),
    "mappings": rpc.mappings,
    "start": footprint.start,
    "import": footprint.imported,
    "memory": footprint.memory,
    "liveness": footprint.liveness,
    "register": channel.register,
    "enter": channel.enter,
    "lookup": channel.lookup,
    "most": channel.most,
    "storm": storm.storm,
}
"""Everything that is measured, by name."""


def main(arguments: list[str]) -> int:
    """Measure and print.

    :return: the exit status: 0, or 1 when something could not be measured.
    """
    options = _parser().parse_args(arguments)
    other = other_checkout(options.against) if options.against else None
    try:
        if not options.inside:
            namespace.enter(arguments)
        namespace.require("cc", *([str(other.twistd)] if other else ("rpcbind", "epmd")))
        build()
    except MeasureError as error:
        _say(str(error))
        return 1
    plan = QUICK if options.quick else FULL
    rows, complete = _measure(plan, options.only or MEASURES, other)
    print("\n".join(table(rows, CHECKOUTS if other else PEERS)))
    for path in filter(None, (options.json, PAGE if options.page and complete else None)):
        path.write_text(_document(plan, rows))
    return 0 if complete else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Measure portmapd beside rpcbind and epmd, or beside another checkout of it. "
        "Needs root, cc and the peers.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="short rounds: a look, not a result")
    add("--json", type=Path, metavar="FILE", help="write the rows there as well")
    add("--page", action="store_true", help="write them where the page on performance has them")
    add("--against", type=Path, metavar="DIR", help="another checkout is the only peer")
    names = ", ".join(MEASURES)
    only = f"measure this alone (repeatable): {names}"
    add("--only", action="append", choices=MEASURES, metavar="NAME", help=only)
    add(namespace.INSIDE, dest="inside", action="store_true", help=argparse.SUPPRESS)
    return parser


def _measure(
    plan: Plan, names: Iterable[str], other: Checkout | None
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of these measurements, and whether all of them could be made."""
    rows: list[dict[str, Any]] = []
    complete = True
    for name in names:
        _say(f"measuring {name}")
        try:
            for measure in MEASURES[name](plan):
                rows += measure.records(plan, other)
        except (MeasureError, OSError) as error:
            _say(f"{name} not measured: {error}")
            complete = False
    return rows, complete


def _document(plan: Plan, rows: list[dict[str, Any]]) -> str:
    machine = {
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    day = datetime.now().astimezone().date().isoformat()
    document = {"date": day, "machine": machine, "plan": asdict(plan), "rows": rows}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _say(sentence: str) -> None:
    print(f"bench: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
