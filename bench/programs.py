"""The benchmark's own C programs, compiled into bench/build."""

import subprocess
from pathlib import Path

from bench.errors import MeasureError
from bench.namespace import require

TOP = Path(__file__).resolve().parent.parent
"""The checkout."""

BUILD = TOP / "bench" / "build"
"""Where programs and logs of servers go; nothing in it is kept in git."""

LOAD = BUILD / "load"
LOOP = BUILD / "loop"

_NAMES = ("names.c", "channel.c", "epmd.c")
_SOURCES = {
    LOAD: ("load.c", "window.c", "samples.c", "udp.c", "tcp.c", *_NAMES),
    LOOP: ("loop.c",),
}
_CC = ("cc", "-std=c11", "-O2", "-Wall", "-Wextra")


def build() -> None:
    """Compile everything; raises MeasureError with the compiler's first error."""
    require(_CC[0])
    BUILD.mkdir(exist_ok=True)
    for program, sources in _SOURCES.items():
        _compile(program, [str(TOP / "bench" / source) for source in sources])


def _compile(program: Path, sources: list[str]) -> None:
    command = [*_CC, "-o", str(program), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "")
        raise MeasureError(f"{program.name} does not compile: {first or done.stderr.strip()}")
