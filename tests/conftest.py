"""What every test run offers: ``--nothing-skipped``."""

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--nothing-skipped``."""
    parser.addoption(
        "--nothing-skipped",
        action="store_true",
        help="a skipped test is a failed one (for machines that have every program)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where nothing may be skipped."""
    report = yield
    if report.skipped and item.config.getoption("--nothing-skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped, but: {reason}"
    return report
