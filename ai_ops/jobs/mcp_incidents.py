"""The Job that reviews open incidents of MCP servers."""

from __future__ import annotations

from ai_ops.celery_tasks import close_resolved_incidents
from ai_ops.choices import JOB_GROUP
from ai_ops.exceptions import ConfigurationError
from ai_ops.jobs.base import MaintenanceJob

name = JOB_GROUP


class CloseResolvedIncidentsJob(MaintenanceJob):
    """Close incidents whose servers recovered without a health check, and escalate those open for too long."""

    class Meta:
        """Job metadata."""

        name = "MCP Incident Review"
        description = (
            "Closes incidents whose servers recovered without a health check, and escalates those open for too long."
        )
        hidden = True
        has_sensitive_variables = False

    def run(self) -> dict[str, int]:
        """Review all open incidents."""
        try:
            result = close_resolved_incidents()
        except ConfigurationError as error:
            self.fail("❌ Incident review failed: %s", error)
            return {}
        self.logger.info(
            "✅ Incident review completed: %s open, %s closed, %s escalated, %s error(s)",
            result["total_checked"],
            result["auto_closed"],
            result["escalated"],
            result["errors"],
        )
        if result["errors"]:
            self.fail("❌ %s incident(s) could not be reviewed, see the log.", result["errors"])
        return result
