"""The Job that deletes checkpoints past their retention."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from typing import Any

from django import forms
from nautobot.apps.jobs import ChoiceVar, DryRunVar, IntegerVar, ObjectVar, StringVar
from nautobot.extras.jobs import ScriptVariable

from ai_ops.celery_tasks import cleanup_old_checkpoints
from ai_ops.checkpoints.logic.reports import ThreadReport
from ai_ops.choices import JOB_GROUP
from ai_ops.config import MAX_RETENTION_DAYS, AiOpsSettings, CleanupOptions
from ai_ops.exceptions import ConfigurationError
from ai_ops.jobs.base import MaintenanceJob
from ai_ops.logic.foreign_text import for_csv
from ai_ops.models import RetentionPolicy
from ai_ops.runs.time_limit import StoppedByTimeLimitError

name = JOB_GROUP

YES, NO = "yes", "no"
# Nautobot keeps 10 MiB of a file unless JOB_CREATE_FILE_MAX_SIZE says otherwise.
MAX_CSV_BYTES = 8 * 1024 * 1024


class DaysVar(ScriptVariable):
    """A number of days, with fractions; at least an hour."""

    form_field = forms.FloatField

    def __init__(self, **options: Any) -> None:
        """Set the bounds."""
        super().__init__(**options)
        # The validation of the setting decides: an hour is 0.0416666... of a day.
        self.field_attrs |= {
            "min_value": 0.04,
            "max_value": MAX_RETENTION_DAYS,
            "widget": forms.NumberInput(attrs={"step": "any"}),
        }


class CleanupCheckpointsJob(MaintenanceJob):
    """Delete LangGraph checkpoints that are past the retention."""

    retention_days = DaysVar(
        required=False,
        label="Retention days",
        description="Age in days after which checkpoints are deleted, unless a live conversation needs them or a "
        "retention policy applies. 0.5 is twelve hours. Leave this and the fields below empty to use the configured "
        "values.",
    )
    dryrun = DryRunVar(description="Delete nothing, and report the keys that a run would delete.")
    thread_pattern = StringVar(
        required=False,
        label="Thread pattern",
        description="Only threads whose id matches this glob, such as user-42-*.",
    )
    # A checkbox that is missing in a REST request reads as "no", so it could not mean "as configured".
    trim_live_threads = ChoiceVar(
        choices=((YES, "Yes"), (NO, "No")),
        required=False,
        label="Trim live threads",
        description="Whether old checkpoints of live threads are deleted too.",
    )
    keep_last = IntegerVar(
        required=False,
        min_value=1,
        label="Keep last",
        description="Minimum number of checkpoints that each namespace of a live thread keeps.",
    )
    pending_retention_days = DaysVar(
        required=False,
        label="Pending retention days",
        description="The retention of threads that wait for a user's answer.",
    )
    memory_limit_mb = IntegerVar(
        required=False,
        min_value=1,
        label="Memory limit (MiB)",
        description="The memory retention applies while Redis uses more memory than this.",
    )
    memory_retention_days = DaysVar(
        required=False,
        label="Memory retention days",
        description="The shorter retention while Redis is over the memory limit.",
    )
    max_deletions = IntegerVar(
        required=False,
        min_value=1,
        label="Max deletions",
        description="Maximum number of keys to delete; the run then stops with a warning.",
    )

    trial_policy = ObjectVar(
        model=RetentionPolicy,
        required=False,
        label="Trial policy",
        description="A retention policy to try in a dry run as if it were enabled.",
    )

    class Meta:
        """Job metadata."""

        name = "Cleanup Old Checkpoints"
        description = "Clean up old LangGraph conversation checkpoints from Redis based on retention policy"
        template_name = "ai_ops/cleanup_job.html"
        # No variable is secret, and a Job with sensitive variables can't be scheduled.
        has_sensitive_variables = False
        # A million threads take minutes, on a slow Redis more than Nautobot's default of five. At the soft limit the
        # current batch is completed first: requests to a Redis that does not answer are retried for a hundred seconds.
        soft_time_limit = 3600
        time_limit = 3780

    @classmethod
    def as_form(cls, *args: Any, **kwargs: Any) -> Any:
        """Build the form with the current settings, not those at the start of the process."""
        form = super().as_form(*args, **kwargs)
        try:
            configured = AiOpsSettings.load()
        except ConfigurationError:
            # The run reports the invalid setting. A page that fails to open would not.
            return form
        for field in fields(CleanupOptions):
            if field.name not in form.initial:
                value = getattr(configured, field.name)
                form.fields[field.name].initial = (YES if value else NO) if isinstance(value, bool) else value
        return form

    def run(self, retention_days: float | None = None, dryrun: bool = False, **options: Any) -> dict[str, Any]:
        """Run the cleanup; its report is the result, even if the run fails."""
        trial = options.pop("trial_policy", None)
        options["trial_policy"] = str(trial.pk) if trial else None
        trim = options.pop("trim_live_threads", None)
        options["trim_live_threads"] = {YES: True, NO: False}.get(trim)
        options["thread_pattern"] = options.get("thread_pattern") or None
        threads = ThreadTable()
        try:
            report = cleanup_old_checkpoints(retention_days, dryrun, on_thread=threads.add, **options)
        except StoppedByTimeLimitError as limit:
            # The run has ended normally, and its report says more than a traceback.
            report = limit.report
        finally:
            # Also if the run fails: users need to know which threads were deleted.
            if threads.count:
                self.create_file("threads-to-delete.csv" if dryrun else "deleted-threads.csv", threads.text())
        if not report["success"]:
            self.fail("%s", report["error"])
        return report


class ThreadTable:
    """A CSV file of conversations, up to the size that Nautobot stores."""

    def __init__(self) -> None:
        self.count = 0
        self._lines = io.StringIO()
        self._left_out = 0
        csv.writer(self._lines).writerow([field.name for field in fields(ThreadReport)])
        # All values are quoted, because a spreadsheet may read semicolons and tabs as separators, depending on its
        # locale.
        self._writer = csv.writer(self._lines, quoting=csv.QUOTE_NONNUMERIC)

    def add(self, thread: ThreadReport) -> None:
        """Add a row if it fits."""
        self.count += 1
        if self._lines.tell() > MAX_CSV_BYTES:
            self._left_out += 1
        else:
            self._writer.writerow(map(for_csv, thread.as_dict().values()))

    def text(self) -> str:
        """Return the table. Its last line has the number of rows that did not fit."""
        if self._left_out:
            self._writer.writerow([f"and {self._left_out} more threads did not fit into the file"])
            self._left_out = 0
        return self._lines.getvalue()
