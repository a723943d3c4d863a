"""A plugin that prints the test files with the most processor time: ``make test ARGS=--costs``.

The time of a test is that of its own process and of the processes that it has waited for. The time of a server that
outlives the test counts for the test that stops it, and PostgreSQL's counts for none.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict

import pytest

SHOWN = 20  # files, and as many tests
PROPERTY = "costs"

Costs = tuple[float, float, float]
_begun = pytest.StashKey[Costs]()


def _now() -> Costs:
    """Give seconds by the clock, of this process, and of those that it has waited for."""
    used = (resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, children = (each.ru_utime + each.ru_stime for each in used)
    return time.monotonic(), own, children


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item):
    """Note when a test begins, before its fixtures are made."""
    item.stash[_begun] = _now()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Add to the last report of a test what all of the test took; xdist carries it to the process that reports."""
    report = yield
    if call.when == "teardown":
        took = [after - before for after, before in zip(_now(), item.stash[_begun], strict=True)]
        report.user_properties.append((PROPERTY, took))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the files and tests with the most processor time."""
    files, tests = defaultdict(lambda: [0.0, 0.0, 0.0]), {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, took in getattr(report, "user_properties", ()):
                if name == PROPERTY:
                    tests[report.nodeid] = took
                    path = report.nodeid.split("::")[0]
                    files[path] = [sum(pair) for pair in zip(files[path], took, strict=True)]
    for title, costs in (("files", files), ("tests", tests)):
        terminalreporter.section(
            f"most processor time, {title}: seconds by the clock, of the test's process, of others"
        )
        most = sorted(costs.items(), key=lambda each: -sum(each[1][1:]))
        total = [sum(column) for column in zip(*costs.values(), strict=True)]
        for name, took in [("all", total), *most[:SHOWN]]:
            terminalreporter.write_line(" ".join(f"{seconds:8.2f}" for seconds in took) + f"  {name}")
