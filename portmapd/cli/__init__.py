"""``portmapctl``: the local channel from a shell."""

from __future__ import annotations

import signal


def main(arguments: list[str] | None = None) -> int:
    """Run ``portmapctl``.

    :param arguments: the command line without the program's name; None: that of the process.
    :return: the exit status.
    """
    # Python's own handler would print a traceback, even during the imports below.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from portmapd.cli.invocation import invoke

    return invoke(arguments)
