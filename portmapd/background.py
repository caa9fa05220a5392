"""A start in the background, which says by itself why it fails."""

from __future__ import annotations

import os
import sys

from twisted.scripts import twistd

# twistd has no other place for this.
from twisted.scripts._twistd_unix import UnixApplicationRunner

from portmapd.tap import CannotStartInBackground


class Runner(UnixApplicationRunner):
    """twistd's, but that it prints nothing more when the daemon has printed why it cannot start."""

    def _waitForStart(self, readPipe: int) -> int:
        said = os.read(readPipe, 100)
        if said == b"0":
            return 0
        if CannotStartInBackground.__name__.encode() not in said:
            why = said[2:].decode(errors="backslashreplace")
            print(f"portmapd: it cannot start ({why}); its log says more", file=sys.stderr)
        return 1


def run() -> None:
    """Run twistd."""
    vars(twistd)["_SomeApplicationRunner"] = Runner
    twistd.run()
