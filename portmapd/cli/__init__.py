"""``portmapctl``: the local channel from a shell."""

from __future__ import annotations

import signal


def main(arguments: list[str] | None = None) -> int:
    """Run ``portmapctl``.

    :param arguments: what stands behind its name; None: the process's own arguments.
    :return: its exit status.
    """
    # Python's own handler would print a traceback, already while the rest is imported.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from portmapd.cli.invocation import invoke

    return invoke(arguments)
