"""The Job that moves conversations to CompactRedisSaver."""

from __future__ import annotations

from typing import Any

from nautobot.apps.jobs import ChoiceVar, DryRunVar, StringVar

from ai_ops.celery_tasks import move_conversations
from ai_ops.choices import JOB_GROUP
from ai_ops.jobs.base import MaintenanceJob
from ai_ops.logic.savers import AUTO, CLASSES, OLDER
from ai_ops.runs.time_limit import StoppedByTimeLimitError

name = JOB_GROUP


class MoveConversationsJob(MaintenanceJob):
    """Copy conversations to CompactRedisSaver, within the checkpoint Redis."""

    source = ChoiceVar(
        choices=((AUTO, "The saver that has the conversations"), *((each, CLASSES[each][1]) for each in OLDER)),
        default=AUTO,
        label="From",
        description="The saver that has the conversations now. The originals stay.",
    )
    pattern = StringVar(
        default="*", label="Thread pattern", description="Only threads whose id matches this glob, such as user-42-*."
    )
    dryrun = DryRunVar(description="Write nothing, and count the threads that a run would move.")

    class Meta:
        """Job metadata."""

        name = "Move Conversations"
        description = "Copies LangGraph conversations from RedisSaver or ValkeySaver to CompactRedisSaver"
        has_sensitive_variables = False
        # Writing, reading back and comparing a checkpoint takes some milliseconds. The next run moves the rest.
        soft_time_limit = 3600
        time_limit = 3780

    def run(self, source: str = AUTO, pattern: str = "*", dryrun: bool = False) -> dict[str, Any]:
        """Move the conversations; the report is the result, even if the run fails."""
        try:
            report = move_conversations(source or AUTO, pattern or "*", dryrun)
        except StoppedByTimeLimitError as limit:
            report = limit.report
        if not report["success"]:
            self.fail("%s", report["error"])
        return report
