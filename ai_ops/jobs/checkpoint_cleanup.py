"""The Job that deletes checkpoints past their retention."""

from __future__ import annotations

from typing import Any

from nautobot.apps.jobs import DryRunVar, IntegerVar, Job

from ai_ops.celery_tasks import cleanup_old_checkpoints
from ai_ops.choices import JOB_GROUP
from ai_ops.config import MAX_RETENTION_DAYS, AiOpsSettings

name = JOB_GROUP


class CleanupCheckpointsJob(Job):
    """Delete LangGraph checkpoints that are past the retention."""

    retention_days = IntegerVar(
        required=False,
        min_value=1,
        max_value=MAX_RETENTION_DAYS,
        label="Retention days",
        description="Checkpoints older than this go, unless a live conversation needs them. "
        "Empty: what the app's configuration says at the time of the run.",
    )
    dryrun = DryRunVar(description="Delete nothing, and report what would go.")

    class Meta:
        """What Nautobot shows of the Job."""

        name = "Cleanup Old Checkpoints"
        description = "Delete LangGraph checkpoints from Redis that are past the retention."
        # Nothing secret is entered, and a Job with sensitive variables can't be scheduled.
        has_sensitive_variables = False

    @classmethod
    def as_form(cls, *args: Any, **kwargs: Any) -> Any:
        """Build the form with the retention that is configured now, not when the process started."""
        form = super().as_form(*args, **kwargs)
        if "retention_days" not in form.initial:
            form.fields["retention_days"].initial = AiOpsSettings.load().retention_days
        return form

    def run(self, retention_days: int | None = None, dryrun: bool = False) -> dict[str, Any]:
        """Run the cleanup; its report is the result, also of a failed run."""
        if retention_days is None:
            retention_days = AiOpsSettings.load().retention_days
        report = cleanup_old_checkpoints(retention_days=retention_days, dryrun=dryrun)
        if not report["success"]:
            self.fail(report["error"])
        return report
