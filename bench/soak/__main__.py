"""The command: python -m bench.soak."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import MeasureError, namespace
from bench.load import build
from bench.servers import PORTMAPD
from bench.soak import endurance, fairness
from bench.soak.endurance import FLAT, endure
from bench.soak.fairness import Meeting, Row
from bench.soak.hostile import HOSTILE
from bench.table import aligned


def main(arguments: Sequence[str]) -> int:
    """Put load on the daemon, and print what came of it.

    :return: the exit status: 0, or 1 when a promise was broken or nothing could be measured.
    """
    options = _parser().parse_args(arguments)
    try:
        if not options.inside:
            namespace.enter(arguments, "bench.soak")
        namespace.require("cc", *(["rpcbind"] if options.peer else []))
        build()
        with TemporaryDirectory() as folder:
            run = _hostile if options.hostile else _lasting
            return 0 if run(options, Path(folder)) else 1
    except MeasureError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.soak", description=__doc__)
    add = parser.add_argument
    add("--hostile", action="store_true", help="meet each hostile peer alone")
    add("--minutes", type=float, default=60.0, help="how long the load lasts [60]")
    add("--rate", type=float, help="GETPORT calls a second [80 %% of the highest rate]")
    add("--seconds", type=float, default=10.0, help="with each hostile peer [10]")
    add("--scale", type=float, default=1.0, help="share of connections and mappings [1]")
    add("--flat", type=float, default=FLAT, help="by which share memory may grow [0.02]")
    add("--untimed", action="store_true", help="for a machine that does other things, too")
    add("--peer", action="store_true", help="have rpcbind meet the hostile peers, too")
    names = ", ".join(HOSTILE)
    add("--only", action="append", choices=HOSTILE, metavar="NAME", help=names)
    add(namespace.INSIDE, dest="inside", action="store_true", help=argparse.SUPPRESS)
    return parser


def _hostile(options: argparse.Namespace, folder: Path) -> bool:
    meeting = Meeting(options.seconds, options.scale, folder, not options.untimed)
    rows: list[Row] = []
    for name in options.only or HOSTILE:
        print(f"soak: {name}", file=sys.stderr, flush=True)
        rows += meeting.rows(name, beside_peer=options.peer)
    print("\n".join(aligned([fairness.HEADS, *(row.cells() for row in rows)], fairness.LEFT)))
    for row in rows:
        for note in row.notes():
            print(note)
    return all(row.is_fair for row in rows if row.server == PORTMAPD)


def _lasting(options: argparse.Namespace, folder: Path) -> bool:
    seen = endure(60 * options.minutes, options.rate, options.scale, folder)
    print(f"{seen.rate:,.0f} GETPORT calls a second over UDP")
    cells = [(str(n), *quarter.cells()) for n, quarter in enumerate(seen.quarters, start=1)]
    print("\n".join(aligned([endurance.HEADS, *cells], endurance.LEFT)))
    for name, each in {**seen.crowd, "hostile": seen.hostile}.items():
        print(f"{name}: {each}")
    promises = list(seen.promises(options.flat, is_timed=not options.untimed))
    for promise in promises:
        print(promise)
    return all(promise.is_kept for promise in promises)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
