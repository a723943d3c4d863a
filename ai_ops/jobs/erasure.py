"""The Job that erases conversations."""

from __future__ import annotations

from typing import Any

from nautobot.apps.jobs import BooleanVar, DryRunVar, StringVar, TextVar

from ai_ops.celery_tasks import erase_threads
from ai_ops.checkpoints.erased_names import conceal_arguments
from ai_ops.choices import JOB_GROUP
from ai_ops.config import SHA256, AiOpsSettings
from ai_ops.jobs.base import MaintenanceJob

name = JOB_GROUP

# Required besides the permission to run the Job, because the Job deletes people's data.
PERMISSION = "ai_ops.add_threaderasure"


class EraseConversationsJob(MaintenanceJob):
    """Delete whole conversations of any age, and keep a record of the erasure."""

    thread_ids = TextVar(
        required=False,
        label="Thread IDs",
        description="One ID per line, exactly as in the agent's configuration.",
    )
    thread_pattern = StringVar(
        required=False, label="Thread pattern", description="All threads whose id matches this glob, such as user-42-*."
    )
    store_namespaces = TextVar(
        required=False,
        label="Store namespaces",
        description="Namespaces of LangGraph's RedisStore whose items are deleted too, one per line, such as users.42.",
    )
    reason = StringVar(
        label="Reason", max_length=255, description="Reason for the erasure, for the record that is kept as evidence."
    )
    include_pinned = BooleanVar(
        default=False, label="Include pinned threads", description="By default, pinned threads stay."
    )
    dryrun = DryRunVar(description="Delete nothing, and report what would be deleted.")

    class Meta:
        """Job metadata."""

        name = "Erase Conversations"
        description = "Deletes whole conversations of any age, and keeps a record of the erasure"
        has_sensitive_variables = False
        soft_time_limit = 3600
        time_limit = 3780

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the Job, then keep or hash the erased names, depending on the setting."""
        try:
            return super().__call__(*args, **kwargs)
        finally:
            if self.job_result is not None and AiOpsSettings.load().erasure_ids == SHA256:
                conceal_arguments(self.job_result, self.request.kwargs)

    def run(
        self,
        reason: str,
        thread_ids: str = "",
        thread_pattern: str = "",
        store_namespaces: str = "",
        include_pinned: bool = False,
        dryrun: bool = False,
    ) -> dict[str, Any]:
        """Erase the conversations; the report is the result, even if the run fails."""
        if self.job_result is not None and not self.user.has_perm(PERMISSION):
            error = f"You may not erase conversations: ask for the permission {PERMISSION}."
            self.fail("%s", error)
            return {"success": False, "error": error}
        report = erase_threads(
            [line for line in (thread_ids or "").splitlines() if line],
            thread_pattern or None,
            store_namespaces=[line.strip() for line in (store_namespaces or "").splitlines() if line.strip()],
            reason=reason,
            include_pinned=include_pinned,
            dryrun=dryrun,
        )
        if not report["success"]:
            self.fail("%s", report["error"])
        return report
