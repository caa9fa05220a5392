"""What every test run offers: ``--nothing-skipped``, and signals as a terminal has them."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any

import pluggy
import pytest

from tests.support.libraries import OLDEST_TWISTED, TWISTED

_USUAL: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGTERM: signal.SIG_DFL,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--nothing-skipped``."""
    parser.addoption(
        "--nothing-skipped",
        action="store_true",
        help="a skipped test is a failed one (for machines that have every program)",
    )


#: A socket that Twisted 22.4 could not bind is closed when it is collected.
_UNCLOSED = (
    "ignore:Exception ignored in. <socket.socket fd=-1:pytest.PytestUnraisableExceptionWarning"
)


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a background job inherits: it ignores signals that the tests send to programs.

    And keep the daemons of root away from the machine's own state file.
    """
    os.environ["STATE_DIRECTORY"] = "/nonexistent/state"
    if TWISTED == OLDEST_TWISTED:
        config.addinivalue_line("filterwarnings", _UNCLOSED)
    for number, handler in _USUAL.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Turn a skip into a failure where nothing may be skipped."""
    report = (yield).get_result()
    if report.skipped and item.config.getoption("--nothing-skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped, but: {reason}"
