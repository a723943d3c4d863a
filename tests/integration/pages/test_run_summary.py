"""The result of a run in words, from what its record keeps."""

import pytest

from ai_ops.checkpoints.logic.reports import CleanupReport
from ai_ops.mcp.logic.reports import HealthReport
from ai_ops.models import MaintenanceRun
from ai_ops.runs.records import counters_of
from ai_ops.ui.run_summary import summary

REPORT = CleanupReport(
    30,
    processed_count=120_000,
    deleted_count=2_500,
    threads_deleted=400,
    threads_kept=1,
    checkpoints_trimmed=12,
    orphan_count=1,
    seconds=75.2,
)


def of(kind, report, **fields):
    return summary(MaintenanceRun(kind=kind, state="succeeded", counters=counters_of(report), **fields))


def test_a_cleanup_says_what_went_and_what_stayed():
    assert of("cleanup", REPORT.as_dict()) == [
        "It deleted 2,500 keys of 120,000 scanned keys: 400 threads whole, 12 old checkpoints of live threads, "
        "1 key without a checkpoint.",
        "1 thread stayed.",
        "It took 1 min 15 s.",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dryrun": True}, "A dry run: nothing was deleted. A real run would delete 2,500 keys of 120,000"),
        ({"unfixable_count": 2}, "2 keys stayed, because their age is unknown."),
        ({"changed_count": 1}, "1 deletion cancelled, because the conversation continued during the run."),
        ({"limit_reached": True}, "It stopped at its limit of deletions. The next run continues."),
        ({"policy": "7 days, since Redis uses more than 512 MiB."}, "Retention: 7 days, since Redis uses more"),
        ({"memory_before_bytes": 3 << 20, "memory_after_bytes": 2 << 20}, "Redis used 3.0\xa0MB before and 2.0\xa0MB"),
    ],
)
def test_a_cleanup_says_what_else_matters(changes, sentence):
    said = of("cleanup", REPORT.as_dict() | changes)
    assert any(each.startswith(sentence) for each in said), said


def test_a_health_check_says_what_it_found():
    report = HealthReport().as_dict() | {"checked_count": 3, "changed_count": 2, "failed_count": 1}
    assert of("health", report | {"cache_cleared": True}) == [
        "3 servers checked: 1 failed, 2 changed their status.",
        "Agents were notified to drop their cached MCP clients.",
    ]


@pytest.mark.parametrize("counters", [{}, {"deleted_count": 7}, {"dryrun": False, "deleted_count": "many"}])
def test_counters_of_another_version_are_left_to_the_table(counters):
    assert summary(MaintenanceRun(kind="cleanup", state="succeeded", counters=counters)) == []
