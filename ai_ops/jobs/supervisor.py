"""The Job that supervises the other maintenance runs."""

from __future__ import annotations

from typing import Any

from ai_ops.celery_tasks import supervise
from ai_ops.choices import JOB_GROUP
from ai_ops.jobs.base import MaintenanceJob

name = JOB_GROUP


class SuperviseRunsJob(MaintenanceJob):
    """Rescue maintenance runs whose process died, start due ones, and delete old records."""

    class Meta:
        """Job metadata."""

        name = "Supervise Maintenance Runs"
        description = "Rescues runs whose process died, starts due runs, and deletes old records."
        hidden = True
        has_sensitive_variables = False

    def run(self) -> dict[str, Any]:
        """Make one pass; its report is the result, even if it fails."""
        report = supervise()
        if report["error"]:
            self.fail("%s", report["error"])
        return report
