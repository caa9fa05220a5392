"""The command: python -m fuzz."""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.targets import TARGETS

#: Where inputs go that break a promise.
CRASHES = Path("fuzz/crashes")
#: How much the resident memory of a target may grow, in megabytes, once half of it is done.
GROWTH = 32
#: The longest input, in bytes.
LONGEST = 4096
#: What libFuzzer prints now and then: its inputs so far, coverage, and memory.
_STATUS = re.compile(r"#(\d+)\s.*cov: (\d+).* rss: (\d+)Mb")


def main(arguments: list[str]) -> int:
    """Fuzz targets, each in a process of its own.

    :return: the exit status: 0, or 1 if an input broke a promise or memory grew.
    """
    options = _parser().parse_args(arguments)
    CRASHES.mkdir(exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as threads:
        reports = list(threads.map(_run(options), options.only or TARGETS))
    print("\n".join(report for report, _ in reports))
    return 0 if all(passed for _, passed in reports) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m fuzz", description="Fuzz what takes bytes.")
    parser.add_argument("--only", action="append", choices=TARGETS, help="may be repeated")
    parser.add_argument("--seconds", type=int, default=60, help="for each target; 0: no limit [60]")
    parser.add_argument("--runs", type=int, default=-1, help="inputs for each target [any number]")
    parser.add_argument("--longest", type=int, default=LONGEST, help=f"bytes [{LONGEST}]")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time [2]")
    return parser


def _run(options: argparse.Namespace) -> Callable[[str], tuple[str, bool]]:
    """What fuzzes one target: its line of the report, and whether it passed."""

    def run(name: str) -> tuple[str, bool]:
        limits = (f"-max_total_time={options.seconds}", f"-runs={options.runs}")
        with TemporaryDirectory() as corpus:
            for number, seed in enumerate(TARGETS[name].seeds):
                Path(corpus, str(number)).write_bytes(seed)
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "fuzz.process", name, f"-max_len={options.longest}"),
                    *(*limits, f"-artifact_prefix={CRASHES}/{name}-", corpus),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        return _report(name, done.returncode, done.stdout)

    return run


def _report(name: str, status: int, said: str) -> tuple[str, bool]:
    states = [tuple(map(int, state)) for state in _STATUS.findall(said)]
    if status or not states:
        return f"{name}: FAILED\n{said[-4000:]}", False
    inputs, coverage, resident = states[-1]
    half = next(memory for count, _, memory in states if 2 * count >= inputs)
    grown = resident - half
    memory = f"{resident} MB, {grown} MB more than halfway"
    return f"{name}: {inputs:,} inputs, coverage {coverage}, {memory}", grown <= GROWTH


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
