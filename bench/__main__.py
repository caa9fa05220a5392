"""The command: python -m bench."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from attrs import asdict

from bench import namespace
from bench.errors import MeasureError
from bench.plan import FULL, QUICK, Plan
from bench.process import FIRST, set_priority
from bench.programs import build
from bench.rows import Row
from bench.suite import MEASURES
from bench.table import lines, record


def main(arguments: list[str]) -> int:
    """Measure and print.

    Returns the exit status: 0, 1 when something could not be measured.
    """
    options = _parser().parse_args(arguments)
    try:
        if not options.inside:
            namespace.enter(arguments)
        for peer in ("rpcbind", "epmd"):
            namespace.require(peer)
        build()
    except MeasureError as error:
        _say(str(error))
        return 1
    set_priority(os.getpid(), FIRST)
    plan = QUICK if options.quick else FULL
    rows, complete = _measure(plan, options.only or MEASURES)
    print("\n".join(lines(rows)))
    if options.json:
        options.json.write_text(_document(plan, rows))
    return 0 if complete else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Measure portmapd beside rpcbind and epmd. Needs root, cc and both.",
    )
    parser.add_argument("--quick", action="store_true", help="short rounds: a look, not a result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument(
        "--only",
        action="append",
        choices=MEASURES,
        metavar="NAME",
        help=f"measure this alone (repeatable): {', '.join(MEASURES)}",
    )
    parser.add_argument(
        namespace.INSIDE, dest="inside", action="store_true", help=argparse.SUPPRESS
    )
    return parser


def _measure(plan: Plan, names: Iterable[str]) -> tuple[list[Row], bool]:
    """The rows of these measures, and whether all of them could be made."""
    rows: list[Row] = []
    complete = True
    for name in names:
        _say(f"measuring {name}")
        try:
            rows += MEASURES[name](plan)
        except MeasureError as error:
            _say(f"{name} not measured: {error}")
            complete = False
    return rows, complete


def _document(plan: Plan, rows: Iterable[Row]) -> str:
    machine = {
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    document = {"machine": machine, "plan": asdict(plan), "rows": list(map(record, rows))}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _say(sentence: str) -> None:
    print(f"bench: {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
