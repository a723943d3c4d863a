"""The Job that searches for threads, for the page "Threads"."""

from __future__ import annotations

from typing import Any

from nautobot.apps.jobs import StringVar

from ai_ops.celery_tasks import find_threads
from ai_ops.choices import JOB_GROUP
from ai_ops.jobs.base import MaintenanceJob
from ai_ops.logic.globs import MAX_PATTERN_CHARACTERS

name = JOB_GROUP


class FindThreadsJob(MaintenanceJob):
    """Find the threads whose ids match a pattern, and change nothing."""

    pattern = StringVar(
        max_length=MAX_PATTERN_CHARACTERS,
        default="*",
        required=False,
        label="Thread pattern",
        description="Threads whose id matches this glob, such as user-42-*.",
    )

    class Meta:
        """Job metadata."""

        name = "Find Threads"
        description = 'Searches for conversations by a pattern, for the page "Threads". Changes nothing.'
        hidden = True
        has_sensitive_variables = False

    def run(self, pattern: str = "*") -> dict[str, Any]:
        """Search for threads; the report is the result."""
        report = find_threads(pattern or "*")
        if not report["success"]:
            self.fail("%s", report["error"])
        return report
